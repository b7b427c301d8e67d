"""Pseudo-labels per class against the labelled counts. Shape letter: **C** classes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from matplotlib.figure import Figure

from mmdet_softpl.functional.frequency import GROUP_NAMES
from mmdet_softpl.reporting.figure import (
    FONT_SIZE,
    GROUP_COLORS,
    PALETTE,
    SMALL_FONT_SIZE,
    check_lengths,
    new_figure,
    say,
    style_axes,
    to_numpy,
)

# More names than this cannot be read at the width of a README.
MAX_NAMES = 60
BAR = '#A6A6A6'


def draw_class_counts(
    class_names: Sequence[str],
    labeled_counts: Sequence[float],
    pseudo_counts: Sequence[float],
    groups: Sequence[int],
) -> Figure:
    """Instances per class: labelled (bars) and pseudo-labelled (dots), on a log axis.

    Classes stand in descending order of labelled instances, their frequency group is shaded,
    and a cross marks the classes that never got a pseudo-label.

    Args:
        class_names: (C,).
        labeled_counts: (C,) labelled instances.
        pseudo_counts: (C,) kept pseudo-instances, on whatever number of images; fractions (an
            average per image or per epoch) are fine.
        groups: (C,) 0 rare, 1 common, 2 frequent.

    Raises:
        ValueError: Lengths differ.
    """
    labeled, pseudo = to_numpy(labeled_counts), to_numpy(pseudo_counts)
    group = to_numpy(groups)
    check_lengths(
        'draw_class_counts',
        len(class_names),
        labeled_counts=labeled,
        pseudo_counts=pseudo,
        groups=group,
    )
    figure = new_figure(height=3.4)
    axes = figure.subplots()
    style_axes(axes)
    if len(class_names) == 0:
        say(axes, 'no classes')
        return figure

    order = np.argsort(-labeled, kind='stable')
    labeled, pseudo, group = labeled[order], pseudo[order], group[order]
    position = np.arange(len(order))
    shaded: set[int] = set()
    for value, run in groupby(position, key=lambda i: int(group[i])):
        places = list(run)
        axes.axvspan(
            places[0] - 0.5,
            places[-1] + 0.5,
            color=GROUP_COLORS[value],
            alpha=0.12,
            linewidth=0,
            label=None if value in shaded else f'{GROUP_NAMES[value]} classes',
        )
        shaded.add(value)
    axes.bar(position, labeled, width=0.8, color=BAR, label='labelled')
    got = pseudo > 0
    axes.plot(
        position[got],
        pseudo[got],
        linestyle='none',
        marker='o',
        markersize=4 if len(order) <= MAX_NAMES else 2,
        color=PALETTE[0],
        label='pseudo-labelled',
    )
    positive = np.concatenate((labeled[labeled > 0], pseudo[got]))
    floor = 0.5 * min(1.0, positive.min()) if len(positive) else 0.5
    axes.plot(
        position[~got],
        np.full(int((~got).sum()), floor * 1.3),
        linestyle='none',
        marker='x',
        markersize=5 if len(order) <= MAX_NAMES else 3,
        color='black',
        label=f'never pseudo-labelled ({int((~got).sum())} of {len(order)})',
    )
    axes.set_yscale('log')
    axes.set_ylim(bottom=floor)
    axes.set_xlim(-0.5, len(order) - 0.5)
    axes.set_ylabel('instances', fontsize=FONT_SIZE)
    if len(order) <= MAX_NAMES:
        axes.set_xticks(
            position,
            [class_names[i] for i in order],
            rotation=60,
            ha='right',
            rotation_mode='anchor',
            fontsize=SMALL_FONT_SIZE,
        )
    else:
        axes.set_xlabel('classes, by labelled instances', fontsize=FONT_SIZE)
    figure.legend(loc='outside upper center', ncols=3, fontsize=FONT_SIZE, frameon=False)
    return figure
