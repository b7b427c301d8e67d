"""Pictures of a data set before training: class counts and image sizes.

Shape letters: C classes, I images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from mmdet_softpl.reporting.class_axis import MAX_NAMES, name_classes, shade_groups
from mmdet_softpl.reporting.class_counts import BAR
from mmdet_softpl.reporting.figure import (
    FONT_SIZE,
    PALETTE,
    check_lengths,
    new_figure,
    say,
    style_axes,
    to_numpy,
)

# More points would hide each other and make the file large.
_MAX_POINTS = 5000


def draw_class_curve(
    class_names: Sequence[str],
    image_counts: Sequence[int],
    groups: Sequence[int],
    validation_counts: Sequence[int] | None = None,
    expected_labels: Sequence[float] | None = None,
) -> Figure:
    """Images per class on a log axis, the commonest first, frequency groups shaded.

    Args:
        class_names: (C,).
        image_counts: (C,) labelled images that show the class; a class with none has no bar.
        groups: (C,) 0 rare, 1 common, 2 frequent.
        validation_counts: (C,) validation images, drawn as dots.
        expected_labels: (C,) expected pseudo-labels on all unlabelled images, drawn as a line.

    Raises:
        ValueError: lengths differ.
    """
    counts, group = to_numpy(image_counts), to_numpy(groups)
    check_lengths(
        'draw_class_curve',
        len(class_names),
        image_counts=counts,
        groups=group,
        validation_counts=counts if validation_counts is None else to_numpy(validation_counts),
        expected_labels=counts if expected_labels is None else to_numpy(expected_labels),
    )
    figure = new_figure(height=3.4)
    axes = figure.subplots()
    style_axes(axes)
    if len(class_names) == 0:
        say(axes, 'no classes')
        return figure
    order = np.argsort(-counts, kind='stable')
    position = np.arange(len(order))
    shade_groups(axes, group[order])
    axes.bar(position, counts[order], width=0.8, color=BAR, label='labelled images')
    shown = [counts[counts > 0]]
    small = len(order) > MAX_NAMES
    for values, label, marker, color, size in (
        (validation_counts, 'validation images', 'o', PALETTE[0], 2 if small else 4),
        (expected_labels, 'expected pseudo-labels', '_', 'black', 3 if small else 12),
    ):
        if values is None:
            continue
        column = to_numpy(values)[order].astype(float)
        column[column <= 0] = np.nan
        axes.plot(
            position,
            column,
            linestyle='none',
            marker=marker,
            markersize=size,
            markeredgewidth=1.5,
            color=color,
            label=label,
        )
        shown.append(column[np.isfinite(column)])
    positive = np.concatenate(shown)
    if len(positive):
        axes.set_yscale('log')
        axes.set_ylim(bottom=0.5 * min(1.0, positive.min()))
    axes.set_ylabel('images or labels', fontsize=FONT_SIZE)
    name_classes(axes, [class_names[i] for i in order], 'classes, by labelled images')
    figure.legend(loc='outside upper center', ncols=3, fontsize=FONT_SIZE, frameon=False)
    return figure


def draw_image_sizes(sizes: Mapping[str, Sequence[tuple[int, int]]]) -> Figure:
    """Width against height of the images, one colour a set.

    Args:
        sizes: name of a set -> (I, 2) widths and heights in pixels; sets without one are left
            out, of large ones 5,000 images are drawn, evenly spaced.
    """
    figure = new_figure(height=4.2, width=5.0)
    axes = figure.subplots()
    style_axes(axes)
    drawn = {name: np.asarray(rows, dtype=float) for name, rows in sizes.items() if len(rows)}
    if not drawn:
        say(axes, 'no image')
        return figure
    largest = max(rows.max() for rows in drawn.values()) * 1.08
    axes.plot([0, largest], [0, largest], linestyle='--', linewidth=0.8, color='#7F7F7F')
    for index, (name, rows) in enumerate(drawn.items()):
        step = -(-len(rows) // _MAX_POINTS)
        axes.plot(
            *rows[::step].T,
            linestyle='none',
            marker='osD^vP'[index % 6],
            markersize=9 - 2 * min(index, 3),
            markerfacecolor='none',
            color=PALETTE[index % len(PALETTE)],
            alpha=0.7,
            label=f'{name} ({len(rows):,})',
        )
    axes.set_xlim(0, largest)
    axes.set_ylim(0, largest)
    axes.set_aspect('equal')
    axes.set_xlabel('width in pixels', fontsize=FONT_SIZE)
    axes.set_ylabel('height in pixels', fontsize=FONT_SIZE)
    figure.legend(loc='outside upper center', ncols=2, fontsize=FONT_SIZE, frameon=False)
    return figure
