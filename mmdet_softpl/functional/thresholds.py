"""Per-class score thresholds from histograms of the teacher's scores.

Shape letters: **N** detections, **C** foreground classes, **S** equal score bins on [0, 1],
**R** histogram rows (classes, groups, all).
Source: "Per-class thresholds" in docs/DESIGN.md, 4. The modes follow the ideas of LabelMatch
(arXiv 2206.06608, `prior`), FlexMatch (arXiv 2110.08263, `curriculum`) and CascadeMatch
(arXiv 2305.14813, `quantile`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._tensor import at_least_float32, class_bin_sums, cumulative_sum
from .frequency import GROUP_NAMES

THRESHOLD_MODES = ('prior', 'curriculum', 'quantile', 'fixed')


def score_histogram(scores: Tensor, labels: Tensor, num_classes: int, num_bins: int) -> Tensor:
    """Count detections per class and score bin.

    Args:
        scores: (N,) in [0, 1].
        labels: (N,) integers; those outside [0, C) are ignored.
        num_classes: C.
        num_bins: S.

    Returns:
        (C, S) float32 counts. They add up over batches and ranks.
    """
    ones = at_least_float32(scores).new_ones(1, scores.shape[0])
    return class_bin_sums(ones, scores, labels, num_classes, num_bins)[0]


def prior_thresholds(
    histogram: Tensor, num_images: float, labelled_rate: Tensor, alpha: float = 0.2
) -> Tensor:
    """Score at which a class would get the fraction alpha of its labelled rate (LabelMatch).

    Args:
        histogram: (R, S) detections over ``num_images`` images.
        num_images: images behind the histogram.
        labelled_rate: (R,) labelled instances per image.
        alpha: fraction of the labelled rate, > 0.

    Returns:
        (R,) in [0, 1], interpolated inside a bin. The number aimed at is never less than 1; with
        fewer detections than that the threshold is 0.
    """
    histogram = at_least_float32(histogram)
    wanted = (alpha * num_images * labelled_rate.to(histogram)).clamp_min(1)
    return _score_of_rank(histogram, wanted)


def curriculum_thresholds(
    histogram: Tensor, num_images: float, labelled_rate: Tensor, base: float = 0.9
) -> Tensor:
    """Lower the threshold of classes that are learned less far (FlexMatch, per expected rate).

    b_c = min(detections above base / expected instances, 1), divided by the largest b;
    threshold = base * b / (2 - b). Without the division by what is expected, every rare class
    would look unlearned. The limit of 1 keeps one class that is detected too often from pulling
    all the others down.

    Args:
        histogram: (R, S) detections over ``num_images`` images.
        num_images: images behind the histogram.
        labelled_rate: (R,) labelled instances per image; at least one instance is expected.
        base: threshold of a fully learned class, in (0, 1].

    Returns:
        (R,) in [0, base]; ``base`` for all where no class has a detection above it, since then
        nothing tells them apart.
    """
    histogram = at_least_float32(histogram)
    num_bins = histogram.shape[1]
    lower_edges = torch.arange(num_bins, dtype=histogram.dtype, device=histogram.device)
    share_above = (lower_edges + 1 - base * num_bins).clamp(0, 1)
    confident = histogram @ share_above
    expected = (num_images * labelled_rate.to(histogram)).clamp_min(1)
    learned = (confident / expected).clamp_max(1)
    best = learned.max()
    learned = torch.where(
        best > 0, learned / best.clamp_min(torch.finfo(best.dtype).tiny), torch.ones_like(learned)
    )
    return base * learned / (2 - learned)


def quantile_thresholds(histogram: Tensor, q: float = 0.5) -> Tensor:
    """Score below which the fraction ``q`` of a class's detections lies (CascadeMatch).

    Args:
        histogram: (R, S) detections.
        q: in [0, 1].

    Returns:
        (R,) in [0, 1], interpolated inside a bin; 1 for a class without detections.
    """
    histogram = at_least_float32(histogram)
    return _score_of_rank(histogram, (1 - q) * histogram.sum(dim=1))


def per_class_thresholds(
    mode: str,
    histogram: Tensor,
    num_images: float,
    labelled_rate: Tensor,
    groups: Tensor,
    *,
    fixed: float = 0.7,
    alpha: float = 0.2,
    quantile: float = 0.5,
    min_count: int = 20,
    lower: float = 0.3,
    upper: float = 0.9,
) -> Tensor:
    """Thresholds of all classes in one of the modes, with a fallback where scores are few.

    A class with fewer than ``min_count`` detections takes the threshold of its frequency group
    (pooled histogram, summed rate), a group with fewer that of all classes, and with fewer than
    that altogether everything is ``fixed``.

    Args:
        mode: one of ``THRESHOLD_MODES``.
        histogram: (C, S) detections over ``num_images`` images.
        num_images: images behind the histogram.
        labelled_rate: (C,) labelled instances per image.
        groups: (C,) int64 frequency groups.
        fixed: the threshold of mode ``fixed``, and the last fallback.
        alpha: of mode ``prior``.
        quantile: of mode ``quantile``.
        min_count: detections that a histogram needs to be trusted.
        lower: smallest threshold.
        upper: largest threshold; the base of mode ``curriculum``.

    Returns:
        (C,) in [lower, upper]; in mode ``fixed`` the value given, not clipped.

    Raises:
        ValueError: unknown mode, or not 0 <= lower <= upper <= 1.
    """
    if mode not in THRESHOLD_MODES:
        raise ValueError(f'unknown threshold mode {mode!r}; known: {", ".join(THRESHOLD_MODES)}')
    if not 0 <= lower <= upper <= 1:
        raise ValueError(
            f'thresholds need 0 <= lower <= upper <= 1, got lower={lower}, upper={upper}'
        )
    histogram = at_least_float32(histogram)
    last = torch.full_like(histogram[:, 0], fixed)
    if mode == 'fixed':
        return last

    num_classes = histogram.shape[0]
    pooled, rate = _with_pooled_rows(histogram, labelled_rate.to(histogram), groups)
    trusted = pooled.sum(dim=1) >= min_count
    # Emptied, a row that is not trusted cannot set the scale of the curriculum either.
    pooled = pooled * trusted[:, None]
    if mode == 'prior':
        rows = prior_thresholds(pooled, num_images, rate, alpha)
    elif mode == 'curriculum':
        rows = curriculum_thresholds(pooled, num_images, rate, upper)
    else:
        rows = quantile_thresholds(pooled, quantile)

    group_rows = num_classes + groups
    thresholds = torch.where(trusted[-1], rows[-1], last)
    thresholds = torch.where(trusted[group_rows], rows[group_rows], thresholds)
    thresholds = torch.where(trusted[:num_classes], rows[:num_classes], thresholds)
    return thresholds.clamp(lower, upper)


def damp(
    boost: Tensor,
    kept_rate: Tensor,
    labelled_rate: Tensor,
    strikes: Tensor,
    factor: float = 2.0,
    patience: int = 3,
    decay: float = 0.8,
) -> tuple[Tensor, Tensor, Tensor]:
    """Damp classes that keep getting more pseudo-labels than their labelled rate allows.

    A class kept more than ``factor`` times its labelled rate gets a strike, any other loses all
    of its strikes. From ``patience`` strikes on it is damped at every call until it is back below.

    Args:
        boost: (C,) > 0.
        kept_rate: (C,) pseudo-instances kept per image since the last call.
        labelled_rate: (C,) labelled instances per image.
        strikes: (C,) calls in a row with too many.
        factor: > 0.
        patience: >= 1.
        decay: of the boost, in (0, 1).

    Returns:
        boost (C,), damped ones above 1 times ``decay`` but not below 1; strikes (C,); and which
        classes were damped, (C,) bool. Where the boost is 1 already, the caller can raise the
        threshold.
    """
    too_many = kept_rate > factor * labelled_rate
    strikes = torch.where(too_many, strikes + 1, torch.zeros_like(strikes))
    damped = strikes >= patience
    boost = torch.where(damped & (boost > 1), (boost * decay).clamp_min(1), boost)
    return boost, strikes, damped


def _score_of_rank(histogram: Tensor, rank: Tensor) -> Tensor:
    """Score at or above which ``rank`` (R,) detections of each row (R, S) lie.

    Detections are taken as spread evenly inside their bin. 0 where a row has fewer.
    """
    num_bins = histogram.shape[1]
    at_or_above = cumulative_sum(histogram.flip(1)).flip(1)
    last = (at_or_above >= rank[:, None]).sum(dim=1) - 1
    inside = last.clamp_min(0)[:, None]
    in_bin = histogram.gather(1, inside)[:, 0]
    above = at_or_above.gather(1, inside)[:, 0] - in_bin
    part = ((rank - above) / in_bin.clamp_min(torch.finfo(in_bin.dtype).tiny)).clamp(0, 1)
    score = (inside[:, 0] + 1 - part) / num_bins
    return torch.where(last >= 0, score, torch.zeros_like(score))


def _with_pooled_rows(histogram: Tensor, rate: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Append the rows of the frequency groups and of all classes: (C + G + 1, S), (C + G + 1,)."""
    joint = torch.cat([histogram, rate[:, None]], dim=1)
    by_group = joint.new_zeros(len(GROUP_NAMES), joint.shape[1]).index_add(0, groups, joint)
    rows = torch.cat([joint, by_group, joint.sum(dim=0, keepdim=True)])
    return rows[:, :-1], rows[:, -1]
