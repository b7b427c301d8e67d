"""Labelled and unlabelled parts of a COCO or LVIS annotation file."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_softpl.checks import check_range
from mmdet_softpl.messages import some_of

from ..atomic_json import json_text, write_texts
from .annotation_checks import AnnotationSummary, check_annotations
from .annotation_file import AnnotationError, load_annotation_file
from .class_statistics import class_statistics, frequency_letter
from .shared_files import shared_files


@dataclass(frozen=True)
class ClassShare:
    """What the labelled part keeps of one class."""

    name: str
    group_before: str
    group_after: str
    images_before: int
    images_after: int
    instances_before: int
    instances_after: int


@dataclass(frozen=True)
class SplitSummary:
    """A split that was written.

    Attributes:
        labeled_file: json of the labelled part.
        rest_file: json of the rest, unlabelled or held out; None when every image is labelled.
        num_labeled: labelled images.
        num_rest: images of the rest.
        num_for_coverage: labelled images that were taken so that no class is lost.
        classes: one entry a class, in label order.
        warnings: sentences about what is doubtful in the file that was split.
    """

    labeled_file: Path
    rest_file: Path | None
    num_labeled: int
    num_rest: int
    num_for_coverage: int
    classes: tuple[ClassShare, ...]
    warnings: tuple[str, ...]


def write_split(
    ann_file: str | os.PathLike,
    out_dir: str | os.PathLike,
    *,
    percent: float | None = None,
    count: int | None = None,
    seed: int = 1,
    min_images_per_class: int = 1,
    held_out: bool = False,
    overwrite: bool = False,
) -> SplitSummary:
    """Draw a labelled part of a file and write it and the rest as two json files.

    The names follow the host's semi-supervised COCO files: ``STEM.SEED@PERCENT.json`` and
    ``STEM.SEED@PERCENT-unlabeled.json`` (``STEM.SEED@COUNTimages.json`` with ``count``). The
    unlabelled file has no annotations and no ``neg_category_ids``. In LVIS files ``frequency``,
    ``image_count`` and ``instance_count`` are recomputed on the labelled part; a held-out part has
    counts of its own, but the labelled part's ``frequency``, since its AP is told by how often the
    detector has seen a class. Both files appear at once.

    Args:
        ann_file: COCO or LVIS json with annotations.
        out_dir: folder of the two files, made when missing.
        percent: share of the images in (0, 100]; this or ``count``.
        count: number of labelled images.
        seed: names the split and seeds the draw: same file and seed, same split.
        min_images_per_class: labelled images that every class keeps at least, or all it has. 0
            draws images at random. An image with a crowd of a class alone is none of its images.
        held_out: the rest keeps its labels, for calibration or a pilot, and its file ends in
            ``-heldout.json``.
        overwrite: replace existing files.

    Returns:
        What was written and what every class keeps.

    Raises:
        AnnotationError: the file cannot be used (:func:`check_annotations`), or has too few
            images for the classes.
        ValueError: an argument is out of its range.
        FileExistsError: an output exists and ``overwrite`` is False.
        NotADirectoryError: ``out_dir`` is a file.
    """
    if (percent is None) == (count is None):
        raise ValueError(
            f'give either percent or count, not both or none: percent={percent}, count={count}'
        )
    if percent is not None:
        check_range('split', 'percent', percent, 0, 100, include_lower=False)
    check_range('split', 'min_images_per_class', min_images_per_class, 0, None)
    check_range('split', 'seed', seed, 0, None)
    source = Path(ann_file)
    if Path(out_dir).is_file():
        raise NotADirectoryError(f'--out {out_dir}: a file, but a folder is needed for two files.')
    tag = f'{percent:g}' if percent is not None else f'{count}images'
    labeled_file = Path(out_dir) / f'{source.stem}.{seed}@{tag}.json'
    kind = 'heldout' if held_out else 'unlabeled'
    rest_file = Path(out_dir) / f'{source.stem}.{seed}@{tag}-{kind}.json'
    if not overwrite:
        for path in (labeled_file, rest_file):
            if path.exists():
                raise FileExistsError(
                    f'{path}: the split exists already. Use it, choose another seed or folder, or '
                    'pass --overwrite.'
                )

    data = load_annotation_file(source)
    before = check_annotations(source, data=data)
    num_images = len(data['images'])
    _, alike = shared_files(data['images'], data['annotations'])
    if alike:
        raise AnnotationError(
            f'{source}: {len(alike)} image files have more than one entry: {some_of(list(alike))}. '
            'A draw could put the same image on both sides; keep one entry of each.'
        )
    if count is not None:
        check_range(f'split of {source}', 'count', count, 1, num_images)
    budget = count if count is not None else max(1, round(num_images * percent / 100))  # type: ignore[operator]
    chosen, num_for_coverage = _draw_images(data, before, budget, seed, min_images_per_class)

    labeled = _labelled_part(data, chosen)
    others = {image['id'] for image in data['images']} - chosen
    rest = _labelled_part(data, others)
    if held_out:
        rest['categories'] = _with_frequency_of(labeled['categories'], rest['categories'])
    else:
        rest = _without_labels(rest, labeled['categories'])
    Path(out_dir).mkdir(parents=True, exist_ok=True)
    has_rest = bool(others)
    contents = {labeled_file: labeled} | ({rest_file: rest} if has_rest else {})
    write_texts({path: json_text(content) for path, content in contents.items()})
    if not has_rest:
        rest_file.unlink(missing_ok=True)
    return SplitSummary(
        labeled_file=labeled_file,
        rest_file=rest_file if has_rest else None,
        num_labeled=len(chosen),
        num_rest=len(others),
        num_for_coverage=num_for_coverage,
        classes=_class_shares(before, labeled),
        warnings=before.warnings,
    )


def _in_order(identifier: Any) -> tuple[bool, Any]:
    """A key to sort ids by, numbers before words."""
    return isinstance(identifier, str), identifier


def _draw_images(
    data: dict[str, Any], summary: AnnotationSummary, budget: int, seed: int, min_images: int
) -> tuple[set[int], int]:
    """Ids of the labelled images, and how many of them were taken for coverage."""
    rng = np.random.default_rng(seed)
    # Sorted first, so that the order of the images in the file does not change the draw.
    ids = sorted((image['id'] for image in data['images']), key=_in_order)
    order = [ids[i] for i in rng.permutation(len(ids))]
    rank = {image_id: position for position, image_id in enumerate(order)}
    images_of: dict[int, set[int]] = {category: set() for category in summary.category_ids}
    classes_of: dict[int, set[int]] = {}
    for annotation in _objects(data['annotations']):
        images_of[annotation['category_id']].add(annotation['image_id'])
        classes_of.setdefault(annotation['image_id'], set()).add(annotation['category_id'])

    chosen: set[int] = set()
    covered: Counter[int] = Counter()
    # Rare classes first: what they need often covers commoner classes on the way.
    for category in sorted(images_of, key=lambda c: (len(images_of[c]), _in_order(c))):
        needed = min(min_images, len(images_of[category])) - covered[category]
        if needed <= 0:
            continue
        candidates = sorted(images_of[category] - chosen, key=rank.__getitem__)
        for image_id in candidates[:needed]:
            chosen.add(image_id)
            covered.update(classes_of[image_id])
    num_for_coverage = len(chosen)
    if num_for_coverage > budget:
        raise AnnotationError(
            f'{summary.ann_file}: {budget} labelled images are too few: keeping '
            f'min_images_per_class={min_images} of {len(images_of)} classes takes '
            f'{num_for_coverage}. Ask for more labelled images, or lower min_images_per_class (0 '
            'lets classes go).'
        )
    rest = (image_id for image_id in order if image_id not in chosen)
    chosen.update(image_id for image_id, _ in zip(rest, range(budget - len(chosen))))  # noqa: B905
    return chosen, num_for_coverage


def _labelled_part(data: dict[str, Any], chosen: set[int]) -> dict[str, Any]:
    """The json of the images with the given ids, classes counted anew."""
    annotations = [a for a in data['annotations'] if a['image_id'] in chosen]
    return {
        **data,
        'images': [image for image in data['images'] if image['id'] in chosen],
        'annotations': annotations,
        'categories': recounted_categories(data['categories'], annotations),
    }


def _without_labels(part: dict[str, Any], categories: list[dict[str, Any]]) -> dict[str, Any]:
    """The part without annotations; ``categories`` are those of the labelled part."""
    # These two lists would tell the student what is (not) in an unlabelled image.
    hints = ('neg_category_ids', 'not_exhaustive_category_ids')
    images = [{k: v for k, v in image.items() if k not in hints} for image in part['images']]
    return {**part, 'images': images, 'annotations': [], 'categories': categories}


def _with_frequency_of(
    labelled: list[dict[str, Any]], categories: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Categories with the ``frequency``, where there is one, of those of the labelled part."""
    return [
        {**new, **({'frequency': old['frequency']} if 'frequency' in old else {})}
        for old, new in zip(labelled, categories, strict=True)
    ]


