"""Which images people should review: expected gain of correcting their pseudo-labels.

Shape letters: **I** pseudo-labels of all images together, **M** images, **D** feature size.
Batch selection with a discount for what resembles earlier choices follows the idea of diverse
mini-batch active learning (Zhdanov, arXiv 1901.05954); the formulas here are our own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmdet_softpl.checks import check_range

# What an image with nothing but sure, common, stable labels is still worth: nothing below it is
# chosen, whatever budget is left.
_MIN_GAIN = 1e-6


@dataclass(frozen=True)
class ReviewChoice:
    """Images to review, in the order of their choice.

    Attributes:
        images: indices of images in [0, M).
        gains: expected gain of each at the moment of its choice, discounted for what resembles
            what was chosen before.
        seconds: what reviewing all of them takes.
    """

    images: tuple[int, ...]
    gains: tuple[float, ...]
    seconds: float


def expected_gain(
    confidences: np.ndarray,
    disagreements: np.ndarray,
    rarity: np.ndarray,
) -> np.ndarray:
    """What correcting a pseudo-label is expected to be worth.

    g = r (h(p) + d) / 2 with h the entropy of a coin in bits: 1 where a label is as likely
    right as wrong, 0 where its correction is known beforehand.

    Args:
        confidences: (I,) p, calibrated probability in [0, 1] that the label is right.
        disagreements: (I,) d in [0, 1], how much the teacher changes its mind on the mirrored
            image (:func:`view_disagreement`).
        rarity: (I,) factor r >= 1 of the label's class.

    Returns:
        (I,) gains >= 0.
    """
    p = np.clip(np.asarray(confidences, dtype=np.float64), 0, 1)
    inner = np.clip(p, 1e-12, 1 - 1e-12)
    entropy = -(inner * np.log2(inner) + (1 - inner) * np.log2(1 - inner))
    entropy[(p == 0) | (p == 1)] = 0
    return np.asarray(rarity) * (entropy + np.asarray(disagreements)) / 2


def view_disagreement(overlaps: np.ndarray, classes: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How much a second view of the same image contradicts each label of the first.

    d_i = 1 - max_j IoU_ij sum_c min(p_ic, q_jc): 0 where the second view has the same box with
    the same class scores, 1 where it has nothing there or surely another class.

    Args:
        overlaps: (I, J) IoU of the boxes of the first view with those of the second.
        classes: (I, C) class probabilities of the first view; rows sum to 1.
        other: (J, C) those of the second.

    Returns:
        (I,) in [0, 1]; 1 where J is 0.
    """
    if overlaps.shape[1] == 0:
        return np.ones(len(overlaps))
    best = np.zeros(len(overlaps))
    for j in range(overlaps.shape[1]):
        near = overlaps[:, j] > 0
        shared = np.minimum(classes[near], other[j]).sum(axis=1)
        best[near] = np.maximum(best[near], overlaps[near, j] * shared)
    return np.clip(1 - best, 0, 1)


def choose_images(
    gains: np.ndarray,
    image_of: np.ndarray,
    labels: np.ndarray,
    features: np.ndarray,
    num_images: int,
    *,
    budget: float,
    seconds_per_instance: float,
) -> ReviewChoice:
    """Choose whole images, greedily by discounted gain per second, within a budget.

    An image costs ``seconds_per_instance`` for each of its labels, and its gain is the sum over
    its labels of g (1 - s), s in [0, 1] the largest cosine of the label's centred feature with
    those of the same class chosen before: ten near-equal doubts count little more than one. What
    no longer fits into the budget is passed over for what does.

    Args:
        gains: (I,) of :func:`expected_gain`.
        image_of: (I,) image of each label, in [0, M).
        labels: (I,) classes.
        features: (I, D) of any scale.
        num_images: M.
        budget: seconds, >= 0.
        seconds_per_instance: > 0.

    Returns:
        The choice. Images without a label, or without any gain, are never in it.

    Raises:
        ValueError: the budget or the seconds are out of their range.
    """
    owner = 'choose_images'
    check_range(owner, 'budget', budget, 0, None)
    check_range(owner, 'seconds_per_instance', seconds_per_instance, 0, None, include_lower=False)
    directions = _directions(features)
    cost = np.bincount(image_of, minlength=num_images) * seconds_per_instance
    similarity = np.zeros(len(gains))
    members = {int(c): np.flatnonzero(labels == c) for c in np.unique(labels)}
    open_images = cost > 0
    left, images, achieved = float(budget), [], []
    while True:
        open_images &= cost <= left + 1e-9
        values = np.bincount(image_of, gains * (1 - similarity), minlength=num_images)
        ratio = np.where(open_images, values / np.maximum(cost, 1e-12), -1.0)
        best = int(ratio.argmax()) if num_images else -1
        if best < 0 or ratio[best] <= 0 or values[best] <= _MIN_GAIN:
            break
        images.append(best)
        achieved.append(float(values[best]))
        left -= cost[best]
        open_images[best] = False
        for i in np.flatnonzero(image_of == best):
            same = members[int(labels[i])]
            cosine = np.clip(directions[same] @ directions[i], 0, 1)
            similarity[same] = np.maximum(similarity[same], cosine)
    return ReviewChoice(tuple(images), tuple(achieved), float(budget) - left)


def _directions(features: np.ndarray) -> np.ndarray:
    """Unit vectors about the mean: features after a ReLU all point into one octant."""
    if not len(features):
        return np.zeros((0, 1))
    centred = np.asarray(features, dtype=np.float64)
    centred = centred - centred.mean(axis=0)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
