"""Checks of COCO and LVIS annotation files.

Shape letters: C classes, in the order of the file's ``categories``, which is the order in
which the host numbers its labels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmdet_softpl.messages import MAX_EXAMPLES, some_of

from .annotation_entries import (
    BAD_BOX,
    BAD_POLYGON,
    Faults,
    check_categories,
    check_ids,
    check_images,
    check_instances,
)
from .annotation_file import AnnotationError, load_annotation_file
from .federated import federated_classes
from .shared_files import shared_files

# Official files carry a few unusable instances (COCO train2017: boxes of height 0) which the
# host skips on loading; above this share of all annotations they are an error of the file.
TOLERATED_SHARE = 1e-4


@dataclass(frozen=True)
class AnnotationSummary:
    """What an annotation file holds, in label order.

    Attributes:
        ann_file: the file.
        classes: C class names.
        category_ids: C category ids.
        image_counts: (C,) int64, counted images that hold class c.
        instance_counts: (C,) int64, counted instances of class c, crowds left out as in training.
        num_images: images in the file.
        num_labelled_images: those that hold an instance of one of the C classes.
        declared_image_counts: (C,) int64 from ``image_count``, or None.
        declared_instance_counts: (C,) int64 from ``instance_count``, or None.
        frequency: C letters from ``frequency``, or None.
        federated: True when an image has ``neg_category_ids`` (LVIS).
        known_classes: for federated files, image id -> class indices that are known to be
            present or absent there (positives and ``neg_category_ids``); otherwise None.
        not_exhaustive_classes: for federated files, image id -> class indices of
            ``not_exhaustive_category_ids`` (images with none are left out); otherwise None.
        warnings: sentences about what is doubtful but usable; nobody has reported them yet.
    """

    ann_file: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    image_counts: np.ndarray
    instance_counts: np.ndarray
    num_images: int
    num_labelled_images: int
    declared_image_counts: np.ndarray | None
    declared_instance_counts: np.ndarray | None
    frequency: tuple[str, ...] | None
    federated: bool
    known_classes: dict[int, set[int]] | None
    not_exhaustive_classes: dict[int, set[int]] | None
    warnings: tuple[str, ...] = ()

    @property
    def partial(self) -> bool:
        """Whether an image says nothing of some class, as in LVIS: its rates are lower bounds."""
        known = (self.known_classes or {}).values()
        return any(len(labels) < len(self.classes) for labels in known)


def check_annotations(
    ann_file: str | os.PathLike,
    *,
    num_classes: int | None = None,
    classes: Sequence[str] | None = None,
    image_root: str | os.PathLike | None = None,
    require_annotations: bool = True,
    whole_ids: bool = False,
    data: dict[str, Any] | None = None,
) -> AnnotationSummary:
    """Check an annotation file and summarise it.

    All problems of the file are collected (the first 10 of each kind, with counts) and raised
    together. What is doubtful but usable stands in the summary's ``warnings``, for the caller to
    report: classes without a labelled image, names that differ in case or spaces alone, image
    files of several equal entries, a share of at most 1e-4 of unusable boxes or polygons (which
    the host skips), and ``image_count`` values that the annotations contradict.

    Args:
        ann_file: COCO or LVIS json.
        num_classes: the model's number of classes, compared with the file's.
        classes: ``metainfo['classes']`` of the data set. The statistics are then those of these
            classes only. They must stand in the order of the file, because mmdet numbers
            labels in the file's order whatever the order of ``classes``.
        image_root: folder that the file names are relative to; every image must exist there.
        require_annotations: False for the json of an unlabelled set.
        whole_ids: whether ids have to be whole numbers: for a file that is evaluated against.
        data: content of the file where :func:`load_annotation_file` has read it already.

    Returns:
        The summary.

    Raises:
        AnnotationError: see :func:`load_annotation_file`; no annotation at all; an unknown
            category or image id; an id that is no whole number,
            where it has to be; a duplicate image, annotation or
            category id or category name; an image file of several entries whose annotations differ;
            a box of zero or negative size; a polygon of fewer than three points; a missing key;
            a missing image file; classes that do not match.
    """
    path = os.fspath(ann_file)
    data = load_annotation_file(path) if data is None else data
    annotations = data.get('annotations')
    if annotations is None and not require_annotations:
        annotations = []
    if not isinstance(annotations, list):
        found = 'missing' if annotations is None else f'a {type(annotations).__name__}'
        raise AnnotationError(
            f'{path}: key `annotations` is {found}, a list is needed. A labelled set needs '
            'annotations; unlabelled images go to UnlabeledImageDataset.'
        )

    problems = Faults()
    notes: list[str] = []
    if require_annotations and not annotations:
        problems.add(
            'no annotation',
            '`annotations` is an empty list',
            'Give the labelled file here and this one to UnlabeledImageDataset.',
        )
    if whole_ids:
        check_ids(data, problems)
    category_ids, names, kept = check_categories(data['categories'], classes, problems)
    image_ids = check_images(data['images'], image_root, problems)
    image_column, class_column = check_instances(annotations, image_ids, category_ids, problems)
    for kind in (BAD_BOX, BAD_POLYGON):
        if 0 < problems.counts.get(kind, 0) <= TOLERATED_SHARE * len(annotations):
            notes.append(f'{problems.pop(kind)} mmdet skips them, training goes on.')
    if require_annotations and annotations and not len(class_column) and not problems.counts:
        problems.add(
            'no annotation but crowds',
            f'all {len(annotations)} have iscrowd=1',
            'Training ignores crowds: export masks of single objects with iscrowd=0.',
        )
    problems.raise_if_any(path)
    differing, alike = shared_files(data['images'], annotations)
    for name, ids in differing.items():
        problems.add(
            'image file of several entries with different annotations',
            f'{name}: image ids {some_of(list(map(str, ids)), 5, ", ")}',
            'Training takes what one entry lacks for background there: merge them into one, with '
            'all annotations.',
        )
    problems.raise_if_any(path)
    if alike:
        notes.append(
            f'{len(alike)} image files have more than one entry: {some_of(list(alike))}. Each '
            'counts as often as it is listed; keep one entry, unless that is meant.'
        )

    num_all, ids_in_order = len(names), list(category_ids)
    instance_counts = np.bincount(class_column, minlength=num_all)
    labelled_images = np.unique(image_column[np.isin(class_column, kept)])
    pairs = np.unique(image_column * max(num_all, 1) + class_column)
    image_counts = np.bincount(pairs % max(num_all, 1), minlength=num_all)
    federated = any('neg_category_ids' in image for image in data['images'])
    known, not_exhaustive = (
        federated_classes(data['images'], category_ids, image_ids, pairs, num_all, kept)
        if federated
        else (None, None)
    )
    categories = [data['categories'][i] for i in kept]
    frequency = _declared(categories, 'frequency')
    declared_images = _declared(categories, 'image_count')
    declared_instances = _declared(categories, 'instance_count')
    class_names = tuple(names[i] for i in kept)
    empty = [names[i] for i in kept if image_counts[i] == 0]
    if require_annotations and empty:
        notes.append(
            f'{len(empty)} of {len(class_names)} classes have no labelled image: '
            f'{some_of(empty, separator=", ")}. They cannot be learned; label some '
            'images or leave them out of `classes`.'
        )
    notes += _near_equal_names(class_names)
    if require_annotations and declared_images is not None:
        notes += _contradicted_counts(path, class_names, declared_images, image_counts[kept])
    summary = AnnotationSummary(
        ann_file=path,
        classes=class_names,
        category_ids=tuple(ids_in_order[i] for i in kept),
        image_counts=image_counts[kept],
        instance_counts=instance_counts[kept],
        num_images=len(data['images']),
        num_labelled_images=len(labelled_images),
        declared_image_counts=None if declared_images is None else np.array(declared_images),
        declared_instance_counts=(
            None if declared_instances is None else np.array(declared_instances)
        ),
        frequency=None if frequency is None else tuple(frequency),
        federated=federated,
        known_classes=known,
        not_exhaustive_classes=not_exhaustive,
        warnings=tuple(notes),
    )
    if num_classes is not None:
        check_num_classes(summary, num_classes)
    return summary


def check_num_classes(summary: AnnotationSummary, num_classes: int) -> None:
    """Compare the model's number of classes with the annotation file's.

    Args:
        summary: of the labelled file.
        num_classes: of the model's heads.

    Raises:
        AnnotationError: they differ.
    """
    if len(summary.classes) != num_classes:
        raise AnnotationError(
            f'{summary.ann_file}: key `categories` gives {len(summary.classes)} classes, but the '
            f'model has num_classes={num_classes}. Set `num_classes={len(summary.classes)}` in '
            "every bbox and mask head, or give the data set's `metainfo=dict(classes=...)`."
        )


def check_same_categories(summary_a: AnnotationSummary, summary_b: AnnotationSummary) -> None:
    """Compare the categories of two files (labelled and validation, labelled and unlabelled).

    Args:
        summary_a: the file to go by.
        summary_b: the other one.

    Raises:
        AnnotationError: names or their order differ; the message lists the differing ones.
    """
    a, b = summary_a.classes, summary_b.classes
    if a == b:
        return
    where = f'{summary_b.ann_file}: key `categories` differs from that of {summary_a.ann_file}: '
    set_a, set_b = set(a), set(b)
    only_a, only_b = [n for n in a if n not in set_b], [n for n in b if n not in set_a]
    if only_a or only_b:
        raise AnnotationError(
            f'{where}only in the first ({len(only_a)}): {only_a[:MAX_EXAMPLES]}, only in the '
            f'second ({len(only_b)}): {only_b[:MAX_EXAMPLES]}. Both files need the same '
            'categories in the same order; also an unused category has to be listed.'
        )
    moved = [
        f'label {i} is {x!r} here, {y!r} there'
        for i, (y, x) in enumerate(zip(a, b, strict=True))
        if x != y
    ]
    raise AnnotationError(
        f'{where}same names, other order ({len(moved)} differ: '
        f'{"; ".join(moved[:MAX_EXAMPLES])}). Sort `categories` alike in both files, because '
        'mmdet numbers labels in this order.'
    )


def _declared(categories: list[dict], key: str) -> list | None:
    """Values of ``key``, or None unless every category has it."""
    values = [category.get(key) for category in categories]
    return None if not values or None in values else values


def _near_equal_names(names: Sequence[str]) -> list[str]:
    """A sentence about classes whose names differ in case or spaces alone."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(' '.join(name.casefold().split()), []).append(name)
    groups = [group for group in alike.values() if len(group) > 1]
    if not groups:
        return []
    shown = '; '.join(', '.join(map(repr, group)) for group in groups[:MAX_EXAMPLES])
    return [
        f'class names that differ in case or spaces alone: {shown}. If they mean the same, make '
        'them one category.'
    ]


def _contradicted_counts(
    path: str, names: Sequence[str], declared: Sequence[int], counted: np.ndarray
) -> list[str]:
    """A sentence about declared image counts that differ from the counted ones, or nothing."""
    differing = [i for i, count in enumerate(declared) if count != counted[i]]
    if not differing:
        return []
    first = differing[0]
    return [
        f'key `image_count` of {len(differing)} of {len(names)} categories contradicts the '
        f'annotations of {os.path.basename(path)}: first {names[first]!r}, declared '
        f'{declared[first]}, counted {counted[first]}. The counted numbers, and the frequency '
        'groups they give, are used. The file is probably a part of a larger one; '
        '`python -m mmdet_softpl split` recomputes these keys when it draws a part.'
    ]