def recounted_categories(
    categories: list[dict[str, Any]], annotations: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Categories with ``frequency``, ``image_count`` and ``instance_count`` counted anew.

    Args:
        categories: of a COCO or LVIS file; which of the three keys one has, it keeps.
        annotations: all of the new file; crowds are not counted.

    Returns:
        New dicts in the same order.
    """
    image_counts, instance_counts = _class_counts(annotations)
    recounted = []
    for category in categories:
        new = dict(category)
        if 'frequency' in new:
            new['frequency'] = frequency_letter(image_counts[new['id']])
        if 'image_count' in new:
            new['image_count'] = image_counts[new['id']]
        if 'instance_count' in new:
            new['instance_count'] = instance_counts[new['id']]
        recounted.append(new)
    return recounted


def _objects(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without crowds, which nobody trains on."""
    return [a for a in annotations if not a.get('iscrowd')]


def _class_counts(annotations: list[dict[str, Any]]) -> tuple[Counter[int], Counter[int]]:
    """Images and instances of each category id."""
    objects = _objects(annotations)
    images = Counter(c for c, _ in {(a['category_id'], a['image_id']) for a in objects})
    return images, Counter(a['category_id'] for a in objects)


def _class_shares(before: AnnotationSummary, labeled: dict[str, Any]) -> tuple[ClassShare, ...]:
    images, instances = _class_counts(labeled['annotations'])
    groups_before = class_statistics(before).groups
    return tuple(
        ClassShare(
            name=name,
            group_before=groups_before[i],
            group_after=frequency_letter(images[category]),
            images_before=int(before.image_counts[i]),
            images_after=images[category],
            instances_before=int(before.instance_counts[i]),
            instances_after=instances[category],
        )
        for i, (name, category) in enumerate(zip(before.classes, before.category_ids, strict=True))
    )
