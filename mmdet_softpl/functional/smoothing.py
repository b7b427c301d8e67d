"""Cross entropy on targets smoothed toward similar classes, and on given soft targets.

Shape letters: **N** RoIs, **C** foreground classes (background has index C), **k** neighbours.
Source: "Smoothed cross entropy" of docs/DESIGN.md, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ._tensor import at_least_float32
from .similarity import ClassSimilarity


@dataclass(frozen=True)
class SmoothingTable:
    """The smoothed target of every label, sparse.

    Each of the C + 1 entries of a target has ``uniform``, and the given entries their coefficient
    on top; one that comes up twice has the sum.

    Attributes:
        entries: (C+1, k+2) int64 in [0, C].
        coefficients: (C+1, k+2).
        uniform: (C+1,).
    """

    entries: Tensor
    coefficients: Tensor
    uniform: Tensor


def smoothing_table(epsilon: Tensor, similarity: ClassSimilarity) -> SmoothingTable:
    """Targets t = (1 - e_y) onehot(y) + e_y Q[y] of all labels; background is one-hot.

    Args:
        epsilon: (C,) smoothing of each class, in [0, 1).
        similarity: (C, k) rows Q; a zero row is uniform over the other classes.
    """
    num_classes = len(epsilon)
    # Alone, a class has nobody to be confused with.
    smooth = epsilon if num_classes > 1 else torch.zeros_like(epsilon)
    weights = similarity.weights.to(epsilon.dtype)
    # The mass that each other class gets, 0 on rows that have neighbours.
    uniform = smooth * (weights.sum(dim=1) == 0) / max(num_classes - 1, 1)
    labels = torch.arange(num_classes, device=epsilon.device)
    background = torch.full_like(labels, num_classes)
    entries = torch.cat([labels[:, None], background[:, None], similarity.indices], dim=1)
    # The uniform part is in all C + 1 entries; background and the label get none of it.
    coefficients = torch.cat(
        [(1 - smooth - uniform)[:, None], -uniform[:, None], smooth[:, None] * weights], dim=1
    )
    entries, coefficients = F.pad(entries, (0, 0, 0, 1)), F.pad(coefficients, (0, 0, 0, 1))
    entries[-1, :2] = num_classes
    coefficients[-1, 0] = 1
    return SmoothingTable(entries, coefficients, F.pad(uniform, (0, 1)))


def smoothed_cross_entropy(
    logits: Tensor, labels: Tensor, epsilon: Tensor, similarity: ClassSimilarity
) -> Tensor:
    """Cross entropy with t = (1 - e_y) onehot(y) + e_y Q[y] on foreground rows.

    Equal to the dense form on `smoothed_targets`. Background rows are the plain cross entropy, and
    so is everything with C = 1.

    Args:
        logits: (N, C+1).
        labels: (N,) int64 in [0, C].
        epsilon: (C,) smoothing of each class, in [0, 1).
        similarity: (C, k) rows Q; a zero row is uniform over the other classes.

    Returns:
        (N,) loss, float32, differentiable in ``logits``.
    """
    return sparse_cross_entropy(logits, labels, smoothing_table(epsilon, similarity))


def sparse_cross_entropy(logits: Tensor, labels: Tensor, table: SmoothingTable) -> Tensor:
    """`smoothed_cross_entropy` with targets that are made once for many batches.

    A target is never built: it has k + 2 entries and a constant, so the loss is a gather and a sum
    over log-probabilities.

    Args:
        logits: (N, C+1).
        labels: (N,) int64 in [0, C].
        table: Of the classes.

    Returns:
        (N,) loss, float32, differentiable in ``logits``.
    """
    logits = at_least_float32(logits)
    return _SparseCrossEntropy.apply(
        logits,
        table.entries[labels],
        table.coefficients[labels].to(logits.dtype),
        table.uniform[labels].to(logits.dtype),
    )


class _SparseCrossEntropy(torch.autograd.Function):
    """Cross entropy with targets t = u + sum of a few coefficients at the given entries.

    By hand because autograd makes a dense (N, C+1) tensor for each of the gather, the sum and the
    log-softmax. As t sums to 1 the loss is logsumexp(z) - t z and its gradient softmax(z) - t: two
    dense tensors, the probabilities and the gradient, and a single pass of exponentials.
    """

    @staticmethod
    def forward(ctx, logits: Tensor, entries: Tensor, coefficients: Tensor, uniform: Tensor):
        """(N, C+1), (N, E) in [0, C], (N, E), (N,) -> (N,)."""
        probs = torch.softmax(logits, dim=1)
        ctx.save_for_backward(probs, entries, coefficients, uniform)
        # Relative to the largest logit, whose probability is at least 1 / (C + 1): its log is safe,
        # and the loss of a confident row keeps its digits.
        top = logits.amax(dim=1)
        sparse = (logits.gather(1, entries).sub_(top[:, None])).mul_(coefficients).sum(dim=1)
        rest = logits.sum(dim=1).sub_(top, alpha=logits.shape[1])
        return -sparse.addcmul_(uniform, rest).add_(probs.amax(dim=1).log_())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        """(N,) -> (N, C+1); targets have no gradient."""
        probs, entries, coefficients, uniform = ctx.saved_tensors
        grad = grad[:, None]
        grad_logits = (probs - uniform[:, None]).mul_(grad)
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
    table = smoothing_table(at_least_float32(epsilon), similarity)
    targets = table.uniform[labels, None].repeat(1, num_classes + 1)
    return targets.scatter_add(1, table.entries[labels], table.coefficients[labels])


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of logits (N, C+1) against target distributions (N, C+1): (N,), float32."""
    log_probs = torch.log_softmax(at_least_float32(logits), dim=1)
    return -(targets.to(log_probs.dtype) * log_probs).sum(dim=1)
