"""What unlabelled images save: the labels that would have bought the same AP.

Shape letters: **S** labelled sizes of the labelled-only curve, **R** draws.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mmdet_softpl.functional import isotonic

WITHIN, ABOVE, BELOW, FLAT = 'within', 'above', 'below', 'flat'
# Draws on one side of the curve above which that end of the interval is unknown.
TAIL = 0.025


def equivalent_labels(labels: np.ndarray, aps: np.ndarray, ap: float) -> tuple[float, str]:
    """Labelled instances at which training on labels alone reaches ``ap``.

    The curve is made non-decreasing (least squares) and is linear in log(labels) between its
    points. It is not continued beyond them.

    Args:
        labels: (S,) ascending, > 0.
        aps: (S,) AP of training on so many labels.
        ap: The AP to reach.

    Returns:
        The number, and ``'within'``; or the last number and ``'above'`` where the curve never
        gets there; or the first and ``'below'`` where it starts higher.

    Raises:
        ValueError: Fewer than two points, or labels that are not ascending.
    """
    if len(labels) < 2 or (np.diff(labels) <= 0).any():
        raise ValueError(
            f'the labelled-only curve needs at least two different numbers of labels, ascending; '
            f'got {list(labels)}'
        )
    curve = _non_decreasing(aps)
    if ap > curve[-1]:
        return float(labels[-1]), ABOVE
    if ap < curve[0]:
        return float(labels[0]), BELOW
    # The first point that is high enough: on a plateau the fewest labels count.
    right = int(np.argmax(curve >= ap))
    if right == 0:
        return float(labels[0]), WITHIN
    low, high = curve[right - 1], curve[right]
    part = (ap - low) / (high - low)
    logs = np.log(labels[right - 1 : right + 1])
    return float(np.exp(logs[0] + part * (logs[1] - logs[0]))), WITHIN


def _non_decreasing(aps: np.ndarray) -> np.ndarray:
    return isotonic(torch.as_tensor(aps).double(), torch.ones(len(aps))).numpy()


def _rises(aps: np.ndarray) -> bool:
    curve = _non_decreasing(aps)
    return bool(curve[-1] - curve[0] > 1e-12)


def _span(labels: np.ndarray, aps: np.ndarray, ap: float) -> tuple[float, float, bool, bool]:
    """Fewest and most labels that reach ``ap`` and no more, and whether either is but a bound.

    They differ where the curve is flat at ``ap``, as APr is at 0 in short trainings. A curve that
    is flat up to one of its ends says nothing of what lies beyond it, and one that does not rise
    at all nothing.
    """
    if not _rises(aps):
        return float(labels[0]), float(labels[-1]), True, True
    flat = np.flatnonzero(np.isclose(_non_decreasing(aps), ap, rtol=0, atol=1e-12))
    if len(flat) > 1:
        first, last = flat[0], flat[-1]
        return float(labels[first]), float(labels[last]), first == 0, last == len(labels) - 1
    number, place = equivalent_labels(labels, aps, ap)
    return number, number, place == BELOW, place == ABOVE


def annotation_return(
    labels: np.ndarray,
    curve: np.ndarray,
    own_labels: float,
    ap: float,
    *,
    curve_draws: np.ndarray,
    ap_draws: np.ndarray,
    seconds: float = 79.0,
) -> dict[str, Any]:
    """Hours of annotation that unlabelled images save at the same AP, with their uncertainty.

    Args:
        labels: (S,) labelled instances of the labelled-only trainings, ascending.
        curve: (S,) their AP.
        own_labels: Labelled instances of the training with unlabelled images.
        ap: Its AP.
        curve_draws: (R, S) APs of labels alone in R draws of images and seeds; R may be 0.
        ap_draws: (R,) APs with unlabelled images in the same draws.
        seconds: To annotate an instance, > 0.

    Returns:
        ``hours`` and ``place`` (where the AP lies on the curve, see :func:`equivalent_labels`; of
        several numbers of labels that reach it, the one nearest to ``own_labels``; ``'flat'`` where
        the curve does not rise, so that no AP stands for a number of labels);
        ``low`` and ``high``, the 95 % interval: None where the draws leave the curve at that end,
        so that only the other end is known, or where there are no draws; ``verdict``:
        ``'saves'``, ``'costs'`` or ``'cannot tell'``.
    """
    place = equivalent_labels(labels, curve, ap)[1] if _rises(curve) else FLAT
    fewest, most, _, _ = _span(labels, curve, ap)
    number = own_labels if place == FLAT else min(max(own_labels, fewest), most)
    hours = (number - own_labels) * seconds / 3600
    result: dict[str, Any] = dict(
        own_labels=own_labels, equivalent_labels=number, hours=hours, place=place
    )
    drawn = [
        _span(labels, points, value) for points, value in zip(curve_draws, ap_draws, strict=True)
    ]
    if not drawn:
        return dict(result, low=None, high=None, verdict='cannot tell')
    values = (np.array([item[:2] for item in drawn]) - own_labels) * seconds / 3600
    low = float(np.quantile(values[:, 0], TAIL))
    high = float(np.quantile(values[:, 1], 1 - TAIL))
    # A draw beyond the curve counts with the curve's end: a bound, not a value.
    open_below, open_above = (np.array([item[2:] for item in drawn]).mean(axis=0) > TAIL).tolist()
    verdict = 'cannot tell'
    if low > 0 and not open_below:
        verdict = 'saves'
    elif high < 0 and not open_above:
        verdict = 'costs'
    return dict(
        result,
        low=None if open_below else low,
        high=None if open_above else high,
        verdict=verdict,
    )
