"""Federated (LVIS) annotation: which classes an image speaks of.

Shape letters: C classes, P pairs of an image and a class that it holds.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def federated_classes(
    images: Iterable[dict],
    category_ids: dict[int, int],
    image_ids: dict[int, int],
    pairs: np.ndarray,
    num_all: int,
    kept: list[int],
) -> tuple[dict[int, set[int]], dict[int, set[int]]]:
    """Known and not exhaustively labelled classes of every image (arXiv 1908.03195).

    Args:
        images: entries of ``images``.
        category_ids: category id -> index in the file's ``categories``.
        image_ids: image id -> position in ``images``.
        pairs: (P,) int64, distinct ``position * num_all + index`` of the classes that an image
            holds.
        num_all: categories of the file.
        kept: indices of the C classes in use, in label order.

    Returns:
        Image id -> labels known to be present or absent, of every image; and image id -> labels
        of ``not_exhaustive_category_ids``, of the images that have any.
    """
    label = {old: new for new, old in enumerate(kept)}
    id_of_position = {position: image_id for image_id, position in image_ids.items()}

    def labels(ids: Iterable[int]) -> set[int]:
        indices = (category_ids.get(i, -1) for i in ids)
        return {label[i] for i in indices if i in label}

    known = {image['id']: labels(image.get('neg_category_ids', ())) for image in images}
    for pair in pairs.tolist():
        position, category = divmod(pair, num_all)
        if category in label:
            known[id_of_position[position]].add(label[category])
    not_exhaustive = {
        image['id']: labels(image['not_exhaustive_category_ids'])
        for image in images
        if image.get('not_exhaustive_category_ids')
    }
    return known, not_exhaustive
