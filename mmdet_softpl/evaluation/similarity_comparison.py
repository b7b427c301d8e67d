"""What a class similarity says, and how far two of them agree.

Shape letters: **C** foreground classes, **k** neighbours kept of a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmdet_softpl.evaluation.rank_correlation import spearman
from mmdet_softpl.functional import ClassSimilarity


@dataclass(frozen=True)
class SimilarityComparison:
    """Agreement of two similarities of the same classes.

    Attributes:
        classes: classes compared: those that both know something about.
        rank_correlation: mean over classes of Spearman's correlation of the two similarities to
            all other classes, in [-1, 1].
        overlap: k -> mean share of the k nearest classes that both name, in [0, 1].
        chance: k -> what two unrelated similarities have, k / (C - 1).
        by_class: (C,) correlation of each class, nan where it was not compared.
    """

    classes: int
    rank_correlation: float
    overlap: dict[int, float]
    chance: dict[int, float]
    by_class: np.ndarray


def dense_similarity(similarity: ClassSimilarity) -> np.ndarray:
    """(C, C) float64 of a sparse similarity; zero rows become the uniform ones they stand for."""
    indices, weights = similarity.indices.cpu(), similarity.weights.cpu().double()
    count = len(indices)
    dense = torch.zeros(count, count, dtype=torch.float64).scatter_add(1, indices, weights)
    uniform = weights.sum(1) == 0
    rest = (1 - torch.eye(count, dtype=torch.float64)) / max(count - 1, 1)
    return torch.where(uniform[:, None], rest, dense).numpy()


def inflow_ratio(similarity: ClassSimilarity, counts: Tensor, smoothing: float) -> np.ndarray:
    """(C,) smoothed target mass that flows into a class, in units of its own positives.

    eps sum_{y != j} n_y Q[y, j] / n_j, what ``max_inflow`` of ``SmoothedCEHead`` limits.

    Args:
        similarity: (C, k).
        counts: (C,) positives n of each class; classes without any count as one.
        smoothing: eps in [0, 1).
    """
    dense = dense_similarity(similarity)
    np.fill_diagonal(dense, 0)
    own = np.maximum(counts.cpu().double().numpy(), 1)
    return smoothing * (own @ dense) / own


def compare_similarities(
    first: np.ndarray, second: np.ndarray, known: np.ndarray, ks: Sequence[int] = (1, 5, 10)
) -> SimilarityComparison:
    """Compare the orders in which two similarities put the other classes.

    Args:
        first: (C, C), larger is more similar; the diagonal is ignored.
        second: (C, C), on any other scale.
        known: (C,) bool, classes that both know something about: only these are compared, as
            rows and as neighbours.
        ks: lengths of neighbour lists; those of all neighbours or more are left out.

    Returns:
        The comparison; with fewer than three known classes nothing can be compared, and the
        correlation is nan.

    Raises:
        ValueError: the shapes differ.
    """
    if first.shape != second.shape or first.shape != (len(known), len(known)):
        raise ValueError(
            f'compare_similarities: shapes {first.shape}, {second.shape} and {known.shape} do not '
            'belong to the same classes.'
        )
    rows = np.flatnonzero(known)
    others = len(rows) - 1
    by_class = np.full(len(known), np.nan)
    ks = [k for k in ks if 0 < k < others]
    shares: dict[int, list[float]] = {k: [] for k in ks}
    for row in rows if others >= 2 else ():
        columns = rows[rows != row]
        a, b = first[row, columns], second[row, columns]
        by_class[row] = spearman(a, b)
        order_a, order_b = (np.argsort(-v, kind='stable') for v in (a, b))
        for k in ks:
            shares[k].append(len(set(order_a[:k]) & set(order_b[:k])) / k)
    finite = by_class[np.isfinite(by_class)]
    return SimilarityComparison(
        classes=len(rows),
        rank_correlation=float(finite.mean()) if len(finite) else float('nan'),
        overlap={k: float(np.mean(v)) for k, v in shares.items() if v},
        chance={k: k / others for k in ks},
        by_class=by_class,
    )
