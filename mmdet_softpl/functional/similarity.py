"""Class similarity from prototypes, matrices or confusions, and prototype evidence.

Shape letters: **N** RoIs, **C** foreground classes (background has index C), **D** feature size,
**k** neighbours kept per class, **T** temperature.
Source: "Similarity" and "Smoothed cross entropy" in docs/DESIGN.md, 4; prototypes beside the
classifier follow the idea of DASO (arXiv 2106.05682).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ._tensor import at_least_float32, class_rows


class ClassSimilarity(NamedTuple):
    """Sparse row-stochastic similarity Q of classes.

    The diagonal is left out, except where `cap_inflow` gives mass back to a class itself.

    Attributes:
        indices: (C, k) int64, the neighbours of each class, in [0, C).
        weights: (C, k) float, >= 0; a row sums to 1. A row of zeros stands for the uniform
            distribution over the C - 1 other classes. Unused columns have weight 0.
    """

    indices: Tensor
    weights: Tensor


def sum_features(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Sum features and count rows per class, what `update_prototypes` takes.

    Args:
        features: (N, D).
        labels: (N,) integers; those outside [0, C) (background) are ignored, and so are rows that
            are not finite, which would stay in every later mean.
        num_classes: C.

    Returns:
        sums (C, D) and counts (C,), float32. Both add up over ranks.
    """
    features = at_least_float32(features)
    finite = features.isfinite().all(dim=1)
    rows = torch.where(finite, class_rows(labels, num_classes), num_classes)
    sums = features.new_zeros(num_classes + 1, features.shape[1]).index_add(0, rows, features)
    ones = features.new_ones(rows.shape[0])
    counts = features.new_zeros(num_classes + 1).index_add(0, rows, ones)
    return sums[:-1], counts[:-1]


def update_prototypes(
    prototypes: Tensor,
    counts: Tensor,
    feature_sums: Tensor,
    feature_counts: Tensor,
    momentum: float = 0.99,
) -> tuple[Tensor, Tensor]:
    """Move prototypes toward new features: exact mean first, exponential average later.

    With N features seen before and n new ones the new mean enters at the rate
    max(n / (N + n), 1 - momentum^n): the first is the running mean, the second the average
    of n single steps; the larger wins, so early prototypes are exact and late ones follow the
    features as these drift.

    Args:
        prototypes: (C, D).
        counts: (C,) features seen before, per class.
        feature_sums: (C, D) sums of the new features.
        feature_counts: (C,) number n of the new features; classes with 0 stay untouched.
        momentum: of one feature, in [0, 1]; 1 keeps the exact mean for good.

    Returns:
        prototypes (C, D) and counts (C,), new tensors in the dtypes given.

    Raises:
        ValueError: momentum outside [0, 1].
    """
    if not 0 <= momentum <= 1:
        raise ValueError(f'momentum of the prototypes must be in [0, 1], got {momentum}')
    old = at_least_float32(prototypes)
    before, new = at_least_float32(counts), at_least_float32(feature_counts)
    mean = at_least_float32(feature_sums) / new.clamp_min(1)[:, None]
    rate = torch.maximum(new / (before + new).clamp_min(1), 1 - momentum**new)
    # The rate of a class without new features is 0.
    moved = torch.lerp(old, mean, rate[:, None])
    return moved.to(prototypes.dtype), counts + feature_counts.to(counts.dtype)


def similarity_from_prototypes(
    prototypes: Tensor,
    counts: Tensor,
    topk: int = 16,
    temperature: float = 0.1,
    min_count: int = 1,
    chunk: int = 1024,
) -> ClassSimilarity:
    """Similarity softmax(cos / T) of centred prototypes over the top-k other classes.

    Args:
        prototypes: (C, D).
        counts: (C,) features behind each prototype.
        topk: neighbours kept; k = min(topk, C - 1), at least 1.
        temperature: T > 0.
        min_count: features that make a prototype valid, >= 1. Classes below are nobody's
            neighbour and get a zero row (uniform), as does a single valid class.
        chunk: rows at a time; memory is chunk * C, not C * C.

    Returns:
        ClassSimilarity of shape (C, k), float32.

    Raises:
        ValueError: topk, temperature or min_count outside its range.
    """
    _check_topk(topk)
    _check_temperature(temperature)
    if min_count < 1:
        raise ValueError(f'min_count of a prototype must be >= 1, got {min_count}')
    num_classes = prototypes.shape[0]
    valid = counts >= min_count
    with torch.autocast(prototypes.device.type, enabled=False):
        directions = _centred_directions(at_least_float32(prototypes), valid)[0]
        parts = []
        for start in range(0, num_classes, chunk):
            rows = torch.arange(start, min(start + chunk, num_classes), device=prototypes.device)
            cosine = directions[rows] @ directions.T
            cosine = cosine.masked_fill(~valid, -torch.inf)
            parts.append(_top_neighbours(cosine, rows, topk, temperature))
    indices = torch.cat([part.indices for part in parts])
    weights = torch.cat([part.weights for part in parts])
    return ClassSimilarity(indices, weights * valid[:, None])


