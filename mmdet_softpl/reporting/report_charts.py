"""The charts of ``report``'s page, each a dict of ``title``, ``alt`` and ``svg``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmdet_softpl.functional.frequency import GROUP_NAMES
from mmdet_softpl.reporting import run_summary as summary
from mmdet_softpl.reporting.charts import (
    UNNAMED,
    Series,
    line_chart,
    ratio_map,
    reliability_chart,
)
from mmdet_softpl.reporting.figure import GROUP_COLORS, PALETTE, to_numpy
from mmdet_softpl.reporting.work_dir import WorkDir

SPARK_POINTS = 30


def _chart(title: str, alt: str, svg: str) -> dict[str, str]:
    return dict(title=title, alt=alt, svg=svg)


def curve_charts(run: WorkDir) -> list[dict[str, str]]:
    """Losses, AP and calibration error over iterations; what was not recorded is left out."""
    charts = []
    if run.losses:
        x = [record['iter'] for record in run.losses]
        series = [
            Series(label, x, [_summed(record, prefix) for record in run.losses], color)
            for label, prefix, color in (
                ('labelled', 'sup_', PALETTE[0]),
                ('unlabelled', 'unsup_', PALETTE[1]),
            )
        ]
        if all(value is None for line in series for value in line.y):
            series = [Series('loss', x, [r['loss'] for r in run.losses], PALETTE[0])]
        charts.append(
            _chart(
                'Losses',
                f'Losses over {len(x)} logged iterations, last total {run.losses[-1]["loss"]:.3g}',
                line_chart(series, 'loss', name='losses'),
            )
        )
    kind = summary.iou_type(run)
    name = 'mask' if kind == 'segm' else 'box'
    parts = [p for p in summary.PARTS if any(p in r['parts'] for r in run.validations)]
    for title, metric, scale, label in (
        (f'{name.capitalize()} AP', f'{kind}_AP', 100, 'AP, %'),
        (f'{name.capitalize()} AP of rare classes', f'{kind}_APr', 100, 'APr, %'),
        (f'{name.capitalize()} AP of common classes', f'{kind}_APc', 100, 'APc, %'),
        (f'{name.capitalize()} AP of frequent classes', f'{kind}_APf', 100, 'APf, %'),
        ('Calibration error, mean over classes', 'cc_ece', 100, 'error, %'),
    ):
        series = []
        for part, color, style in zip(parts, PALETTE, ('-', '--', '-'), strict=False):
            x, y = summary.metric_series(run, part, metric)
            series.append(
                Series(part, x, [None if v is None else scale * v for v in y], color, style)
            )
        values = [f'{s.name} {s.y[-1]:.1f}' for s in series if s.y and s.y[-1] is not None]
        if any(v is not None for s in series for v in s.y):
            charts.append(
                _chart(
                    title,
                    f'{title} over iterations; last: {", ".join(values) or "unknown"}',
                    line_chart(series, label, name=metric.replace('_', '-').lower()),
                )
            )
    return charts


def _summed(record: Mapping[str, Any], prefix: str) -> float | None:
    values = [v for k, v in record.items() if k.startswith(prefix) and 'loss' in k]
    return sum(values) if values else None


def pseudo_label_charts(run: WorkDir) -> list[dict[str, str]]:
    """Kept pseudo-labels, thresholds and boosts of each group over iterations."""
    if not run.refreshes or run.groups is None or run.expected is None:
        return []
    x = [refresh['iter'] for refresh in run.refreshes]
    groups, expected = np.array(run.groups), np.array(run.expected)
    kept = np.array([refresh['kept_per_image'] for refresh in run.refreshes])
    present = [g for g in range(len(GROUP_NAMES)) if (groups == g).any()]
    rates = []
    for g in present:
        members = groups == g
        total = float(expected[members].sum())
        rates.append(Series(GROUP_NAMES[g], x, kept[:, members].sum(1).tolist(), GROUP_COLORS[g]))
        rates.append(Series(UNNAMED, x, [total] * len(x), GROUP_COLORS[g], ':'))
    charts = [
        _chart(
            'Kept per image (dotted: expected)',
            'Pseudo-labels kept per image by group over iterations, with the labelled rate',
            line_chart(rates, 'per image', name='kept', log=True, if_zero='nothing kept'),
        )
    ]
    for title, key in (
        ('Thresholds, mean of the group', 'thresholds'),
        ('Boosts, mean of the group', 'boosts'),
    ):
        values = np.array([refresh[key] for refresh in run.refreshes])
        lines = [
            Series(GROUP_NAMES[g], x, values[:, groups == g].mean(1).tolist(), GROUP_COLORS[g])
            for g in present
        ]
        alt = ', '.join(f'{line.name} {line.y[-1]:.2f}' for line in lines)
        charts.append(
            _chart(
                title,
                f'{title} over iterations; last: {alt}',
                line_chart(lines, key[:-1], name=key),
            )
        )
    return charts


def ratio_chart(run: WorkDir) -> dict[str, str] | None:
    """Kept against expected pseudo-labels of every class at every refresh."""
    if not run.refreshes or not run.expected:
        return None
    order = np.argsort(-np.array(run.expected), kind='stable')
    svg = ratio_map(
        summary.ratios(run)[order],
        [refresh['iter'] for refresh in run.refreshes],
        [run.classes[i] for i in order],
        name='map',
    )
    return _chart(
        'Kept against expected, class by class',
        'Ratio of kept to expected pseudo-labels of every class (rows, frequent ones on top) at '
        'every refresh (columns)',
        svg,
    )


def reliability_charts(run: WorkDir, check: Any | None) -> list[dict[str, str]]:
    """Of the scores and confidences of the checked images, else of the last validation."""
    parts: list[list[tuple[str, np.ndarray]]] = [[] for _ in GROUP_NAMES]
    if check is not None and run.groups is not None:
        groups = np.array(run.groups)
        for label, tensor in (('score', check.before), ('confidence', check.after)):
            values = to_numpy(tensor)
            for g in range(len(GROUP_NAMES)):
                parts[g].append((label, values[:, groups == g].sum(1)))
        what = 'pseudo-labels of the teacher'
    else:
        part = summary.main_part(run)
        tables = [
            record['parts'][part]['reliability']
            for record in run.validations
            if part in record['parts'] and 'reliability' in record['parts'][part]
        ]
        if not tables:
            return []
        values = np.array(tables[-1], dtype=float)
        for g in range(len(GROUP_NAMES)):
            parts[g].append((f'{part}, validation', values[:, g]))
        what = f'detections of the {part} in the last validation'
    return [
        _chart(
            f'{name.capitalize()} classes',
            f'Share of right {what} against confidence, {name} classes',
            reliability_chart(group, name=f'reliability-{name}'),
        )
        for name, group in zip(GROUP_NAMES, parts, strict=True)
    ]


def sparkline(values: Sequence[float], expected: float | None) -> str:
    """A line of kept pseudo-labels over time as a small SVG, or nothing."""
    if not values:
        return ''
    array = np.array(values, dtype=float)
    if len(array) > SPARK_POINTS:
        array = array[np.linspace(0, len(array) - 1, SPARK_POINTS).astype(int)]
    top = max(array.max(), expected or 0) or 1.0
    xs = np.linspace(1, 59, len(array)) if len(array) > 1 else np.array([30.0])
    points = ' '.join(f'{x:.0f},{13 - 12 * y / top:.1f}' for x, y in zip(xs, array, strict=True))
    line = ''
    if expected:
        y = 13 - 12 * expected / top
        line = (
            f'<path d="M1 {y:.1f}H59" stroke="currentColor" stroke-dasharray="2 2" opacity=".5"/>'
        )
    return (
        '<svg class="spark" viewBox="0 0 60 14" aria-hidden="true">'
        f'{line}<polyline points="{points}" fill="none" stroke="currentColor"/></svg>'
    )
