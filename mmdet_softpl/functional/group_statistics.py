"""Statistics of classes by frequency group.

Shape letters: **C** foreground classes, **G** = 3 frequency groups.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._tensor import at_least_float32
from .frequency import GROUP_NAMES


def group_sums(values: Tensor, groups: Tensor) -> Tensor:
    """Sum over the classes of each frequency group.

    Args:
        values: (C, ...).
        groups: (C,) int64 in [0, G).

    Returns:
        (G, ...).
    """
    return values.new_zeros(len(GROUP_NAMES), *values.shape[1:]).index_add(0, groups, values)


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
    total, count = group_sums(pairs, groups).unbind(dim=1)
    return total / count


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
    group_num, group_den = group_sums(numerator, groups), group_sums(denominator, groups)
    group_ratio = (group_num + prior * ratio) / (group_den + prior)
    return (numerator + prior * group_ratio[groups]) / (denominator + prior)