def similarity_from_matrix(
    matrix: Tensor, topk: int = 16, temperature: float | None = None
) -> ClassSimilarity:
    """Similarity from a given matrix, whose diagonal is ignored.

    Args:
        matrix: (C, C), row y says how similar the other classes are to y; larger is more
            similar.
        topk: neighbours kept; k = min(topk, C - 1), at least 1.
        temperature: T > 0 of a softmax over the kept neighbours; None: the values themselves,
            which must be >= 0, normalised. A row without mass becomes a zero row (uniform).

    Returns:
        ClassSimilarity of shape (C, k), float32.

    Raises:
        ValueError: a matrix that is not square, not finite, or negative without a temperature;
            topk or temperature outside its range.
    """
    _check_topk(topk)
    if temperature is not None:
        _check_temperature(temperature)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(
            f'a similarity matrix must be square (C, C), got the shape {tuple(matrix.shape)}'
        )
    matrix = at_least_float32(matrix)
    if not bool(torch.isfinite(matrix).all()):
        raise ValueError('a similarity matrix must be finite, it holds inf or nan')
    if temperature is None and bool((matrix < 0).any()):
        raise ValueError(
            f'a similarity matrix with negative values (smallest {matrix.min().item():.3g}) '
            f'needs a temperature'
        )
    rows = torch.arange(matrix.shape[0], device=matrix.device)
    return _top_neighbours(matrix, rows, topk, temperature)


def similarity_from_confusion(confusion: Tensor, topk: int = 16) -> ClassSimilarity:
    """Similarity from what a classifier confuses: rows normalised without the diagonal.

    Args:
        confusion: (C, C), row y the summed foreground softmax of RoIs whose label is y, >= 0.
        topk: neighbours kept; k = min(topk, C - 1), at least 1.

    Returns:
        ClassSimilarity of shape (C, k), float32; a class never seen has a zero row (uniform).

    Raises:
        ValueError: as `similarity_from_matrix`.
    """
    return similarity_from_matrix(confusion, topk)


def effective_neighbours(similarity: ClassSimilarity) -> Tensor:
    """Number of classes that each row effectively spreads over, exp(entropy): (C,) float.

    C - 1 for a zero row (uniform). Close to C - 1 everywhere means that the temperature makes
    the smoothing uniform in disguise.
    """
    weights = similarity.weights
    spread = (-torch.xlogy(weights, weights).sum(dim=1)).exp()
    uniform = weights.sum(dim=1) == 0
    return torch.where(uniform, torch.full_like(spread, weights.shape[0] - 1), spread)


