"""The page of ``report``: one HTML file that needs nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
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
from mmdet_softpl.reporting.gallery import Tile
from mmdet_softpl.reporting.work_dir import WorkDir

# A sparkline a class makes 200 bytes.
MAX_SPARKS = 400
SPARK_POINTS = 30
MAX_CONFIG = 400_000
GALLERIES = {
    'confident': (
        'Confident',
        'Kept with the highest confidence. Wrong ones here are taught most.',
    ),
    'doubtful': (
        'Doubtful',
        'Scores nearest to the threshold of their class: right ones just below it say that the '
        'threshold is too high, wrong ones just above that it is too low.',
    ),
    'rare': ('Rare classes', 'The surest objects of rare classes, kept ones first.'),
    'disagreeing': (
        'Most disagreeing',
        'Kept by the teacher, seen otherwise by the student: one of the two is wrong.',
    ),
}


@dataclass(frozen=True)
class ModelFindings:
    """What looking at images with the checkpoint brought.

    Attributes:
        looked_at: Number of unlabelled images.
        tiles: By kind of gallery.
        check: ``engine.boost_check.BoostCheck``, or None.
        judged_on: The images of ``check`` in words.
    """

    looked_at: int = 0
    tiles: Mapping[str, Sequence[Tile]] = field(default_factory=dict)
    check: Any | None = None
    judged_on: str = ''


def missing_parts(run: WorkDir) -> list[str]:
    """What the files of a work directory do not say, and why."""
    missing = []
    if not run.losses:
        missing.append(
            'Losses: no scalars.json with training iterations; it stopped before the first log, or '
            'the visualizer has no LocalVisBackend.'
        )
    if not run.validations:
        missing.append('AP: no validation has been run yet (train_cfg.val_interval).')
    elif not any('class_AP' in p for r in run.validations for p in r['parts'].values()):
        missing.append(
            'AP of each class: add ValidationRecordHook to custom_hooks and use LongTailMetric.'
        )
    if not run.refreshes:
        missing.append(
            'Pseudo-labels over time: RareBoostPseudoLabeler has not refreshed yet, or the '
            'training does not have it.'
        )
    if run.audit is None:
        missing.append('Totals of the audit: the training has not ended.')
    return missing


def render(
    run: WorkDir,
    findings: ModelFindings | None = None,
    missing: Sequence[str] = (),
    made: str = '',
) -> str:
    """The page.

    Args:
        run: The training.
        findings: Of the checkpoint, if it was looked at.
        missing: What is missing, one sentence each.
        made: When and by what the page was made, for its head.
    """
    from jinja2 import Environment, PackageLoader

    findings = findings or ModelFindings()
    rows = summary.class_rows(run, findings.check)
    for row in rows:
        row['spark'] = _spark(row['history'], row['expected'])
    gained, lost = summary.changes(rows)
    sparks = bool(run.refreshes) and len(rows) <= MAX_SPARKS
    check = None if findings.check is None else summary.boost_rows(findings.check)
    never = summary.never_labelled(rows)
    context: dict[str, Any] = dict(
        title=f'Training report: {run.path.resolve().name}',
        subtitle=_subtitle(run, made),
        cards=_cards(run, rows),
        missing=missing,
        curves=_curves(run),
        kind_name='Mask' if summary.iou_type(run) == 'segm' else 'Box',
        groups=summary.group_rows(run),
        gained=gained,
        lost=lost,
        rows=rows,
        sparks=sparks,
        class_columns=[
            ('Class', 'text'),
            ('Group', 'text'),
            ('Labelled images', ''),
            ('AP first', ''),
            ('AP last', ''),
            ('Change', ''),
            ('Student', ''),
            ('Boost', ''),
            ('Threshold', ''),
            ('Kept', ''),
            ('Expected', ''),
            ('Kept / expected', ''),
            *([('Over time', '')] if sparks else []),
            ('Precision', ''),
            ('without boost', ''),
        ],
        judged_on=findings.judged_on,
        never=_names(never),
        pseudo=_pseudo(run),
        map=_map(run),
        reliability=_reliability(run, findings.check),
        looked_at=findings.looked_at,
        galleries=[
            dict(kind=kind, title=title, text=text, tiles=findings.tiles.get(kind, ()))
            for kind, (title, text) in GALLERIES.items()
        ]
        if findings.tiles
        else [],
        boost_check=check,
        boost_sentence=_boost_sentence(check, findings),
        boosted=sorted(
            (row for row in rows if (row['boost'] or 1) > 1), key=lambda row: -row['boost']
        ),
        environment=run.environment,
        config=_config_text(run.config),
        css=_asset('report.css'),
        js=_asset('report.js'),
    )
    context['sections'] = [
        (id_, name)
        for id_, name, present in (
            ('curves', 'Curves', context['curves']),
            ('results', 'AP by group and class', context['groups'] or rows),
            ('pseudo', 'Pseudo-labels over time', context['pseudo']),
            ('reliability', 'Reliability', context['reliability']),
            ('galleries', 'Pseudo-labels to look at', context['galleries']),
            ('audit', 'Audit', context['boosted'] or check),
            ('environment', 'Environment and config', True),
        )
        if present
    ]
    environment = Environment(
        loader=PackageLoader('mmdet_softpl.reporting', 'templates'),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template('report.html.j2').render(context)


def as_json(run: WorkDir, findings: ModelFindings | None = None) -> dict[str, Any]:
    """The figures of the page as plain values."""
    findings = findings or ModelFindings()
    rows = summary.class_rows(run, findings.check)
    gained, lost = summary.changes(rows)
    return dict(
        iteration=_last_iter(run),
        finished=run.audit is not None,
        groups=summary.group_rows(run),
        gained=[dict(name=row['name'], change=row['change']) for row in gained],
        lost=[dict(name=row['name'], change=row['change']) for row in lost],
        never_labelled=summary.never_labelled(rows),
        boost_check=None if findings.check is None else summary.boost_rows(findings.check),
        galleries={kind: len(tiles) for kind, tiles in findings.tiles.items()},
        classes=[{k: v for k, v in row.items() if k != 'history'} for row in rows],
    )


def _asset(name: str) -> str:
    return (resources.files('mmdet_softpl.reporting') / 'templates' / name).read_text('utf-8')


def _last_iter(run: WorkDir) -> int:
    records = [*run.losses[-1:], *run.validations[-1:], *run.refreshes[-1:]]
    return max((record['iter'] for record in records), default=0)


def _subtitle(run: WorkDir, made: str) -> str:
    state = 'finished' if run.audit is not None else 'not finished, or without a labeller'
    starts = len(run.starts)
    again = '' if starts == 1 else f', started {starts} times'
    return f'{_last_iter(run)} iterations, {state}{again}. {made}'.strip()


def _cards(run: WorkDir, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    cards = []
    kind = summary.iou_type(run)
    name = 'mask' if kind == 'segm' else 'box'
    for part in summary.PARTS:
        records = [record for record in run.validations if part in record['parts']]
        if not records:
            continue
        metrics = records[-1]['parts'][part]
        for suffix, label in (('AP', 'AP'), ('APr', 'AP rare')):
            value = summary.metric_of(metrics, f'{kind}_{suffix}')
            cards.append(
                dict(
                    label=f'{part.capitalize()}, {name} {label}',
                    value='-' if value is None else f'{100 * value:.1f}',
                    note=f'at iteration {records[-1]["iter"]}',
                )
            )
    kept = [row['kept'] for row in rows if row['kept'] is not None]
    if kept:
        never = len(summary.never_labelled(rows))
        cards.append(
            dict(
                label='Pseudo-labels per image',
                value=f'{sum(kept):.2f}',
                note=f'{never} of {len(rows)} classes never',
            )
        )
    return cards


def _chart(title: str, alt: str, svg: str) -> dict[str, str]:
    return dict(title=title, alt=alt, svg=svg)


def _curves(run: WorkDir) -> list[dict[str, str]]:
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


def _pseudo(run: WorkDir) -> list[dict[str, str]]:
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
            line_chart([_positive(line) for line in rates], 'per image', name='kept', log=True),
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


def _positive(line: Series) -> Series:
    """Without zeros, which a logarithmic axis does not have."""
    return dataclasses.replace(line, y=[y if y else None for y in line.y])


def _map(run: WorkDir) -> dict[str, str] | None:
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


def _reliability(run: WorkDir, check: Any | None) -> list[dict[str, str]]:
    """Of the checked images before and after calibration, else of the last validation."""
    parts: list[list[tuple[str, np.ndarray]]] = [[] for _ in GROUP_NAMES]
    if check is not None and run.groups is not None:
        groups = np.array(run.groups)
        for label, tensor in (('score', check.before), ('calibrated', check.after)):
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


def _boost_sentence(rows: Sequence[Mapping[str, Any]] | None, findings: ModelFindings) -> str:
    """The bias check in words, of the rare classes where they are known."""
    if not rows:
        return ''
    rare = next((row for row in rows if row['group'] == 'rare'), rows[0])
    rest = [row for row in rows if row['group'] not in ('rare', 'all classes')]
    who = 'rare classes' if rare['group'] == 'rare' else 'all classes'
    text = (
        f'On {findings.judged_on}, labels of {who} went from {rare["plain_kept"]} '
        f'({rare["plain_right"]} right) without the boost to {rare["boosted_kept"]} '
        f'({rare["boosted_right"]} right) with it'
    )
    if rest:
        more, right = (sum(row[key] for row in rest) for key in ('more_kept', 'more_right'))
        text += f'; those of all other classes changed by {more:+d} ({right:+d} right)'
    return text + '.'


def _spark(values: Sequence[float], expected: float | None) -> str:
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


def _names(names: Sequence[str], limit: int = 12) -> str:
    text = ', '.join(names[:limit])
    return text if len(names) <= limit else f'{text} and {len(names) - limit} more'


def _config_text(path: Path | None) -> str:
    if path is None:
        return ''
    text = path.read_text(encoding='utf-8', errors='replace')
    return text if len(text) <= MAX_CONFIG else f'{text[:MAX_CONFIG]}\n... (cut off)'
