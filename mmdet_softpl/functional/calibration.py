"""Reliability statistics, calibrators, calibration errors and what the student corrects.

Shape letters: **N** detections, **K** pseudo-instances, **C** foreground classes (background has
index C), **B** equal confidence bins on [0, 1], **G** = 3 frequency groups.
A *reliability* tensor (3, C, B) holds count, correct and summed confidence per class and bin; it
adds up over batches and ranks. A *calibrator* is a table (C, B): the calibrated confidence at the
bin centres.
Source: "Calibration" and "Student-side correction" in docs/DESIGN.md, 4; expected calibration
error and temperature: arXiv 1706.04599.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ._tensor import at_least_float32, bin_centres, class_bin_sums, cumulative_sum
from .frequency import GROUP_NAMES

_MAX_TEMPERATURE = 10.0
_GRID_SIZE = 2001
_NO_MASS = 1e-12


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


def group_mean(values: Tensor, groups: Tensor) -> Tensor:
    """Mean of values (C,) over each frequency group, nan ignored.

    Args:
        values: (C,), nan where unknown.
        groups: (C,) int64 in [0, G).

    Returns:
        (G,); nan for a group without a known value.
    """
    values = at_least_float32(values)
    known = ~values.isnan()
    pairs = torch.stack([values.nan_to_num(0), known.to(values.dtype)], dim=1)
    total, count = _group_sums(pairs, groups).unbind(dim=1)
    return total / count


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


def shrink_to_groups(
    numerator: Tensor,
    denominator: Tensor,
    groups: Tensor,
    prior: float = 20.0,
    base: Tensor | float | None = None,
) -> Tensor:
    """Ratio per class, shrunk toward its frequency group's, and that toward all classes'.

    r_c = (num_c + k r_g) / (den_c + k), r_g = (num_g + k r) / (den_g + k), with k pseudo-counts.

    Args:
        numerator: (C, ...).
        denominator: (C, ...), >= 0.
        groups: (C,) int64 in [0, G).
        prior: k > 0.
        base: what the ratio of all classes is itself shrunk toward with k pseudo-counts, a number
            or (...); None: it is taken as it is, 0 where the denominator is 0.

    Returns:
        (C, ...) float32.

    Raises:
        ValueError: prior <= 0.
    """
    if prior <= 0:
        raise ValueError(f'prior of the shrinkage must be > 0 pseudo-counts, got {prior}')
    numerator, denominator = at_least_float32(numerator), at_least_float32(denominator)
    num_all, den_all = numerator.sum(dim=0), denominator.sum(dim=0)
    if base is None:
        ratio = num_all / den_all.clamp_min(torch.finfo(den_all.dtype).tiny)
        ratio = torch.where(den_all > 0, ratio, torch.zeros_like(ratio))
    else:
        ratio = (num_all + prior * base) / (den_all + prior)
    group_num, group_den = _group_sums(numerator, groups), _group_sums(denominator, groups)
    group_ratio = (group_num + prior * ratio) / (group_den + prior)
    return (numerator + prior * group_ratio[groups]) / (denominator + prior)


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
        pooled = torch.stack([_group_sums(part, groups) for part in statistics])
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


def expected_counts(targets: Tensor, offsets: Tensor) -> Tensor:
    """How many instances of each class the teacher's labels expect, seen through offsets d.

    sum_i softmax(log t_i - d)_c: if the teacher is softmax(log true + d), this is the sum of the
    true posteriors, whose expectation is the number of instances.

    Args:
        targets: (K, C+1) soft targets, rows sum to 1; background rows of the truth included.
        offsets: (C,) d of the foreground classes; background has 0.

    Returns:
        (C,) float32.
    """
    logits = at_least_float32(targets).clamp_min(1e-12).log()
    shifted = logits - torch.nn.functional.pad(offsets.to(logits), (0, 1))
    return shifted.softmax(dim=1)[:, :-1].sum(dim=0)


def student_offsets(
    expected: Tensor,
    observed: Tensor,
    groups: Tensor,
    prior: float = 20.0,
    limit: float = 2.0,
) -> Tensor:
    """Log-offsets by which the teacher expects too much of each class: one step.

    d_c = clip(log r_c, -limit, limit), r_c = (expected_c + k r_g) / (observed_c + k), and so on
    up through the frequency group to all classes and from there to 1. With ``expected_counts``
    under the offsets so far, repeated steps added up converge to the maximum likelihood of
    d on labelled data, where expected and observed counts are equal. One step from the sums of
    confidence and of right detections, which looks like the same, finds a twentieth of a planted
    shift (``benchmarks/decision``).

    Args:
        expected: (C,) expected instances.
        observed: (C,) labelled instances among the same samples.
        groups: (C,) int64 in [0, G).
        prior: pseudo-counts k > 0.
        limit: largest |d|, >= 0.

    Returns:
        (C,) float32; 0 without statistics. The offset of background is 0 by definition.

    Raises:
        ValueError: prior <= 0.
    """
    ratio = shrink_to_groups(expected, observed, groups, prior, base=1.0)
    return ratio.log().clamp(-limit, limit)


def _group_sums(values: Tensor, groups: Tensor) -> Tensor:
    """Sum (C, ...) over the classes of each frequency group: (G, ...)."""
    return values.new_zeros(len(GROUP_NAMES), *values.shape[1:]).index_add(0, groups, values)


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
