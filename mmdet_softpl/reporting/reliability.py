"""Reliability diagrams per frequency group.

Shape letters: **C** foreground classes, **B** confidence bins, **G** = 3 frequency groups.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from mmdet_softpl.functional.frequency import GROUP_NAMES
from mmdet_softpl.functional.reliability import expected_calibration_error
from mmdet_softpl.reporting.figure import (
    FONT_SIZE,
    GREY,
    PALETTE,
    check_lengths,
    new_figure,
    say,
    style_axes,
    to_numpy,
)

SERIES = (('score', PALETTE[1], 's'), ('confidence', PALETTE[0], 'o'))


def draw_reliability(
    reliability: Tensor,
    groups: Sequence[int] | Tensor,
    after: Tensor | None = None,
    class_counts: Sequence[int] | None = None,
) -> Figure:
    """Accuracy against confidence for rare, common and frequent classes, counts below.

    A point is one confidence bin: its mean confidence and the share of it that was right; on the
    diagonal the two agree. The expected calibration error of the group's detections is in the
    title.

    Args:
        reliability: (3, C, B) counts, correct and confidence sums, as made by
            :func:`mmdet_softpl.functional.reliability.reliability_counts`.
        groups: (C,) 0 rare, 1 common, 2 frequent.
        after: (3, C, B) of the confidences, to compare with ``reliability`` as that of scores.
        class_counts: (G,) classes of each group for its title, where the rows are sums over
            classes; None: the rows of the group.

    Raises:
        ValueError: Lengths differ.
    """
    group = to_numpy(groups)
    tensors = [torch.as_tensor(reliability).detach().cpu()]
    if after is not None:
        tensors.append(torch.as_tensor(after).detach().cpu())
    for tensor in tensors:
        check_lengths('draw_reliability', tensor.shape[1], groups=group)
    figure = new_figure(height=3.6)
    grid = figure.subplots(2, len(GROUP_NAMES), height_ratios=(3, 1), sharex=True, squeeze=False)
    for column, name in enumerate(GROUP_NAMES):
        members = torch.from_numpy(group == column)
        parts = [tensor[:, members] for tensor in tensors]
        count = int(members.sum()) if class_counts is None else class_counts[column]
        _draw_group(grid[0, column], grid[1, column], f'{name} ({count} classes)', parts)
    grid[0, 0].set_ylabel('share right', fontsize=FONT_SIZE)
    grid[1, 0].set_ylabel('detections', fontsize=FONT_SIZE)
    if after is not None:
        figure.legend(
            *grid[0, 0].get_legend_handles_labels(),
            loc='outside lower center',
            ncols=2,
            fontsize=FONT_SIZE,
            frameon=False,
        )
    return figure


def _draw_group(curve: Axes, histogram: Axes, title: str, parts: Sequence[Tensor]) -> None:
    """One panel: (3, c, B) of the c classes of a group, before and, if given, after."""
    for axes in (curve, histogram):
        style_axes(axes)
        axes.set_xlim(0, 1)
    curve.set_ylim(0, 1)
    curve.plot([0, 1], [0, 1], linestyle='--', linewidth=0.8, color=GREY)
    histogram.set_xlabel('confidence', fontsize=FONT_SIZE)
    num_bins = parts[0].shape[-1]
    edges = np.linspace(0, 1, num_bins + 1)
    errors = []
    for part, (label, color, marker) in zip(parts, SERIES, strict=False):
        count, correct, confidence = part.double().sum(dim=1).numpy()
        seen = count > 0
        errors.append(float(expected_calibration_error(part)) if seen.any() else float('nan'))
        curve.plot(
            confidence[seen] / count[seen],
            correct[seen] / count[seen],
            color=color,
            marker=marker,
            markersize=4,
            linewidth=1.4,
            label=label,
        )
        histogram.stairs(count, edges, color=color, linewidth=1.2)
    if np.isnan(errors).all():
        say(curve, 'no detections')
        histogram.set_yticks([])
    else:
        histogram.set_yscale('symlog', linthresh=1)
    curve.set_title(
        f'{title}, ECE ' + ' → '.join(map(_error, errors)),
        fontsize=FONT_SIZE + 1,
    )


def _error(value: float) -> str:
    return '-' if np.isnan(value) else f'{value:.3f}'
