"""Checks of COCO and LVIS annotation files.

Shape letters: C classes, in the order of the file's ``categories``, which is the order in
which the host numbers its labels.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from .federated import federated_classes

MAX_EXAMPLES = 10
# Official files carry a few unusable instances (COCO train2017: boxes of height 0) which the
# host skips on loading; above this share of all annotations they are an error of the file.
TOLERATED_SHARE = 1e-4


class AnnotationError(ValueError):
    """An annotation file cannot be used; the message names file, key and value.

    Attributes:
        problems: what is wrong, one sentence a kind (the message, where there is but one).
    """

    def __init__(self, message: str, problems: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems) or (message,)


@dataclass(frozen=True)
class AnnotationSummary:
    """What an annotation file holds, in label order.

    Attributes:
        ann_file: the file.
        classes: C class names.
        category_ids: C category ids.
        image_counts: (C,) int64, counted images that hold class c.
        instance_counts: (C,) int64, counted instances of class c (crowds included).
        num_images: images in the file.
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
    declared_image_counts: np.ndarray | None
    declared_instance_counts: np.ndarray | None
    frequency: tuple[str, ...] | None
    federated: bool
    known_classes: dict[int, set[int]] | None
    not_exhaustive_classes: dict[int, set[int]] | None
    warnings: tuple[str, ...] = ()


@dataclass
class _Problems:
    """Faults of one file by kind, keeping the first examples of each."""

    advice: dict[str, str] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, example: str, advice: str) -> None:
        shown = self.examples.setdefault(kind, [])
        self.advice[kind] = advice
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if len(shown) < MAX_EXAMPLES:
            shown.append(example)

    def pop(self, kind: str) -> str:
        text = self.describe(kind)
        for store in (self.advice, self.examples, self.counts):
            store.pop(kind)  # type: ignore[attr-defined]
        return text

    def describe(self, kind: str) -> str:
        count, shown = self.counts[kind], self.examples[kind]
        more = f' and {count - len(shown)} more' if count > len(shown) else ''
        return f'{kind} ({count}): {"; ".join(shown)}{more}. {self.advice[kind]}'

    def raise_if_any(self, ann_file: str) -> None:
        if self.counts:
            problems = [self.describe(kind) for kind in self.counts]
            lines = '\n'.join(f'  - {problem}' for problem in problems)
            raise AnnotationError(
                f'{ann_file}: the annotation file cannot be used:\n{lines}', problems
            )


def load_annotation_file(ann_file: str | os.PathLike) -> dict[str, Any]:
    """Read a COCO or LVIS json.

    Args:
        ann_file: path of the file.

    Returns:
        The dict, which has the lists ``images`` and ``categories`` (``annotations`` may be
        missing: an unlabelled file).

    Raises:
        AnnotationError: the file is missing, empty, not json (with the position), or not such a
            dict.
    """
    path = os.fspath(ann_file)
    if not os.path.isfile(path):
        raise AnnotationError(
            f'{path}: the annotation file does not exist. Correct `ann_file` (it is joined to '
            '`data_root` when it is relative) or make the file.'
        )
    if os.path.getsize(path) == 0:
        raise AnnotationError(f'{path}: the annotation file is empty (0 bytes). Fetch it again.')
    try:
        with open(path, encoding='utf-8') as file:
            data = json.load(file)
    except json.JSONDecodeError as error:
        raise AnnotationError(
            f'{path}: not valid json at line {error.lineno}, column {error.colno} (character '
            f'{error.pos} of {len(error.doc)}): {error.msg}. The file is truncated or damaged; '
            'fetch or write it again.'
        ) from error
    except UnicodeDecodeError as error:
        raise AnnotationError(
            f'{path}: not a text file in UTF-8 (byte {error.start}). Give a COCO or LVIS json.'
        ) from error
    if not isinstance(data, dict):
        raise AnnotationError(
            f'{path}: holds a {type(data).__name__}, not a dict with `images`, `annotations` and '
            '`categories`. Give a COCO or LVIS json (a list is usually a results file).'
        )
    for key in ('images', 'categories'):
        if not isinstance(data.get(key), list):
            found = f'a {type(data[key]).__name__}' if key in data else 'missing'
            raise AnnotationError(
                f'{path}: key `{key}` is {found}, a list is needed. Give a COCO or LVIS json; its '
                f'keys here are {sorted(data)[:MAX_EXAMPLES]}.'
            )
    return data


def image_file_name(image: dict[str, Any]) -> str | None:
    """File name of a COCO or LVIS image entry, relative to the image prefix.

    Args:
        image: entry of ``images``.

    Returns:
        ``file_name``, else the path of ``coco_url`` (LVIS v1:
        ``train2017/000000391895.jpg``), else None.
    """
    if image.get('file_name'):
        return image['file_name']
    if image.get('coco_url'):
        return urlsplit(image['coco_url']).path.lstrip('/')
    return None


