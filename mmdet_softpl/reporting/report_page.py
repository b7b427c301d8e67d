"""The page of ``report``: one HTML file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from mmdet_softpl.messages import some_of
from mmdet_softpl.reporting import run_summary as summary
from mmdet_softpl.reporting.gallery import Tile
from mmdet_softpl.reporting.report_charts import (
    curve_charts,
    pseudo_label_charts,
    ratio_chart,
    reliability_charts,
    sparkline,
)
from mmdet_softpl.reporting.work_dir import WorkDir

# A sparkline a class makes 200 bytes.
MAX_SPARKS = 400
MAX_CONFIG = 400_000
# A boost as near to 1 as this changes nothing.
SAME_BOOST = 0.005
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
        'Kept by the teacher, while the student is hardly sure of the same class at the same place '
        '(its confidence there is `student`): one of the two is wrong.',
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
    broken = [record['iter'] for record in run.losses if not math.isfinite(record.get('loss', 0))]
    if broken:
        missing.append(
            f'Losses from iteration {broken[0]} on: the loss is not finite, the training has '
            'diverged. Lower the learning rate, or clip gradients (optim_wrapper.clip_grad).'
        )
    if not run.validations:
        missing.append('AP: no validation has been run yet (train_cfg.val_interval).')
    elif not summary.has_ap(run):
        missing.append(
            'AP: the validations have no bbox_AP, segm_AP, bbox_mAP or segm_mAP; use '
            'LongTailMetric (val_evaluator).'
        )
    elif not any('class_AP' in p for r in run.validations for p in r['parts'].values()):
        hook = '' if run.validations_recorded else 'add ValidationRecordHook to custom_hooks and '
        missing.append(f'AP of each class: {hook}use LongTailMetric (val_evaluator).')
    if not run.refreshes:
        missing.append(
            'Pseudo-labels over time: RareBoostPseudoLabeler has not refreshed yet, or the '
            'training does not have it.'
        )
    if run.audit is None:
        missing.append('Totals of the audit: the training has not ended, or had no labeller.')
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
        row['spark'] = sparkline(row['history'], row['expected'])
    gained, lost = summary.changes(rows)
    sparks = bool(run.refreshes) and len(rows) <= MAX_SPARKS
    check = None if findings.check is None else summary.boost_rows(findings.check)
    never = summary.never_labelled(rows)
    context: dict[str, Any] = dict(
        title=f'Training report: {run.path.resolve().name}',
        subtitle=_subtitle(run, made),
        cards=_cards(run, rows),
        missing=missing,
        curves=curve_charts(run),
        kind_name='Mask' if summary.iou_type(run) == 'segm' else 'Box',
        groups=summary.group_rows(run),
        before_title=summary.before_title(run),
        gained=gained,
        lost=lost,
        rows=rows,
        sparks=sparks,
        class_columns=[
            ('Class', 'text'),
            ('Group', 'text'),
            ('Labelled images', ''),
            ('AP before', ''),
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
        never=some_of(never, 12, ', '),
        pseudo=pseudo_label_charts(run),
        map=ratio_chart(run),
        reliability=reliability_charts(run, findings.check),
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
            (row for row in rows if abs((row['boost'] or 1) - 1) > SAME_BOOST),
            key=lambda row: -row['boost'],
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
    # The log may end before the training, which need not be a multiple of its interval.
    end = (run.audit or {}).get('iteration', 0)
    return max(end, *(record['iter'] for record in records), 0)


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


def _boost_sentence(rows: Sequence[Mapping[str, Any]] | None, findings: ModelFindings) -> str:
    """The bias check in words, of the rare classes where they are known."""
    if not rows:
        return ''
    rare = next((row for row in rows if row['group'] == 'rare'), rows[0])
    rest = [row for row in rows if row['group'] not in ('rare', 'all classes')]
    who = 'rare classes' if rare['group'] == 'rare' else 'all classes'
    text = (
        f'On {findings.judged_on}, judged labels of {who} went from {rare["plain_judged"]} '
        f'({rare["plain_right"]} right) without the boost to {rare["boosted_judged"]} '
        f'({rare["boosted_right"]} right) with it'
    )
    if rest:
        more, right = (sum(row[key] for row in rest) for key in ('more_judged', 'more_right'))
        text += f'; those of all other classes changed by {more:+d} ({right:+d} right)'
    kept = rare['boosted_kept']
    if unknown := kept - rare['boosted_judged']:
        text += (
            f'. Of the {kept} labels of {who} that are kept with it {unknown} cannot be judged: '
            'the annotations do not say whether they are right'
        )
    return text + '.'


def _config_text(path: Path | None) -> str:
    if path is None:
        return ''
    text = path.read_text(encoding='utf-8', errors='replace')
    return text if len(text) <= MAX_CONFIG else f'{text[:MAX_CONFIG]}\n... (cut off)'
