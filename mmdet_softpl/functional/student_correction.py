"""What the student corrects of the teacher's calibration: offsets of its logits.

Shape letters: **K** pseudo-instances, **C** foreground classes (background has index C), **G** = 3
frequency groups.
Source: "Student-side correction" in docs/DESIGN.md, 4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._tensor import at_least_float32
from .group_statistics import shrink_to_groups

#: Largest offset of a logit, of one step and of their sum; exp(2) is a factor of 7.
MAX_OFFSET = 2.0


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
) -> Tensor:
    """Log-offsets by which the teacher expects too much of each class: one step.

    d_c = clip(log r_c, -2, 2), r_c = (expected_c + k r_g) / (observed_c + k), and so on
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

    Returns:
        (C,) float32; 0 without statistics. The offset of background is 0 by definition.

    Raises:
        ValueError: prior <= 0.
    """
    ratio = shrink_to_groups(expected, observed, groups, prior, base=1.0)
    return ratio.log().clamp(-MAX_OFFSET, MAX_OFFSET)