def check_annotations(
    ann_file: str | os.PathLike,
    *,
    num_classes: int | None = None,
    classes: Sequence[str] | None = None,
    image_root: str | os.PathLike | None = None,
    require_annotations: bool = True,
    data: dict[str, Any] | None = None,
) -> AnnotationSummary:
    """Check an annotation file and summarise it.

    All problems of the file are collected (the first 10 of each kind, with counts) and raised
    together. What is doubtful but usable stands in the summary's ``warnings``, for the caller to
    report: classes without a labelled image, a share of at most 1e-4 of unusable boxes or polygons
    (which the host skips), and ``image_count`` values that the annotations contradict.

    Args:
        ann_file: COCO or LVIS json.
        num_classes: the model's number of classes, compared with the file's.
        classes: ``metainfo['classes']`` of the data set. The statistics are then those of these
            classes only. They must stand in the order of the file, because the host numbers
            labels in the file's order whatever the order of ``classes``.
        image_root: folder that the file names are relative to; every image must exist there.
        require_annotations: False for the json of an unlabelled set.
        data: content of the file where :func:`load_annotation_file` has read it already.

    Returns:
        The summary.

    Raises:
        AnnotationError: see :func:`load_annotation_file`; no annotation at all; an unknown
            category or image id; a duplicate image, annotation or category id or category name;
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

    problems = _Problems()
    notes: list[str] = []
    if require_annotations and not annotations:
        problems.add(
            'no annotation',
            '`annotations` is an empty list',
            'Give the labelled file here and this one to UnlabeledImageDataset.',
        )
    category_ids, names, kept = _check_categories(data['categories'], classes, problems)
    image_ids = _check_images(data['images'], image_root, problems)
    image_column, class_column = _check_instances(annotations, image_ids, category_ids, problems)
    for kind in (_BAD_BOX, _BAD_POLYGON):
        if 0 < problems.counts.get(kind, 0) <= TOLERATED_SHARE * len(annotations):
            notes.append(f'{problems.pop(kind)} The host skips them, training goes on.')
    problems.raise_if_any(path)

    num_all = len(names)
    instance_counts = np.bincount(class_column, minlength=num_all)
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
        shown = ', '.join(empty[:MAX_EXAMPLES])
        more = f' and {len(empty) - MAX_EXAMPLES} more' if len(empty) > MAX_EXAMPLES else ''
        notes.append(
            f'{len(empty)} of {len(class_names)} classes have no labelled image: {shown}{more}. '
            'They cannot be learned; label some images or leave them out of `classes`.'
        )
    if require_annotations and declared_images is not None:
        notes += _contradicted_counts(path, class_names, declared_images, image_counts[kept])
    summary = AnnotationSummary(
        ann_file=path,
        classes=class_names,
        category_ids=tuple(list(category_ids)[i] for i in kept),
        image_counts=image_counts[kept],
        instance_counts=instance_counts[kept],
        num_images=len(data['images']),
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
    only_a, only_b = [n for n in a if n not in set(b)], [n for n in b if n not in set(a)]
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
        f'{"; ".join(moved[:MAX_EXAMPLES])}). Sort `categories` alike in both files, because the '
        'host numbers labels in this order.'
    )


_BAD_BOX = 'box of zero size'
_BAD_POLYGON = 'polygon of fewer than three points'


def _check_categories(
    categories: list[dict], classes: Sequence[str] | None, problems: _Problems
) -> tuple[dict[int, int], list[str], list[int]]:
    """Category id -> index, names, and the indices of ``classes`` in the file's order."""
    index: dict[int, int] = {}
    names: list[str] = []
    for position, category in enumerate(categories):
        if not isinstance(category, dict) or 'id' not in category or 'name' not in category:
            problems.add(
                'category without `id` or `name`',
                f'categories[{position}] = {category!r}',
                'Give every category both keys.',
            )
            continue
        if category['id'] in index:
            problems.add(
                'duplicate category id',
                f'categories[{position}]: id={category["id"]!r} ({category["name"]!r})',
                'Give every category its own id.',
            )
            continue
        if category['name'] in names:
            problems.add(
                'duplicate category name',
                f'categories[{position}]: name={category["name"]!r}',
                'Rename one of them, or merge the two categories.',
            )
        letter = category.get('frequency', 'r')
        if letter not in ('r', 'c', 'f'):
            problems.add(
                'unknown `frequency`',
                f'categories[{position}]: frequency={letter!r}',
                "LVIS knows 'r', 'c' and 'f'.",
            )
        index[category['id']] = len(names)
        names.append(category['name'])
    if not categories:
        problems.add('no category', '`categories` is an empty list', 'List the classes there.')
    kept = list(range(len(names)))
    if classes is not None:
        if isinstance(classes, str):
            raise AnnotationError(
                f'`classes` is the string {classes!r}. Give a tuple of names; a single class is '
                f'written ({classes!r},).'
            )
        for name in classes:
            if name not in names:
                problems.add(
                    'class of `metainfo.classes` that the file does not define',
                    repr(name),
                    f'The file defines {names[:MAX_EXAMPLES]}'
                    f'{" ..." if len(names) > MAX_EXAMPLES else ""}.',
                )
        wanted = set(classes)
        kept = [i for i in kept if names[i] in wanted]
        for label, (name, i) in enumerate(zip((n for n in classes if n in names), kept)):  # noqa: B905
            if name != names[i]:
                problems.add(
                    "`metainfo.classes` not in the order of the file's `categories`",
                    f'label {label} is {name!r}, in the file {names[i]!r}',
                    'The host numbers labels in the order of the file: sort `classes` like it.',
                )
    return index, names, kept


