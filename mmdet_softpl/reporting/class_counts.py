"""Pseudo-labels per class against the labelled counts. Shape letter: **C** classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from mmdet_softpl.reporting.class_axis import MAX_NAMES, name_classes, shade_groups
from mmdet_softpl.reporting.figure import (
    FONT_SIZE,
    PALETTE,
    check_lengths,
    new_figure,
    say,
    style_axes,
    to_numpy,
)

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
    shade_groups(axes, group)
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
    axes.set_ylabel('instances', fontsize=FONT_SIZE)
    name_classes(axes, [class_names[i] for i in order], 'classes, by labelled instances')
    figure.legend(loc='outside upper center', ncols=3, fontsize=FONT_SIZE, frameon=False)
    return figure
