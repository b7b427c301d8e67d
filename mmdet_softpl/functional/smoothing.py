"""Cross entropy on targets smoothed toward similar classes, and on given soft targets.

Shape letters: **N** RoIs, **C** foreground classes (background has index C), **k** neighbours.
Source: "Smoothed cross entropy" of docs/DESIGN.md, section 4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._tensor import at_least_float32
from .similarity import ClassSimilarity


def smoothed_cross_entropy(
    logits: Tensor, labels: Tensor, epsilon: Tensor, similarity: ClassSimilarity
) -> Tensor:
    """Cross entropy with t = (1 - e_y) onehot(y) + e_y Q[y] on foreground rows.

    Equal to the dense form on `smoothed_targets`, but the target is never built: it has k + 1
    entries and, on uniform rows, a constant, so the loss is a gather and a sum over
    log-probabilities. Background rows are the plain cross entropy, and so is everything with C = 1.

    Args:
        logits: (N, C+1).
        labels: (N,) int64 in [0, C].
        epsilon: (C,) smoothing of each class, in [0, 1).
        similarity: (C, k) rows Q; a zero row is uniform over the other classes.

    Returns:
        (N,) loss, float32, differentiable in ``logits``.
    """
    logits = at_least_float32(logits)
    num_classes = logits.shape[1] - 1
    smooth, indices, weights, uniform = _row_smoothing(
        labels, epsilon.to(logits.dtype), similarity, num_classes
    )
    background = torch.full_like(labels, num_classes)
    entries = torch.cat([labels[:, None], background[:, None], indices], dim=1)
    # The uniform part is a sum over all C + 1 entries, less background and the label.
    coefficients = torch.cat(
        [(1 - smooth - uniform)[:, None], -uniform[:, None], smooth[:, None] * weights], dim=1
    )
    return _SparseCrossEntropy.apply(logits, entries, coefficients, uniform)


class _SparseCrossEntropy(torch.autograd.Function):
    """Cross entropy with targets t = u + sum of a few coefficients at the given entries.

    By hand because autograd makes a dense (N, C+1) tensor for each of the gather, the sum and the
    log-softmax. The gradient is (softmax(z) - t) times that of the loss (rows of t sum to 1), made
    in one buffer beside the saved log-probabilities.
    """

    @staticmethod
    def forward(ctx, logits: Tensor, entries: Tensor, coefficients: Tensor, uniform: Tensor):
        """(N, C+1), (N, E) in [0, C], (N, E), (N,) -> (N,)."""
        log_probs = torch.log_softmax(logits, dim=1)
        ctx.save_for_backward(log_probs, entries, coefficients, uniform)
        sparse = (coefficients * log_probs.gather(1, entries)).sum(dim=1)
        return -(sparse + uniform * log_probs.sum(dim=1))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        """(N,) -> (N, C+1); targets have no gradient."""
        log_probs, entries, coefficients, uniform = ctx.saved_tensors
        grad = grad[:, None]
        # exp(l) g - u g, as a product and a sum, and then the entries, all in place.
        grad_logits = log_probs.exp()
        grad_logits = grad_logits.sub_(uniform[:, None]).mul_(grad)
        return grad_logits.scatter_add_(1, entries, -coefficients * grad), None, None, None


def smoothed_targets(
    labels: Tensor, epsilon: Tensor, similarity: ClassSimilarity, num_classes: int
) -> Tensor:
    """Dense targets of `smoothed_cross_entropy`, for plots, tests and soft targets.

    Args:
        labels: (N,) int64 in [0, C].
        epsilon: (C,) smoothing of each class, in [0, 1).
        similarity: (C, k) rows Q; a zero row is uniform over the other classes.
        num_classes: C.

    Returns:
        (N, C+1) float32, rows sum to 1.
    """
    smooth, indices, weights, uniform = _row_smoothing(
        labels, at_least_float32(epsilon), similarity, num_classes
    )
    targets = uniform[:, None].repeat(1, num_classes + 1)
    targets[:, -1] = 0
    targets = targets.scatter(1, labels[:, None], (1 - smooth)[:, None])
    return targets.scatter_add(1, indices, smooth[:, None] * weights)


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of logits (N, C+1) against target distributions (N, C+1): (N,), float32."""
    log_probs = torch.log_softmax(at_least_float32(logits), dim=1)
    return -(targets.to(log_probs.dtype) * log_probs).sum(dim=1)


def _row_smoothing(
    labels: Tensor, epsilon: Tensor, similarity: ClassSimilarity, num_classes: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Per row: smoothing (N,), neighbours (N, k), their weights (N, k), uniform mass (N,).

    The uniform mass is what *each* other class gets, 0 on rows that have neighbours.
    """
    # Background rows read the last class and multiply it by 0.
    rows = labels.clamp_max(num_classes - 1)
    smoothed = (labels < num_classes) & (num_classes > 1)
    smooth = epsilon[rows] * smoothed
    weights = similarity.weights.to(epsilon.dtype)[rows]
    is_uniform = weights.sum(dim=1) == 0
    uniform = smooth * is_uniform / max(num_classes - 1, 1)
    return smooth, similarity.indices[rows], weights, uniform
