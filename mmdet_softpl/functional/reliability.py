"""Reliability statistics: how often detections of a confidence are right, and what is amiss.

Shape letters: **N** detections, **C** foreground classes, **B** equal confidence bins on [0, 1].
A *reliability* tensor (3, C, B) holds count, correct and summed confidence per class and bin; it
adds up over batches and ranks.
Source: "Calibration" in docs/DESIGN.md, 4; expected calibration error: arXiv 1706.04599.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._tensor import at_least_float32, class_bin_sums


def reliability_counts(
    scores: Tensor,
    labels: Tensor,
    correct: Tensor,
    num_classes: int,
    num_bins: int,
    weights: Tensor | None = None,
) -> Tensor:
    """Count, correct and summed confidence per class and bin.

    Args:
        scores: (N,) confidences in [0, 1].
        labels: (N,) predicted classes; those outside [0, C) are ignored.
        correct: (N,) bool.
        num_classes: C.
        num_bins: B.
        weights: (N,) of the detections, >= 0; None: 1 each.

    Returns:
        (3, C, B) float32.
    """
    scores = at_least_float32(scores)
    values = torch.stack([torch.ones_like(scores), correct.to(scores.dtype), scores])
    if weights is not None:
        values = values * weights.to(scores.dtype)
    return class_bin_sums(values, scores, labels, num_classes, num_bins)


def expected_calibration_error(reliability: Tensor) -> Tensor:
    """Expected calibration error over all classes: sum_b |correct_b - confidence_b| / n.

    Args:
        reliability: (3, C, B).

    Returns:
        Scalar in [0, 1]; nan without any detection.
    """
    count, correct, confidence = at_least_float32(reliability).sum(dim=1)
    return (correct - confidence).abs().sum() / count.sum()


def class_conditional_ece(reliability: Tensor, min_count: float = 1) -> Tensor:
    """Expected calibration error of each class.

    Args:
        reliability: (3, C, B).
        min_count: detections that a class needs.

    Returns:
        (C,) in [0, 1]; nan for classes with fewer than ``min_count`` detections (or none).
    """
    count, correct, confidence = at_least_float32(reliability)
    total = count.sum(dim=1)
    error = (correct - confidence).abs().sum(dim=1) / total
    return torch.where(total >= min_count, error, torch.full_like(error, torch.nan))


def chance_ece(reliability: Tensor, min_count: float = 1) -> Tensor:
    """Class-conditional error that perfectly calibrated detections would show by chance.

    A bin of n detections with mean confidence p has X of them right, X ~ Binomial(n, p), and
    E |X - n p| = 2 m C(n, m) p^m (1 - p)^(n - m + 1) with m = floor(n p) + 1 (de Moivre's mean
    deviation). With a dozen detections a class it is most of what :func:`class_conditional_ece`
    measures. Confidences that differ inside a bin make it a little too large.

    Args:
        reliability: (3, C, B).
        min_count: detections that a class needs.

    Returns:
        (C,) float64 in [0, 1]; nan for classes with fewer than ``min_count`` detections (or none).
    """
    count, _, confidence = reliability.double()
    p = (confidence / count.clamp_min(1)).clamp(0, 1)
    m = (count * p).floor() + 1
    choose = torch.lgamma(count + 1) - torch.lgamma(m + 1) - torch.lgamma(count - m + 1)
    deviation = choose + torch.xlogy(m, p) + torch.xlogy(count - m + 1, 1 - p)
    total = count.sum(dim=1)
    error = (2 * m * deviation.exp()).sum(dim=1) / total
    return torch.where(total >= max(min_count, 1), error, torch.full_like(error, torch.nan))
