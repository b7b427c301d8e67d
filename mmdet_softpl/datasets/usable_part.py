"""The part of a faulty annotation file that can still be counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .annotation_entries import COUNT_KEYS, FEDERATED_KEYS, are_finite, is_count


def usable_part(
    data: dict[str, Any], classes: Sequence[str] | None = None
) -> tuple[dict[str, Any], tuple[str, ...] | None]:
    """Leave out what :func:`.check_annotations` would refuse.

    For reports about files that cannot be trained on. Of duplicate ids and names the first stays;
    ids that are words stay too, since what they name can be counted.

    Args:
        data: with lists ``images`` and ``categories``; ``annotations`` may be anything.
        classes: ``metainfo['classes']``, or None.

    Returns:
        A new dict, and ``classes`` cut down to those that the file defines, in its order (None
        stays None; a string, which is no list of names, becomes None).
    """
    images = _unique([i for i in data['images'] if isinstance(i, dict)], 'id')
    categories = [c for c in data['categories'] if isinstance(c, dict) and 'name' in c]
    categories = _unique(_unique(categories, 'id'), 'name')
    categories = [
        {key: value for key, value in c.items() if _is_usable(key, value)} for c in categories
    ]
    images = [{key: value for key, value in i.items() if _is_usable(key, value)} for i in images]
    image_ids = {image['id'] for image in images}
    category_ids = {category['id'] for category in categories}
    annotations = data.get('annotations')
    found = [a for a in annotations if isinstance(a, dict)] if isinstance(annotations, list) else []
    kept = [
        a
        for a in _unique(found, 'id')
        if _is_id(a.get('image_id'))
        and a['image_id'] in image_ids
        and _is_id(a.get('category_id'))
        and a['category_id'] in category_ids
        and _is_box(a.get('bbox'))
        and _is_segmentation(a.get('segmentation'))
    ]
    wanted = None if classes is None or isinstance(classes, str) else set(classes)
    names = tuple(c['name'] for c in categories if wanted is not None and c['name'] in wanted)
    part = {**data, 'images': images, 'categories': categories, 'annotations': kept}
    return part, None if wanted is None else names


def _unique(items: list[dict], key: str) -> list[dict]:
    first: dict[Any, dict] = {}
    for item in items:
        if _is_id(item.get(key)):
            first.setdefault(item[key], item)
    return list(first.values())


def _is_id(value: Any) -> bool:
    # pandas writes 3.0 for 3, which the host takes for the same; NaN equals nothing.
    return isinstance(value, (int, float, str)) and value == value


def _is_usable(key: str, value: Any) -> bool:
    """Whether LVIS's values of images and categories can be worked with; any other is."""
    if key == 'frequency':
        return value in ('r', 'c', 'f')
    if key in COUNT_KEYS:
        return is_count(value)
    if key in FEDERATED_KEYS:
        return isinstance(value, list) and all(map(_is_id, value))
    return True


def _is_box(box: Any) -> bool:
    if not isinstance(box, (list, tuple)) or len(box) != 4:
        return False
    if not all(isinstance(v, (int, float)) and abs(v) < float('inf') for v in box):
        return False
    return box[2] > 0 and box[3] > 0


def _is_segmentation(segmentation: Any) -> bool:
    if not isinstance(segmentation, list):
        return segmentation is None or isinstance(segmentation, dict)
    return all(
        isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 and are_finite(p)
        for p in segmentation
    )
