"""Which images of a further labelled set to take, so that rare classes are filled first.

Shape letters: L labels, C classes.
"""

from __future__ import annotations

import numpy as np


def fill_rare_first(
    image_ids: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    labeled_counts: np.ndarray,
    target_count: int,
) -> set[int]:
    """Choose whole images until every class has ``target_count`` instances, where there are enough.

    Classes take turns from the fewest labelled instances to the most. Each takes the images with
    its surest labels; what else these images show counts for the other classes, so a class that
    is frequent beside the rare ones may not need an image of its own.

    Args:
        image_ids: (L,) image of each label.
        labels: (L,) in [0, C).
        weights: (L,) how sure each label is; only their order matters.
        labeled_counts: (C,) instances that the labelled set has already.
        target_count: Instances of each class, labelled ones included.

    Returns:
        The chosen image ids.
    """
    counts = np.asarray(labeled_counts, dtype=np.int64).copy()
    members: dict[int, list[int]] = {}
    for position, image in enumerate(image_ids.tolist()):
        members.setdefault(image, []).append(position)
    chosen: set[int] = set()
    for label in np.argsort(counts, kind='stable').tolist():
        own = np.flatnonzero(labels == label)
        # Ties: the order of the file.
        for position in own[np.argsort(-weights[own], kind='stable')].tolist():
            if counts[label] >= target_count:
                break
            image = int(image_ids[position])
            if image in chosen:
                continue
            chosen.add(image)
            counts += np.bincount(labels[members[image]], minlength=len(counts))
    return chosen
