"""The pictures of the benchmark: curves, reliability, bars.

Shape letters: **G** = 3 frequency groups, **B** confidence bins.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmdet_softpl.functional import GROUP_NAMES as GROUPS
from mmdet_softpl.reporting.figure import (
    FONT_SIZE,
    GROUP_COLORS,
    PALETTE,
    new_figure,
    save_figure,
    say,
    style_axes,
)
from mmdet_softpl.reporting.reliability import draw_reliability

from .arms import ARMS, FULL_METHOD, MAIN_ARMS, SHIPPED
from .headline_plot import draw_headline
from .knobs import KNOBS
from .presets import PRESETS
from .results import ONE_HOT_TEACHER, Table, knob_results, spread, turned_arms
from .runs import Runs
from .tables import pooled_precision
from .variations import ARMS as VARIED_ARMS
from .variations import METRICS as VARIED_METRICS
from .variations import Variations

PEER = 'soft-teacher'
# Arm, seed -> metric -> iterations, values.
Curves = dict[tuple[str, int], dict[str, list[list[float]]]]


def draw_all(name: str, runs: Runs, table: Table, folder: Path) -> list[Path]:
    """Draw what there is data for; old pictures of the preset are removed.

    Args:
        name: Of the preset.
        runs: From ``runs.json``.
        table: Values of the preset.
        folder: Where the pictures go.

    Returns:
        The files.
    """
    for path in folder.glob(f'{name}-*.png'):
        path.unlink()
    curves = curves_of(runs)
    figures: dict[str, Figure] = {}
    if table.arms:
        figures['ablation'] = draw_ablation(table)
    if SHIPPED in table.arms:
        figures['headline'] = draw_headline(table)
    for arm in turned_arms(table):
        figures[f'sensitivity-arm-{arm}'] = draw_sensitivity(table, arm)
    if curves:
        figures['ap'] = draw_ap(curves)
        figures['pseudo-labels'] = draw_pseudo(curves)
    for arm in (ONE_HOT_TEACHER, FULL_METHOD):
        figure = draw_arm_reliability(runs, arm)
        if figure is not None:
            figures[f'reliability-arm-{arm}'] = figure
    return [
        save_figure(figure, folder / f'{name}-{which}.png') for which, figure in figures.items()
    ]


def curves_of(runs: Runs) -> Curves:
    """Curves of the runs that have any, finished or not.

    Of the steps from arm 0 to 8 and of the peer; more lines, of variants, nobody could tell apart.
    """
    steps = [arm for arm in MAIN_ARMS if '-' not in arm or arm == PEER]
    return {key: curves for key, curves in every_curve(runs).items() if key[0] in steps}


def every_curve(runs: Runs) -> Curves:
    """Curves of the runs that have any, of whatever arm."""
    return {(run['arm'], run['seed']): run['curves'] for run in runs.values() if run['curves']}


def _arms(curves: Curves) -> list[str]:
    return [arm for arm in ARMS if any(arm == key[0] for key in curves)]


def style(arms: list[str], arm: str) -> tuple[str, str]:
    """Colour and line of an arm among those of a picture: six colours, then dashes, then dots."""
    index = arms.index(arm)
    return PALETTE[index % 6], ('-', '--', ':')[index // 6 % 3]


def titled(curves: Curves, arm: str) -> str:
    """Name of an arm, with the seeds whose curves there are."""
    seeds = sorted(seed for name, seed in curves if name == arm)
    return f'arm {arm} (seed{"s" * (len(seeds) > 1)} {", ".join(map(str, seeds))})'


def draw_curve(axes: Axes, curves: Curves, metric: str, factor: float = 1.0) -> None:
    """Mean over seeds as a line, smallest to largest as a band, for every arm."""
    for arm in _arms(curves):
        by_iteration: dict[float, list[float]] = {}
        for (name, _), metrics in curves.items():
            if name == arm:
                for iteration, value in zip(*metrics.get(metric, [[], []]), strict=True):
                    by_iteration.setdefault(iteration, []).append(factor * value)
        if not by_iteration:
            continue
        x = sorted(by_iteration)
        color, line = style(_arms(curves), arm)
        axes.plot(
            x,
            [np.mean(by_iteration[i]) for i in x],
            color=color,
            linestyle=line,
            linewidth=1.4,
            marker='o',
            markersize=2.5,
            label=titled(curves, arm),
        )
        low, high = ([edge(by_iteration[i]) for i in x] for edge in (min, max))
        axes.fill_between(x, low, high, color=color, alpha=0.12, linewidth=0)


def _legend(figure: Figure, axes: Iterable[Axes]) -> None:
    """One legend below for all axes."""
    entries: dict[str, object] = {}
    for one in axes:
        handles, labels = one.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    ordered = [label for arm in ARMS for label in entries if label.startswith(f'arm {arm} (')]
    figure.legend(
        [entries[label] for label in ordered],
        ordered,
        loc='outside lower center',
        ncols=5,
        fontsize=FONT_SIZE,
        frameon=False,
    )


def draw_ap(curves: Curves) -> Figure:
    """Mask AP and AP of each frequency group over the iterations."""
    figure = new_figure(height=5.2)
    grid = figure.subplots(2, 2, sharex=True).ravel()
    for axes, (metric, title) in zip(
        grid,
        (
            ('segm_APr', 'APr (rare)'),
            ('segm_AP', 'AP'),
            ('segm_APc', 'APc (common)'),
            ('segm_APf', 'APf (frequent)'),
        ),
        strict=True,
    ):
        style_axes(axes)
        draw_curve(axes, curves, metric, factor=100)
        axes.set_title(f'mask {title}, part of tune', fontsize=FONT_SIZE)
        axes.set_ylim(bottom=0)
    for axes in grid[2:]:
        axes.set_xlabel('iteration', fontsize=FONT_SIZE)
    _legend(figure, grid)
    return figure


def draw_pseudo(curves: Curves) -> Figure:
    """Precision and recall of the kept pseudo-labels by group over the iterations."""
    figure = new_figure(height=5.2)
    grid = figure.subplots(2, 3, sharex=True)
    for row, metric in zip(grid, ('precision', 'recall'), strict=True):
        for axes, group in zip(row, GROUPS, strict=True):
            style_axes(axes)
            draw_curve(axes, curves, f'{group}_pseudo_{metric}')
            axes.set_ylim(0, 1)
            axes.set_title(f'{metric}, {group}', fontsize=FONT_SIZE)
            if not axes.lines:
                say(axes, 'no pseudo-labels')
    for axes in grid[1]:
        axes.set_xlabel('iteration', fontsize=FONT_SIZE)
    _legend(figure, grid.ravel())
    return figure


def draw_arm_reliability(runs: Runs, arm: str) -> Figure | None:
    """Reliability of the last teacher's objects, scores and confidences, summed over seeds."""
    counts = [run['reliability'] for run in runs.values() if run['arm'] == arm]
    found = [entry for entry in counts if entry]
    if not found:
        return None
    raw, calibrated = (
        sum((torch.tensor(entry[name]) for entry in found[1:]), torch.tensor(found[0][name]))
        for name in ('object_raw', 'object')
    )
    # The rows are groups already. Without boost and calibration there is nothing to compare.
    after = None if torch.equal(raw, calibrated) else calibrated
    return draw_reliability(raw, range(len(GROUPS)), after, found[0]['classes'])


