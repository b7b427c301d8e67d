"""Calibrators, and the soft targets that calibrated confidences make.

Shape letters: **N** detections, **K** pseudo-instances, **C** foreground classes (background has
index C), **B** equal confidence bins on [0, 1], **G** = 3 frequency groups.
A *calibrator* is a table (C, B): the calibrated confidence at the bin centres. It is made from a
reliability tensor (3, C, B), see ``reliability_counts``.
Source: "Calibration" in docs/DESIGN.md, 4; temperature: arXiv 1706.04599.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ._tensor import at_least_float32, bin_centres, cumulative_sum
from .group_statistics import group_sums, shrink_to_groups

#: Of ``calibration_table``.
CALIBRATION_MODES = ('none', 'temperature', 'group_temperature', 'histogram')

_MAX_TEMPERATURE = 10.0
_GRID_SIZE = 2001
_NO_MASS = 1e-12


def calibration_table(reliability: Tensor, groups: Tensor, mode: str, held_out: bool) -> Tensor:
    """The table of a mode: in training and wherever it is foretold.

    Args:
        reliability: (3, C, B).
        groups: (C,) int64 in [0, G).
        mode: One of ``CALIBRATION_MODES``.
        held_out: Whether the network is not trained on the images of ``reliability``; else the
            table is ``never_raising``.

    Returns:
        (C, B) table in [0, 1]; with ``'none'`` that of ``uncalibrated``.

    Raises:
        ValueError: An unknown mode.
    """
    if mode not in CALIBRATION_MODES:
        raise ValueError(f'calibration must be one of {CALIBRATION_MODES}, got {mode!r}')
    if mode == 'none':
        return uncalibrated(*reliability.shape[1:]).to(at_least_float32(reliability))
    if mode == 'histogram':
        table = histogram_calibrator(reliability, groups)
    else:
        table = temperature_calibrator(reliability, groups, mode == 'group_temperature')
    return table if held_out else never_raising(table)


def uncalibrated(num_classes: int, num_bins: int) -> Tensor:
    """(C, B) the table that leaves scores as they are: the centres of the bins."""
    return bin_centres(num_bins, torch.empty(0)).repeat(num_classes, 1)


def isotonic(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted least-squares non-decreasing fit along the last dimension.

    Pool-adjacent-violators by its max-min formula, g_i = max_{j <= i} min_{k >= i} of the weighted
    mean of j..k, without a loop: O(B^2) memory per row.

    Args:
        values: (..., B).
        weights: (..., B), >= 0. Where a weight is 0 the fit takes the next weighted value (the last
            one at the end); where all of a row are 0 they count alike.

    Returns:
        (..., B) in the dtype of ``values``, at least float32.
    """
    values = at_least_float32(values)
    # Sums over ranges are differences of running sums: double keeps them exact enough.
    weights64, values64 = weights.double(), values.double()
    unweighted = (weights64.sum(dim=-1, keepdim=True) == 0).to(weights64.dtype)
    weights64 = weights64 + unweighted
    total = _range_sums(weights64)
    mean = _range_sums(weights64 * values64) / total.clamp_min(torch.finfo(total.dtype).tiny)

    size = values.shape[-1]
    steps = torch.arange(size, device=values.device)
    empty = total <= 0
    # mean[..., j, k]; the minimum over k >= i is a running minimum from the right.
    upper = mean.masked_fill(empty | (steps[:, None] > steps), torch.inf)
    smallest = upper.flip(-1).cummin(dim=-1).values.flip(-1)
    allowed = (steps[:, None] <= steps) & smallest.isfinite()
    return smallest.masked_fill(~allowed, -torch.inf).amax(dim=-2).to(values.dtype)


def histogram_calibrator(reliability: Tensor, groups: Tensor, prior: float = 20.0) -> Tensor:
    """Calibrated confidence per class and bin: observed gaps, shrunk and made monotone.

    What is shrunk (class -> group -> all -> 0) is the gap (correct - confidence) / count of a bin,
    added to the bin centre. A calibrated model is left alone that way even where its scores crowd
    at one side of a bin, and bins nobody ever saw keep the identity.

    Args:
        reliability: (3, C, B).
        groups: (C,) int64 in [0, G).
        prior: pseudo-counts k > 0.

    Returns:
        (C, B) table in [0, 1], non-decreasing along B; the bin centres where nothing was seen.

    Raises:
        ValueError: prior <= 0.
    """
    count, correct, confidence = at_least_float32(reliability)
    gap = shrink_to_groups(correct - confidence, count, groups, prior, base=0.0)
    centres = bin_centres(count.shape[1], count)
    return isotonic((centres + gap).clamp(0, 1), count + prior)


