"""What mattered when labelling settings were tuned. Shape letter: **P** trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmdet_softpl.reporting.figure import (
    FONT_SIZE,
    GREY,
    PALETTE,
    new_figure,
    say,
    style_axes,
)

MAX_BARS = 10


def draw_tuning(
    importances: Mapping[str, float],
    trials: Sequence[Mapping],
    front: Sequence[bool],
    start: Mapping[str, float],
    best: Mapping[str, float],
    verdict: str,
) -> Figure:
    """Importances, the best proxy so far, and recall against precision with its front.

    Args:
        importances: Parameter to its share of the variance of the proxy.
        trials: P dicts with ``proxy``, ``learned_precision``, ``learned_recall``, in order.
        front: (P,) bool, the trials that no other one beats in precision and recall.
        start: The same of the config's own settings.
        best: Of the chosen ones.
        verdict: What the images say that were not tuned on, above the picture.
    """
    figure = new_figure(height=3.4)
    figure.suptitle(verdict, fontsize=FONT_SIZE + 1)
    bars, course, trade = figure.subplots(1, 3, width_ratios=(1.1, 1, 1))
    for axes in (bars, course, trade):
        style_axes(axes)
    _draw_importances(bars, importances)

    proxies = np.array([trial['proxy'] for trial in trials])
    course.plot(proxies, linestyle='none', marker='.', markersize=3, color=PALETTE[5])
    course.plot(np.maximum.accumulate(proxies), color=PALETTE[0], label='best so far')
    course.axhline(start['proxy'], color=GREY, linestyle='--', linewidth=0.9, label='config')
    # A few bad starts would squeeze everything else into a line.
    low = np.quantile(proxies, 0.1) if len(proxies) else 0.0
    top = max(proxies.max(initial=start['proxy']), start['proxy'])
    low = min(low, start['proxy'])
    margin = 0.05 * max(top - low, 0.02)
    course.set_ylim(low - margin, top + margin)
    course.set_title('proxy (tuning half)', fontsize=FONT_SIZE + 1)
    course.set_xlabel('trial', fontsize=FONT_SIZE)
    course.legend(fontsize=FONT_SIZE - 1, frameon=False, loc='lower right')

    points = np.array([(t['learned_recall'], t['learned_precision']) for t in trials])
    points = points.reshape(-1, 2)
    chosen = np.asarray(front, dtype=bool)
    trade.plot(*points.T, linestyle='none', marker='.', markersize=3, color=PALETTE[5])
    line = points[chosen][np.argsort(points[chosen][:, 0])]
    trade.plot(*line.T, color=PALETTE[0], linewidth=1.2, marker='o', markersize=4, label='front')
    for values, label, marker, color in (
        (start, 'config', 's', GREY),
        (best, 'chosen', '*', PALETTE[3]),
    ):
        trade.plot(
            values['learned_recall'],
            values['learned_precision'],
            linestyle='none',
            marker=marker,
            markersize=9,
            color=color,
            markeredgecolor='black',
            markeredgewidth=0.5,
            label=label,
        )
    trade.set_title('labels learned from (tuning half)', fontsize=FONT_SIZE + 1)
    trade.set_xlabel('recall, mean of groups', fontsize=FONT_SIZE)
    trade.set_ylabel('precision, mean of groups', fontsize=FONT_SIZE)
    trade.legend(fontsize=FONT_SIZE - 1, frameon=False)
    return figure


def _draw_importances(axes: Axes, importances: Mapping[str, float]) -> None:
    axes.set_title('what mattered', fontsize=FONT_SIZE + 1)
    if not importances:
        say(axes, 'too few trials to tell')
        axes.set_yticks([])
        return
    names = sorted(importances, key=lambda name: importances[name], reverse=True)[:MAX_BARS]
    values = [importances[name] for name in names]
    position = np.arange(len(names))
    axes.barh(position, values, color=PALETTE[0])
    labels = [name.replace('prototype_weight_', 'prototype weight ') for name in names]
    axes.set_yticks(position, labels, fontsize=FONT_SIZE - 1)
    axes.invert_yaxis()
    axes.set_xlabel('share of the variance of the proxy', fontsize=FONT_SIZE)
