"""How AP moves as labelled frequencies count less."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from mmdet_softpl.reporting.figure import (
    FONT_SIZE,
    GREY,
    GROUP_COLORS,
    new_figure,
    style_axes,
)

TITLES = {'AP': 'all', 'APr': 'rare', 'APc': 'common', 'APf': 'frequent'}
COLORS = dict(zip(TITLES, ('black', *GROUP_COLORS), strict=True))


def draw_rebalancing(curve: Sequence[Mapping[str, float]], gamma: float, verdict: str) -> Figure:
    """Box AP over the strength, by frequency group.

    Args:
        curve: Dicts with ``gamma`` and box AP in [0, 1] (-1: nothing to find), ascending.
        gamma: The one that was chosen.
        verdict: What the images say that it was not chosen on, above the picture.
    """
    figure = new_figure(height=3.0)
    figure.suptitle(verdict, fontsize=FONT_SIZE + 1)
    axes = figure.subplots()
    style_axes(axes)
    for key, title in TITLES.items():
        points = [(point['gamma'], 100 * point[key]) for point in curve if point.get(key, -1) >= 0]
        if points:
            axes.plot(*zip(*points, strict=True), marker='o', color=COLORS[key], label=title)
    axes.axvline(gamma, color=GREY, linestyle='--', linewidth=0.9)
    axes.set_xlabel('strength (0: the detector as it is)', fontsize=FONT_SIZE)
    axes.set_ylabel('box AP', fontsize=FONT_SIZE)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=FONT_SIZE, frameon=False, ncols=len(TITLES))
    return figure