def cap_inflow(
    similarity: ClassSimilarity,
    instance_counts: Tensor,
    max_inflow: float,
    topk: int | None = None,
) -> tuple[ClassSimilarity, Tensor]:
    """Cap what smoothing hands to each class.

    That is inflow_j = sum_y n_y Q[y, j] target mass (times epsilon) for class j, whose own
    instances are n_j. Columns that get more than max_inflow * n_j are scaled down to it. A row
    that lost mass that way gives it back to its own class, in a column of its own if ``topk``
    leaves room for one, else in that of the row's weakest neighbour. Uniform (zero) rows have
    nothing to scale; their inflow counts, and leaves the others less room.

    Args:
        similarity: (C, k), without the diagonal.
        instance_counts: (C,) labelled instances n, >= 0; classes without any count as one.
        max_inflow: limit of inflow_j / n_j, > 0; inf: no limit.
        topk: columns that the result may have; None: k.

    Returns:
        The similarity (C, k), or (C, k + 1) where k < topk; and the ratio
        inflow_j / n_j after the cap, (C,), which leaves out what a class gives back to itself.

    Raises:
        ValueError: max_inflow <= 0.
    """
    if not max_inflow > 0:
        raise ValueError(f'max_inflow must be > 0, got {max_inflow}')
    indices, weights = similarity
    tiny = torch.finfo(weights.dtype).tiny
    own = instance_counts.to(weights).clamp_min(1)

    uniform = own * (weights.sum(dim=1) == 0)
    base = (uniform.sum() - uniform) / max(weights.shape[0] - 1, 1)
    inflow = _inflow(indices, weights, own)

    itself = torch.arange(weights.shape[0], device=indices.device)[:, None]
    if topk is not None and indices.shape[1] < topk:
        indices, weights = torch.cat([indices, itself], dim=1), F.pad(weights, (0, 1))
    room = (max_inflow * own - base).clamp_min(0)
    scale = (room / inflow.clamp_min(tiny)).clamp_max(1)[indices]
    capped = ((scale < 1) & (weights > 0)).any(dim=1, keepdim=True)
    weights = weights * scale
    weakest = weights.argmin(dim=1, keepdim=True)
    weights = torch.where(capped, weights.scatter(1, weakest, 0), weights)
    ratio = (base + _inflow(indices, weights, own)) / own

    rest = 1 - weights.sum(dim=1, keepdim=True)
    indices = torch.where(capped, indices.scatter(1, weakest, itself), indices)
    weights = torch.where(capped, weights.scatter(1, weakest, rest), weights)
    return ClassSimilarity(indices, weights), ratio


def prototype_log_evidence(
    features: Tensor,
    prototypes: Tensor,
    counts: Tensor,
    temperature: float = 0.1,
    min_count: int = 1,
) -> Tensor:
    """Log-probability of each class by the centred cosine to its prototype.

    log softmax(cos(x - m, p_c - m) / T) over the valid classes, m the mean of their prototypes.

    Args:
        features: (N, D).
        prototypes: (C, D).
        counts: (C,) features behind each prototype; valid from ``min_count`` on.
        temperature: T > 0.
        min_count: features that make a prototype valid.

    Returns:
        (N, C) float32. A class without a valid prototype gets what a uniform guess over the valid
        ones would (neither for nor against it); without any valid class all is 0.
    """
    with torch.autocast(features.device.type, enabled=False):
        valid = counts >= min_count
        features = at_least_float32(features)
        directions, centre = _centred_directions(prototypes.to(features.dtype), valid)
        cosine = F.normalize(features - centre, dim=1) @ directions.T
    # A finite floor instead of -inf: no nan where no class is valid.
    floor = torch.finfo(cosine.dtype).min
    evidence = torch.log_softmax((cosine / temperature).masked_fill(~valid, floor), dim=1)
    guess = -valid.sum().clamp_min(1).log().to(evidence)
    return torch.where(valid, evidence, guess)


def _inflow(indices: Tensor, weights: Tensor, own: Tensor) -> Tensor:
    """Sum over rows y of own_y Q[y, j], (C,)."""
    flow = own[:, None] * weights
    return torch.zeros_like(own).index_add(0, indices.flatten(), flow.flatten())


def _centred_directions(prototypes: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors (C, D) of prototypes about the mean (1, D) of the valid ones."""
    weight = valid.to(prototypes.dtype)[:, None]
    centre = (prototypes * weight).sum(dim=0, keepdim=True) / weight.sum().clamp_min(1)
    return F.normalize(prototypes - centre, dim=1), centre


def _top_neighbours(
    values: Tensor, rows: Tensor, topk: int, temperature: float | None
) -> ClassSimilarity:
    """Top-k of similarity rows (R, C) of the classes ``rows`` (R,); -inf excludes a class."""
    values = values.scatter(1, rows[:, None], -torch.inf)
    top, indices = values.topk(max(min(topk, values.shape[1] - 1), 1), dim=1)
    if temperature is not None:
        # nan: a row in which every class is excluded.
        return ClassSimilarity(indices, torch.softmax(top / temperature, dim=1).nan_to_num(0))
    mass = top.clamp_min(0)
    total = mass.sum(dim=1, keepdim=True)
    return ClassSimilarity(indices, mass / total.clamp_min(torch.finfo(mass.dtype).tiny))


def _check_topk(topk: int) -> None:
    if topk < 1:
        raise ValueError(f'topk of a similarity must be >= 1, got {topk}')


def _check_temperature(temperature: float) -> None:
    if temperature <= 0:
        raise ValueError(f'temperature of a similarity must be > 0, got {temperature}')
