"""Pictures of a pilot: threshold curves, sensitivities, AP against labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmdet_softpl.functional.frequency import GROUP_NAMES
from mmdet_softpl.reporting.figure import (
    FONT_SIZE,
    GREY,
    GROUP_COLORS,
    PALETTE,
    SMALL_FONT_SIZE,
    new_figure,
    say,
    style_axes,
)

COLUMNS = 4
KIND_STYLES = {
    'labelled': ('labelled images alone', PALETTE[1], 's', 0.99),
    'semi': ('with unlabelled images', PALETTE[0], 'o', 1.01),
}


def draw_threshold_curves(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Precision and recall of pseudo-labels against one threshold, per frequency group.

    Args:
        curves: Group name to ``threshold``, ``precision``, ``recall`` (see
            :func:`mmdet_softpl.evaluation.labelling_proxy.threshold_curves`) and, if there is one,
            ``best_threshold``.
    """
    figure = new_figure(height=3.0)
    grid = figure.subplots(1, len(GROUP_NAMES), sharey=True)
    for axes, name, color in zip(grid, GROUP_NAMES, GROUP_COLORS, strict=True):
        style_axes(axes)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel('threshold', fontsize=FONT_SIZE)
        axes.set_title(name, fontsize=FONT_SIZE + 1)
        if name not in curves:
            say(axes, 'no objects')
            continue
        curve = curves[name]
        precision = np.array([np.nan if v is None else v for v in curve['precision']], dtype=float)
        axes.plot(curve['threshold'], precision, color=color, linewidth=1.6, label='precision')
        axes.plot(
            curve['threshold'],
            curve['recall'],
            color=color,
            linewidth=1.6,
            linestyle='--',
            label='recall',
        )
        best = curve.get('best_threshold')
        if best is not None:
            axes.axvline(best, color=GREY, linewidth=0.9, linestyle=':', label=f'best: {best:.2f}')
        axes.legend(fontsize=FONT_SIZE - 1, loc='upper left', edgecolor='none', framealpha=0.9)
    return figure


def draw_sensitivity(
    found: Mapping[str, Sequence[Mapping]], groups: Sequence[str] = GROUP_NAMES
) -> Figure:
    """F-beta of every group while one setting changes; the config's own value is marked.

    Args:
        found: As :func:`mmdet_softpl.evaluation.sensitivity.sensitivity` returns it.
        groups: Names of the groups to show.
    """
    rows = -(-max(len(found), 1) // COLUMNS)
    figure = new_figure(height=2.0 * rows + 0.4)
    grid = figure.subplots(rows, COLUMNS, squeeze=False, sharey=True).ravel()
    for axes in grid[len(found) :]:
        axes.set_axis_off()
    if not found:
        say(grid[0], 'nothing was varied')
    for axes, (knob, records) in zip(grid, found.items(), strict=False):
        style_axes(axes)
        position = np.arange(len(records))
        for name in groups:
            values = [record.get(f'f_beta_{name}', np.nan) for record in records]
            if not np.isnan(values).all():
                color = GROUP_COLORS[GROUP_NAMES.index(name)]
                axes.plot(position, values, marker='o', markersize=3, color=color, label=name)
        axes.plot(
            position,
            [record['proxy'] for record in records],
            color='black',
            linewidth=1,
            linestyle='--',
            label='proxy',
        )
        for place, record in zip(position, records, strict=True):
            if record['own']:
                axes.axvspan(place - 0.3, place + 0.3, color=GREY, alpha=0.2, linewidth=0)
        names = [_text(record['value']) for record in records]
        long = max(map(len, names)) > 5
        axes.set_xticks(
            position,
            names,
            fontsize=SMALL_FONT_SIZE,
            rotation=30 if long else 0,
            ha='right' if long else 'center',
            rotation_mode='anchor',
        )
        axes.set_title(knob, fontsize=FONT_SIZE)
    for axes in grid[::COLUMNS]:
        axes.set_ylabel('F-beta, proxy', fontsize=FONT_SIZE)
    handles, labels = grid[0].get_legend_handles_labels()
    if handles:
        figure.legend(
            handles, labels, loc='outside lower center', ncols=4, fontsize=FONT_SIZE, frameon=False
        )
    return figure


def draw_returns(
    points: Sequence[Mapping], returns: Mapping[str, Sequence[Mapping]], titles: Mapping[str, str]
) -> Figure:
    """AP against labelled instances, with and without unlabelled images, and what they save.

    Args:
        points: Dicts with ``kind`` (``'labelled'`` or ``'semi'``), ``labelled_instances``,
            ``values`` (metric to mean over seeds) and ``intervals`` (metric to (low, high) or
            None).
        returns: Metric to its returns (dicts of
            :func:`mmdet_softpl.evaluation.annotation_return.annotation_return`).
        titles: Metric to the title of its panel; one panel each.
    """
    figure = new_figure(height=3.2)
    grid = figure.subplots(1, max(len(titles), 1), squeeze=False)[0]
    if not titles:
        say(grid[0], 'no AP')
    for axes, (metric, title) in zip(grid, titles.items(), strict=False):
        style_axes(axes)
        axes.set_title(title, fontsize=FONT_SIZE + 1)
        axes.set_xlabel('labelled instances', fontsize=FONT_SIZE)
        axes.set_ylabel('per cent', fontsize=FONT_SIZE)
        for kind in KIND_STYLES:
            _draw_kind(axes, [p for p in points if p['kind'] == kind], metric, kind)
        for found in returns.get(metric, ()):
            _draw_return(axes, found)
        axes.set_xscale('log')
        sizes = sorted({point['labelled_instances'] for point in points})
        axes.set_xticks(sizes, [f'{size:,}' for size in sizes], fontsize=FONT_SIZE - 1)
        axes.set_xticks([], minor=True)
        axes.set_ylim(bottom=0)
    handles, labels = grid[0].get_legend_handles_labels()
    if handles:
        figure.legend(
            handles, labels, loc='outside lower center', ncols=3, fontsize=FONT_SIZE, frameon=False
        )
    return figure


def _draw_kind(axes: Axes, points: Sequence[Mapping], metric: str, kind: str) -> None:
    points = sorted(points, key=lambda point: point['labelled_instances'])
    if not points:
        return
    label, color, marker, shift = KIND_STYLES[kind]
    x = [point['labelled_instances'] for point in points]
    y = np.array([point['values'][metric] for point in points]) * 100
    axes.plot(x, y, color=color, marker=marker, markersize=5, linewidth=1.5, label=label)
    for place, value, point in zip(x, y, points, strict=True):
        interval = point['intervals'].get(metric)
        if interval is not None:
            low, high = (100 * bound for bound in interval)
            # Aside, or the intervals of both kinds would cover each other.
            place *= shift
            axes.plot([place, place], [min(low, value), max(high, value)], color=color, alpha=0.5)


def _draw_return(axes: Axes, found: Mapping) -> None:
    """An arrow from the labels that were used to those that would have done the same."""
    if found['place'] != 'within' or found['equivalent_labels'] <= found['own_labels']:
        return
    height = found['ap'] * 100
    axes.annotate(
        '',
        xy=(found['equivalent_labels'], height),
        xytext=(found['own_labels'], height),
        arrowprops=dict(arrowstyle='->', color=GREY, linewidth=1.2),
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else f'{value:g}'