def _check_images(
    images: list[dict], image_root: str | os.PathLike | None, problems: _Problems
) -> dict[int, int]:
    """Image id -> position in ``images``."""
    index: dict[int, int] = {}
    if not images:
        problems.add('no image', '`images` is an empty list', 'List the images there.')
    for position, image in enumerate(images):
        if not isinstance(image, dict) or 'id' not in image:
            problems.add(
                'image without `id`',
                f'images[{position}] = {str(image)[:80]}',
                'Give every image an id.',
            )
            continue
        if image['id'] in index:
            problems.add(
                'duplicate image id',
                f'images[{position}]: id={image["id"]!r}',
                'Give every image its own id.',
            )
        index[image['id']] = position
        if image_root is not None:
            name = image_file_name(image)
            if name is None or not os.path.isfile(os.path.join(image_root, name)):
                problems.add(
                    'missing image file',
                    f'images[{position}]: file_name={name!r} under {os.fspath(image_root)}',
                    'Correct `data_prefix`, or fetch the images.',
                )
    return index


def _check_instances(
    annotations: list[dict],
    image_ids: dict[int, int],
    category_ids: dict[int, int],
    problems: _Problems,
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of image and category of every annotation, (A,) int64 each."""
    seen: set[int] = set()
    image_column: list[int] = []
    class_column: list[int] = []
    for position, annotation in enumerate(annotations):
        try:
            ann_id = annotation['id']
            image = image_ids.get(annotation['image_id'])
            category = category_ids.get(annotation['category_id'])
            x, y, width, height = annotation['bbox']
            segmentation = annotation.get('segmentation')
            finite = math.isfinite(x + y + width + height)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problems.add(
                'annotation without usable `id`, `image_id`, `category_id` or `bbox`',
                f'annotations[{position}]: {type(error).__name__}: {error}',
                'A bbox is [x, y, width, height] in pixels.',
            )
            continue
        if ann_id in seen:
            problems.add(
                'duplicate annotation id',
                f'annotations[{position}]: id={ann_id!r}',
                'Give every annotation its own id.',
            )
        seen.add(ann_id)
        if category is None:
            problems.add(
                'category id that `categories` does not define',
                f'annotation id={ann_id!r}: category_id={annotation["category_id"]!r}',
                'Add the category, or remove the annotation.',
            )
        if image is None:
            problems.add(
                'image id that `images` does not define',
                f'annotation id={ann_id!r}: image_id={annotation["image_id"]!r}',
                'Add the image, or remove the annotation.',
            )
        if not finite or width < 0 or height < 0:
            problems.add(
                'box of negative or infinite size',
                f'annotation id={ann_id!r}: bbox={annotation["bbox"]}',
                'A bbox is [x, y, width, height] in pixels; correct it.',
            )
        elif width == 0 or height == 0:
            problems.add(
                _BAD_BOX,
                f'annotation id={ann_id!r}: bbox={annotation["bbox"]}',
                'Remove the annotation, or correct its box.',
            )
        if isinstance(segmentation, list):
            for polygon in segmentation:
                if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
                    problems.add(
                        _BAD_POLYGON,
                        f'annotation id={ann_id!r}: segmentation={str(polygon)[:60]}',
                        'A polygon is [x1, y1, x2, y2, x3, y3, ...]; remove or correct it.',
                    )
                    break
        if image is not None and category is not None:
            image_column.append(image)
            class_column.append(category)
    return np.array(image_column, dtype=np.int64), np.array(class_column, dtype=np.int64)


def _declared(categories: list[dict], key: str) -> list | None:
    """Values of ``key``, or None unless every category has it."""
    values = [category.get(key) for category in categories]
    return None if not values or None in values else values


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