def draw_ablation(table: Table) -> Figure:
    """AP and APr on test, recall and precision of rare pseudo-labels, arm by arm."""
    panels = (
        ('mask AP, test', 'test', 'segm_AP', 100.0, PALETTE[0]),
        ('mask APr, test', 'test', 'segm_APr', 100.0, GROUP_COLORS[0]),
        ('rare pseudo-labels: recall', 'unlabeled', 'rare_pseudo_recall', 1.0, PALETTE[2]),
        (
            'rare pseudo-labels: pooled precision',
            'unlabeled',
            'rare_pseudo_precision',
            1.0,
            PALETTE[4],
        ),
    )
    figure = new_figure(height=4.6)
    grid = figure.subplots(2, 2, sharex=True).ravel()
    position = np.arange(len(table.arms))
    for axes, (title, split, metric, factor, color) in zip(grid, panels, strict=True):
        style_axes(axes)
        found = [spread(table.by_seed(arm, split, metric).values()) for arm in table.arms]
        mean = factor * np.array([value.mean for value in found])
        if metric.endswith('precision'):
            # A seed with two labels says less than one with two hundred.
            mean = np.array([pooled_precision(table, arm, split, 'rare') for arm in table.arms])
        error = factor * np.nan_to_num([value.deviation for value in found])
        axes.bar(position, np.nan_to_num(mean), yerr=error, width=0.7, color=color, capsize=2)
        for x, value, half in zip(position, mean, error, strict=True):
            text = '-' if np.isnan(value) else f'{value:.1f}' if factor > 1 else f'{value:.2f}'
            height = 0 if np.isnan(value) else value + half
            axes.annotate(
                text,
                (x, height),
                xytext=(0, 2),
                textcoords='offset points',
                ha='center',
                # Two dozen arms stand closer than a number is wide.
                rotation=90,
                fontsize=FONT_SIZE - 1,
            )
        what = 'standard deviation' if 'pooled' in title else 'mean, standard deviation'
        axes.set_title(f'{title} ({what})', fontsize=FONT_SIZE)
        axes.margins(x=0.01, y=0.3)
        axes.set_ylim(bottom=0)
        axes.set_xticks(
            position,
            table.arms,
            fontsize=FONT_SIZE,
            rotation=45,
            ha='right',
            rotation_mode='anchor',
        )
    for axes in grid[2:]:
        axes.set_xlabel('arm', fontsize=FONT_SIZE)
    return figure


