"""Cross entropy on targets smoothed toward similar classes, and on given soft targets.

Shape letters: **N** RoIs, **C** foreground classes (background has index C), **k** neighbours,
**E** entries of a sparse target.
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
        entries: (C+1, E) int64 in [0, C]; E is k + 2, or k + 1 without uniform rows.
        coefficients: (C+1, E).
        uniform: (C+1,); None stands for zeros.
    """

    entries: Tensor
    coefficients: Tensor
    uniform: Tensor | None


def smoothing_table(
    epsilon: Tensor, similarity: ClassSimilarity, uniform_rows: bool = True
) -> SmoothingTable:
    """Targets t = (1 - e_y) onehot(y) + e_y Q[y] of all labels; background is one-hot.

    Args:
        epsilon: (C,) smoothing of each class, in [0, 1).
        similarity: (C, k) rows Q; a zero row is uniform over the other classes.
        uniform_rows: False where no row of Q is zero, which spares each batch two passes over its
            logits.
    """
    num_classes = len(epsilon)
    # Alone, a class has nobody to be confused with.
    smooth = epsilon if num_classes > 1 else torch.zeros_like(epsilon)
    weights = similarity.weights.to(epsilon.dtype)
    # The mass that each other class gets, 0 on rows that have neighbours.
    uniform = smooth * (weights.sum(dim=1) == 0) / max(num_classes - 1, 1)
    labels = torch.arange(num_classes, device=epsilon.device)
    background = torch.full_like(labels, num_classes)
    entries = torch.cat([labels[:, None], similarity.indices], dim=1)
    coefficients = torch.cat([(1 - smooth)[:, None], smooth[:, None] * weights], dim=1)
    if uniform_rows:
        # The uniform part is in all C + 1 entries; background and the label get none of it.
        coefficients[:, 0] -= uniform
        entries = torch.cat([entries, background[:, None]], dim=1)
        coefficients = torch.cat([coefficients, -uniform[:, None]], dim=1)
    entries, coefficients = F.pad(entries, (0, 0, 0, 1)), F.pad(coefficients, (0, 0, 0, 1))
    entries[-1, 0] = num_classes
    coefficients[-1, 0] = 1
    return SmoothingTable(entries, coefficients, F.pad(uniform, (0, 1)) if uniform_rows else None)


def own_coefficients(table: SmoothingTable) -> Tensor:
    """(C+1,) what the target of each label leaves to the label itself."""
    labels = torch.arange(len(table.entries), device=table.entries.device)
    own = (table.coefficients * (table.entries == labels[:, None])).sum(dim=1)
    return own if table.uniform is None else own + table.uniform


def smoothed_cross_entropy(
    logits: Tensor, labels: Tensor, epsilon: Tensor, similarity: ClassSimilarity
) -> Tensor:
    """Cross entropy with t = (1 - e_y) onehot(y) + e_y Q[y] on foreground rows.

    Equal to cross entropy with dense targets (N, C+1), which are never built. Background rows are
    the plain cross entropy, and so is everything with C = 1.

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

    A target is never built: it has a few entries and a constant, so the loss is a gather and a sum
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
        table.entries.index_select(0, labels),
        table.coefficients.index_select(0, labels).to(logits.dtype),
        None if table.uniform is None else table.uniform[labels].to(logits.dtype),
    )


class _SparseCrossEntropy(torch.autograd.Function):
    """Cross entropy with targets t = u + sum of a few coefficients at the given entries.

    By hand because autograd makes a dense (N, C+1) tensor for each of the gather, the sum and the
    log-softmax. As t sums to 1 the loss is logsumexp(z) - t z and its gradient softmax(z) - t,
    which the forward makes of its probabilities, in place: a single pass of exponentials, and the
    backward has one product left.
    """

    @staticmethod
    def forward(ctx, logits: Tensor, entries: Tensor, coefficients: Tensor, uniform: Tensor | None):
        """(N, C+1), (N, E) in [0, C], (N, E), (N,) -> (N,)."""
        probs = torch.softmax(logits, dim=1)
        # Relative to the largest logit, whose probability is at least 1 / (C + 1): its log is safe,
        # and the loss of a confident row keeps its digits.
        top = logits.amax(dim=1)
        likelihood = logits.gather(1, entries).sub_(top[:, None]).mul_(coefficients).sum(dim=1)
        likelihood.add_(probs.amax(dim=1).log_())
        residual = probs.scatter_add_(1, entries, -coefficients)
        if uniform is not None:
            rest = logits.sum(dim=1).sub_(top, alpha=logits.shape[1])
            likelihood.addcmul_(uniform, rest)
            residual.sub_(uniform[:, None])
        ctx.save_for_backward(residual)
        return likelihood.neg_()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        """(N,) -> (N, C+1); targets have no gradient."""
        (residual,) = ctx.saved_tensors
        return residual * grad[:, None], None, None, None


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of logits (N, C+1) against target distributions (N, C+1): (N,), float32."""
    log_probs = torch.log_softmax(at_least_float32(logits), dim=1)
    return -(targets.to(log_probs.dtype) * log_probs).sum(dim=1)
