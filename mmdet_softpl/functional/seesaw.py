"""Seesaw loss in terms of one softmax, so that soft targets and smoothing work on its outputs.

Shape letters: **N** RoIs, **C** foreground classes (background has index C).
Source: Wang et al., "Seesaw Loss for Long-Tailed Instance Segmentation", arXiv 2008.10032; its
normalised outputs are C class scores and two of objectness.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ._tensor import at_least_float32


def joint_logits(cls_score: Tensor) -> Tensor:
    """Log-probabilities log p(object) + log p(c | object), and log p(background).

    Cross entropy on them is the sum of an objectness loss and a class loss of the objects.

    Args:
        cls_score: (N, C+2); the last two are object and background.

    Returns:
        (N, C+1) float32, whose softmax is themselves, exponentiated.
    """
    scores = at_least_float32(cls_score)
    classes = torch.log_softmax(scores[:, :-2], dim=1)
    objectness = torch.log_softmax(scores[:, -2:], dim=1)
    return torch.cat([classes + objectness[:, :1], objectness[:, 1:]], dim=1)


def seesaw_excess(
    cls_score: Tensor, labels: Tensor, counts: Tensor, p: float, q: float, eps: float
) -> Tensor:
    """What Seesaw loss adds to the cross entropy of ``joint_logits``: log sum_j S_yj p(j | object).

    S_yj = min(1, N_j / N_y)^p max(1, p_j / p_y)^q, the paper's mitigation and compensation factors
    with mmdet's bounds N >= 1 and p_y >= eps. A class that is rarer than the label is punished less
    for its score, one that beats the label more.

    Args:
        cls_score: (N, C+2); the last two are object and background.
        labels: (N,) int64 in [0, C].
        counts: (C,) RoIs seen of each class, >= 0.
        p: Exponent of the mitigation factor, >= 0.
        q: Exponent of the compensation factor, >= 0.
        eps: Lower bound of p_y in the compensation factor, >= 0.

    Returns:
        (N,) float32, 0 on background rows; S has no gradient.
    """
    log_probs = torch.log_softmax(at_least_float32(cls_score)[:, :-2], dim=1)
    num_classes = log_probs.shape[1]
    rows = labels.clamp(max=num_classes - 1)
    with torch.no_grad():
        log_counts = counts.to(log_probs.dtype).clamp(min=1).log()
        mitigation = p * (log_counts - log_counts[rows, None]).clamp(max=0)
        own = log_probs.gather(1, rows[:, None])
        if eps > 0:
            own = own.clamp(min=math.log(eps))
        compensation = q * (log_probs - own).clamp(min=0)
    excess = torch.logsumexp(log_probs + mitigation + compensation, dim=1)
    return torch.where(labels < num_classes, excess, 0)