def temperature_calibrator(
    reliability: Tensor, groups: Tensor, per_group: bool, prior: float = 20.0
) -> Tensor:
    """Temperature scaling sigmoid(logit(p) / T) as a table, T by maximum likelihood.

    T is searched on a grid of [0.1, 10] (steps of 0.23 %) for the binomial likelihood of the bins
    at their mean confidence. ``prior`` pseudo-detections, spread evenly over the bins and correct
    as often as the next coarser fit says (identity for the one T, the one T for the groups), keep
    a handful of detections from choosing an extreme T.

    Args:
        reliability: (3, C, B).
        groups: (C,) int64 in [0, G).
        per_group: one T for each frequency group instead of one for all.
        prior: pseudo-counts k > 0.

    Returns:
        (C, B) table in (0, 1), increasing along B; the bin centres where nothing was seen.

    Raises:
        ValueError: prior <= 0.
    """
    if prior <= 0:
        raise ValueError(f'prior of the temperature must be > 0 pseudo-counts, got {prior}')
    num_bins = reliability.shape[2]
    statistics = reliability.double()
    centre_logits = torch.logit(bin_centres(num_bins, statistics))
    overall = statistics.sum(dim=1)[:, None]
    temperature = _fit_temperature(overall, torch.sigmoid(centre_logits), prior)
    if per_group:
        coarse = torch.sigmoid(centre_logits / temperature)
        pooled = torch.stack([group_sums(part, groups) for part in statistics])
        temperature = _fit_temperature(pooled, coarse, prior)[groups]
    else:
        temperature = temperature.expand(groups.shape[0])
    # As a shift of the centres, which is exactly nothing at T = 1.
    shift = torch.sigmoid(centre_logits / temperature[:, None]) - torch.sigmoid(centre_logits)
    result = at_least_float32(reliability)
    return bin_centres(num_bins, result) + shift.to(result.dtype)


def never_raising(table: Tensor) -> Tensor:
    """A calibrator that lowers scores as the given one does and leaves them where it raises them.

    For reliability of images that the network is trained on: its precision there bounds that on
    other images from above, so it can show over-confidence, never the opposite.

    Shape: (C, B) -> (C, B).
    """
    return torch.minimum(table, bin_centres(table.shape[1], table))


def apply_calibrator(scores: Tensor, labels: Tensor, table: Tensor) -> Tensor:
    """Calibrated confidence of scores, by linear interpolation between the bin centres.

    What is interpolated is the shift table - centre. Outside the first and the last centre the
    shift stays constant (slope 1), so the identity table returns every score exactly and a
    non-decreasing table gives a non-decreasing map.

    Args:
        scores: (N,) in [0, 1].
        labels: (N,) int64 in [0, C).
        table: (C, B).

    Returns:
        (N,) float32 in [0, 1].
    """
    scores, table = at_least_float32(scores), at_least_float32(table)
    num_bins = table.shape[1]
    shift = table - bin_centres(num_bins, table)
    position = (scores * num_bins - 0.5).clamp(0, num_bins - 1)
    left = position.floor().long()
    right = (left + 1).clamp_max(num_bins - 1)
    change = torch.lerp(shift[labels, left], shift[labels, right], position - left)
    return (scores + change).clamp(0, 1)


def soft_targets(scores: Tensor, labels: Tensor, confidence: Tensor) -> Tensor:
    """Soft pseudo-labels: the given class at its confidence, the rest rescaled.

    Args:
        scores: (K, C+1) probabilities, background last.
        labels: (K,) int64, the class of each instance.
        confidence: (K,) calibrated confidence in [0, 1].

    Returns:
        (K, C+1) float32, rows sum to 1. Where the other classes have no probability, what is left
        goes to background.
    """
    scores = at_least_float32(scores)
    confidence = confidence.to(scores.dtype)[:, None]
    others = scores.scatter(1, labels[:, None], 0)
    mass = others.sum(dim=1, keepdim=True)
    left = 1 - confidence
    others = others * (left / mass.clamp_min(_NO_MASS))
    nobody = torch.zeros_like(others)
    nobody[:, -1:] = left
    return torch.where(mass > _NO_MASS, others, nobody).scatter_add(1, labels[:, None], confidence)


def _range_sums(values: Tensor) -> Tensor:
    """Sums (..., B, B) of values[j..k] at [..., j, k]; meaningless below the diagonal."""
    running = torch.nn.functional.pad(cumulative_sum(values), (1, 0))
    return running[..., None, 1:] - running[..., :-1, None]


def _fit_temperature(statistics: Tensor, prior_accuracy: Tensor, prior: float) -> Tensor:
    """Temperatures (R,) of statistics (3, R, B) with pseudo-counts at ``prior_accuracy`` (B,)."""
    count, correct, confidence = statistics
    num_bins = count.shape[1]
    centres = bin_centres(num_bins, count)
    seen = count > 0
    observed = torch.where(seen, confidence / count.clamp_min(_NO_MASS), centres)
    observed = torch.logit(observed, eps=1e-6)

    # An odd size: the middle of the grid is T = 1.
    exponents = torch.linspace(-1, 1, _GRID_SIZE, dtype=count.dtype, device=count.device)
    grid = (exponents * math.log(_MAX_TEMPERATURE)).exp()[:, None, None]
    share = prior / num_bins
    cost = _binomial_cost(observed / grid, count, correct)
    cost = cost + _binomial_cost(torch.logit(centres) / grid, share, share * prior_accuracy)
    return grid.flatten()[cost.argmin(dim=0)]


def _binomial_cost(logits: Tensor, count: Tensor | float, correct: Tensor) -> Tensor:
    """Negative log-likelihood of ``correct`` out of ``count`` at sigmoid(logits), summed over B."""
    return (count * torch.nn.functional.softplus(logits) - correct * logits).sum(dim=-1)
