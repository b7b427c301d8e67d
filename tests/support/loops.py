"""Slow references that more than one test file compares with."""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_softpl.functional import ClassSimilarity


def loop_targets(
    labels: Tensor, epsilon: Tensor, similarity: ClassSimilarity, num_classes: int
) -> Tensor:
    """Dense smoothed targets (N, C+1), entry by entry."""
    targets = torch.zeros(len(labels), num_classes + 1, dtype=epsilon.dtype)
    for row, label in enumerate(labels.tolist()):
        if label == num_classes or num_classes == 1:
            targets[row, label] = 1
            continue
        eps = epsilon[label].item()
        targets[row, label] = 1 - eps
        weights = similarity.weights[label].tolist()
        if sum(weights) == 0:
            for other in range(num_classes):
                if other != label:
                    targets[row, other] += eps / (num_classes - 1)
        for other, weight in zip(similarity.indices[label].tolist(), weights, strict=True):
            targets[row, other] += eps * weight
    return targets