def draw_sensitivity(table: Table, arm: str) -> Figure:
    """AP and APr on tune over the values of each knob of an arm; a ring where the arm is."""
    metrics = (
        ('segm_AP', 'mask AP', PALETTE[0]),
        ('segm_APr', 'mask APr', GROUP_COLORS[0]),
    )
    knobs = list(knob_results(table, arm, 'segm_AP'))
    figure = new_figure(height=2.8)
    grid = figure.subplots(1, len(knobs), sharey=True, squeeze=False).ravel()
    for axes, knob in zip(grid, knobs, strict=True):
        style_axes(axes)
        for metric, title, color in metrics:
            results = knob_results(table, arm, metric)[knob]
            found = {
                v: spread(100 * ap for ap in by_seed.values()) for v, by_seed in results.items()
            }
            known = {f'{v:g}': one for v, one in found.items() if one.n}
            axes.errorbar(
                list(known),
                [one.mean for one in known.values()],
                yerr=[np.nan_to_num(one.deviation) for one in known.values()],
                color=color,
                marker='o',
                capsize=2,
                label=title,
            )
            default = f'{KNOBS[arm][knob].default:g}'
            if default in known:
                mean = known[default].mean
                axes.plot(
                    [default], [mean], 'o', markersize=11, markerfacecolor='none', color=color
                )
        axes.set_xlabel(knob, fontsize=FONT_SIZE)
        # Room for the rings.
        axes.margins(y=0.1)
    # Shared; set within the loop it would end where the first knob does.
    grid[0].set_ylim(bottom=0)
    grid[0].set_ylabel('AP on tune', fontsize=FONT_SIZE)
    grid[0].legend(fontsize=FONT_SIZE, frameon=False)
    return figure


def draw_variations(found: Variations) -> Figure:
    """AP and APr on test over the number of labelled images; rings where classes were seen to."""
    figure = new_figure(height=3.0)
    grid = figure.subplots(1, len(VARIED_METRICS))
    for axes, metric in zip(grid, VARIED_METRICS, strict=True):
        style_axes(axes)
        for arm, color in zip(VARIED_ARMS, PALETTE, strict=False):
            counts, aps = found.curve(arm, metric)
            axes.plot(counts, aps, color=color, marker='o', label=f'arm {arm}')
            for name in found.names:
                values = found.by_seed[name, arm, metric].values()
                if found.at_least(name) > 1 and values:
                    place = ([PRESETS[name].images['train']], [100 * spread(values).mean])
                    axes.plot(*place, 'o', markersize=9, markerfacecolor='none', color=color)
        ticks = sorted({PRESETS[name].images['train'] for name in found.names})
        axes.set_xscale('log')
        axes.set_xticks(ticks, [f'{tick:,}' for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel('labelled images', fontsize=FONT_SIZE)
        axes.set_ylabel(f'mask {metric} on test', fontsize=FONT_SIZE)
        axes.set_ylim(bottom=0)
    grid[0].legend(fontsize=FONT_SIZE, frameon=False)
    return figure
