"""Annotation files with deliberately wrong labels: what a gate on labels is fitted and tested on.

Boxes are ``[x, y, width, height]`` in pixels, as in COCO files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils

from mmdet_softpl.checks import check_range

#: ``look_alike``: a class of the same ``supercategory``; ``other_class``: one of another.
#: ``shifted``: box and mask moved off the object. ``empty``: a label where nothing is.
#: ``missing``: an object without its label.
WRONG_KINDS = ('look_alike', 'other_class', 'shifted', 'empty', 'missing')
#: IoU of a shifted box with the true one; from 0.5 on COCO calls a box right.
SHIFTED_IOU = (0.1, 0.45)
#: IoU of a label of an empty place with any object of the image, at most.
EMPTY_IOU = 0.05

_TRIES = 50


def spoil_labels(
    data: dict[str, Any],
    share: float,
    seed: int | Sequence[int],
    kinds: Sequence[str] = WRONG_KINDS,
) -> dict[str, Any]:
    """A copy of a COCO dict in which some labels are wrong.

    Every annotation becomes, with probability ``share``, a wrong one of a kind drawn alike from
    ``kinds``. For ``empty`` the annotation stays right and a copy of it is put on an empty
    place of its image. Where a kind is impossible (no other class in the ``supercategory``, no
    empty place) the annotation stays right. Crowd regions are left alone.

    Args:
        data: With ``images`` (``height`` and ``width``), ``annotations``, ``categories``.
        share: In [0, 1].
        seed: Of ``numpy.random.default_rng``.
        kinds: Of ``WRONG_KINDS``.

    Returns:
        The new dict: every annotation has ``made``, a kind or ``'right'``; the key
        ``missing`` lists the annotations that were taken out.

    Raises:
        ValueError: ``share`` outside [0, 1], an unknown kind.
    """
    check_range('spoil_labels', 'share', share, 0, 1)
    unknown = sorted(set(kinds) - set(WRONG_KINDS))
    if unknown:
        raise ValueError(f'spoil_labels: unknown kinds {unknown}; known are {WRONG_KINDS}.')
    rng = np.random.default_rng(seed)
    sizes = {image['id']: (image['height'], image['width']) for image in data['images']}
    family = {c['id']: c.get('supercategory') for c in data['categories']}
    boxes = defaultdict(list)
    for annotation in data['annotations']:
        boxes[annotation['image_id']].append(annotation['bbox'])

    labels: list[dict[str, Any]] = []
    missing: list[dict[str, Any]] = []
    for annotation in data['annotations']:
        spoil = not annotation.get('iscrowd') and rng.random() < share
        kind = str(rng.choice(list(kinds))) if spoil else 'right'
        image_id = annotation['image_id']
        if kind == 'missing':
            missing.append(annotation)
            continue
        changed: dict[str, Any] | None = None
        if kind in ('look_alike', 'other_class'):
            own = annotation['category_id']
            choices = [
                c
                for c in family
                if c != own and (family[c] == family[own]) == (kind == 'look_alike')
            ]
            changed = dict(annotation, category_id=int(rng.choice(choices))) if choices else None
        elif kind in ('shifted', 'empty'):
            size, box = sizes[image_id], annotation['bbox']
            target = _move(box, size, boxes[image_id], kind, rng)
            if target is not None:
                changed = _moved(annotation, target, size)
        if kind == 'empty':
            labels.append(dict(annotation, made='right'))
            if changed is not None:
                labels.append(dict(changed, made=kind))
        elif changed is None:
            labels.append(dict(annotation, made='right'))
        else:
            labels.append(dict(changed, made=kind))
    for new_id, annotation in enumerate(labels, 1):
        annotation['id'] = new_id
    return {**data, 'annotations': labels, 'missing': missing}


def right_and_wrong_labels(
    data: dict[str, Any], wrong_per_right: int, seed: int, kinds: Sequence[str]
) -> dict[str, Any]:
    """A copy of a COCO dict with every label as it is, and spoilt ones of it beside it.

    Args:
        data, kinds: As in :func:`spoil_labels`, without ``missing``.
        wrong_per_right: Spoilt ones of each label, fewer where its kind is impossible.
        seed: Of them.

    Returns:
        The new dict: every annotation has ``made``, a kind or ``'right'``.
    """
    spoilt = [spoil_labels(data, 1.0, (seed, copy), kinds) for copy in range(wrong_per_right)]
    labels = [dict(annotation, made='right') for annotation in data['annotations']]
    labels += [a for part in spoilt for a in part['annotations'] if a['made'] != 'right']
    return {**data, 'annotations': [dict(a, id=i) for i, a in enumerate(labels, 1)]}


def _move(
    box: Sequence[float],
    size: tuple[int, int],
    others: Sequence[Sequence[float]],
    kind: str,
    rng: np.random.Generator,
) -> tuple[float, float] | None:
    """Whole pixels (dx, dy) by which to move a box within its image, None if none was found."""
    (height, width), (x, y, w, h) = size, box
    for _ in range(_TRIES):
        if kind == 'shifted':
            dx, dy = rng.uniform(-0.8, 0.8, 2) * (w, h)
        else:
            dx = rng.uniform(0, max(width - w, 0)) - x
            dy = rng.uniform(0, max(height - h, 0)) - y
        dx, dy = round(dx), round(dy)
        moved = [x + dx, y + dy, w, h]
        if dx + x < 0 or dy + y < 0 or x + dx + w > width or y + dy + h > height:
            continue
        ious = mask_utils.iou([moved], [list(map(float, b)) for b in others], [0] * len(others))[0]
        if kind == 'empty' and ious.max() <= EMPTY_IOU:
            return dx, dy
        own = float(mask_utils.iou([moved], [list(map(float, box))], [0])[0, 0])
        # Not onto another object: that would be another kind of wrong.
        elsewhere = sum(iou > SHIFTED_IOU[1] for iou in ious)
        if kind == 'shifted' and SHIFTED_IOU[0] <= own <= SHIFTED_IOU[1] and not elsewhere:
            return dx, dy
    return None


def _moved(
    annotation: dict[str, Any], offset: tuple[float, float], size: tuple[int, int]
) -> dict[str, Any]:
    (dx, dy), (x, y, w, h) = offset, annotation['bbox']
    moved = dict(annotation, bbox=[x + dx, y + dy, w, h])
    segmentation = annotation.get('segmentation')
    if isinstance(segmentation, list):
        moved['segmentation'] = [
            (np.reshape(polygon, (-1, 2)) + np.array([dx, dy])).ravel().tolist()
            for polygon in segmentation
        ]
    elif segmentation is not None:
        moved['segmentation'] = _moved_runs(segmentation, offset, size)
    return moved


def _moved_runs(runs: dict[str, Any], offset: tuple[float, float], size: tuple[int, int]) -> dict:
    height, width = size
    if isinstance(runs['counts'], list):
        runs = mask_utils.frPyObjects(runs, height, width)
    rows, columns = np.nonzero(mask_utils.decode(runs))
    rows, columns = rows + int(offset[1]), columns + int(offset[0])
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    mask = np.zeros((height, width), dtype=np.uint8, order='F')
    mask[rows[inside], columns[inside]] = 1
    encoded = mask_utils.encode(mask)
    return {'size': encoded['size'], 'counts': encoded['counts'].decode()}
