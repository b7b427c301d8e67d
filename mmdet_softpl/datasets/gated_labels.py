"""What a training takes of a json that ``gate`` wrote: kept labels, within the budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmdet_softpl.messages import some_of

from .annotation_checks import check_annotations, check_same_categories
from .host_requirements import is_dropped
from .image_budget import fill_rare_first


def is_kept(annotation: dict[str, Any]) -> bool:
    """Whether the gate kept it; what was added by hand since has no verdict, and is kept."""
    return bool(annotation.get('keep', True))


def has_area(annotation: dict[str, Any]) -> bool:
    """Whether mmdet can read it: without an ``area`` it stops."""
    return isinstance(annotation.get('area'), (int, float))


def gated_images(
    ann_file: str,
    content: dict[str, Any],
    classes: Sequence[str] | None,
    labeled_ann_file: str | None = None,
    target_count: int | None = None,
) -> tuple[set[Any], str]:
    """The images that ``GeneratedImageDataset`` takes.

    Args:
        ann_file: Json that the gate wrote, for messages.
        content: Of it.
        classes: That are trained, ``metainfo['classes']``; None: all of the file.
        labeled_ann_file, target_count: As those of the data set, both or neither.

    Returns:
        Their ids, and a sentence about kept labels that mmdet cannot use, empty without any.

    Raises:
        AnnotationError: A file is not usable, or their categories differ.
        ValueError: The file did not come from the gate; no label was kept, or none that mmdet
            takes, or no image is within the budget.
    """
    if 'gate' not in content:
        raise ValueError(
            f'{ann_file}: key `gate` is missing, so its labels were never checked. Run '
            '`python -m mmdet_softpl gate` on it and give its output as `ann_file`.'
        )
    summary = check_annotations(ann_file, classes=classes, data=content)
    index = {category: i for i, category in enumerate(summary.category_ids)}
    labels = [a for a in content['annotations'] if not a.get('iscrowd')]
    kept = [a for a in labels if is_kept(a) and a['category_id'] in index]
    if not kept:
        raise ValueError(
            f'{ann_file}: the gate kept none of {len(labels)} labels. Lower its --precision, or '
            'train the teacher longer.'
        )
    usable, lost = _usable(ann_file, content, kept)
    if target_count is None or labeled_ann_file is None:
        return {a['image_id'] for a in usable}, lost
    labeled = check_annotations(labeled_ann_file, classes=classes)
    check_same_categories(labeled, summary)
    chosen = fill_rare_first(
        np.array([a['image_id'] for a in usable]),
        np.array([index[a['category_id']] for a in usable]),
        np.array([a.get('weight', 1.0) for a in usable]),
        labeled.instance_counts,
        target_count,
    )
    if not chosen:
        raise ValueError(
            f'{ann_file}: no image is taken, since every class that it has labels of has '
            f'target_count={target_count} instances in {labeled_ann_file} already; raise '
            'target_count, or leave the set out.'
        )
    return chosen, lost


def taken_part(content: dict[str, Any], image_ids: set[Any]) -> dict[str, Any]:
    """The file with these images alone, and of their annotations those that the gate kept."""
    return content | {
        'images': [image for image in content['images'] if image['id'] in image_ids],
        'annotations': [
            a for a in content['annotations'] if a['image_id'] in image_ids and is_kept(a)
        ],
    }


def _usable(
    ann_file: str, content: dict[str, Any], kept: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], str]:
    """Those that mmdet takes: an image of others alone would be all background."""
    sizes = {i['id']: (i.get('width') or 0, i.get('height') or 0) for i in content['images']}
    usable = [
        a
        for a in kept
        if has_area(a) and not a.get('ignore') and not is_dropped(a, sizes[a['image_id']])
    ]
    if len(usable) == len(kept):
        return usable, ''
    usable_ids = {a['id'] for a in usable}
    lost = [str(a['id']) for a in kept if a['id'] not in usable_ids]
    sentence = (
        f'{ann_file}: mmdet cannot use {len(lost)} of {len(kept)} kept labels: id {some_of(lost)}: '
        '`area` is missing or not above 0, a side is below 1 pixel, the box is outside its image, '
        'or `ignore` is set'
    )
    if not usable:
        raise ValueError(f'{sentence}. Correct the file.')
    return usable, f'{sentence}. They are left out.'
