"""The report of a pilot as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmdet_softpl.functional.frequency import GROUP_NAMES
from mmdet_softpl.reporting.table import percent


def pilot_page(result: Mapping[str, Any]) -> str:
    """Markdown of a pilot's result (the content of ``pilot.json``), with its pictures beside it.

    Raises:
        KeyError: Not the result of a pilot.
    """
    parts = [
        '# Pilot',
        f'Config `{result["config"]}`; looked at: {result["held_out_images"]} held-out images of '
        f'`{result["held_out"]}`, teacher of `{result["checkpoint"]}`.',
        *(f'**Note:** {warning}' for warning in result['warnings']),
        _returns(result),
        _runs(result),
        _thresholds(result),
        _reliability(result),
        _sensitivity(result),
    ]
    return '\n\n'.join(part for part in parts if part) + '\n'


def return_sentence(found: Mapping[str, Any], seconds: float) -> str:
    """What unlabelled images save at one labelled share, in a sentence."""
    own = found['own_labels'] * seconds / 3600
    start = f'{found["title"]} {percent(found["ap"])} with {found["own_labels"]:,.0f} labels'
    if found['place'] == 'above' and found['hours'] < 0:
        body = (
            'more than the labelled-only curve reaches, but that ends at '
            f'{found["equivalent_labels"]:,.0f} labels and says nothing of as many as here: add a '
            'training on these labels alone'
        )
    elif found['place'] == 'above':
        body = (
            'more than the labelled-only curve reaches, so the return is at least '
            f'{found["hours"]:.1f} hours, if that: the curve ends there and cannot tell more'
        )
    elif found['place'] == 'flat':
        body = (
            'labels alone do not reach more with more of them, so no AP stands for a number of '
            'labels: train longer, or take shares further apart'
        )
    elif found['place'] == 'below' and found['hours'] < 0:
        body = (
            f'labels alone reach more with {found["equivalent_labels"]:,.0f} of them, so at least '
            f'{-found["hours"]:.1f} hours are lost, if any'
        )
    elif found['place'] == 'below':
        body = (
            f'less than the labelled-only curve starts with at {found["equivalent_labels"]:,.0f} '
            'labels: no return, and it cannot tell what fewer alone reach'
        )
    else:
        body = (
            f'the labelled-only curve reaches that with {found["equivalent_labels"]:,.0f}: '
            f'{found["hours"]:+.1f} hours'
        )
    if found['low'] is None and found['high'] is None:
        spread = 'uncertainty unknown' if found['draws'] == 0 else 'no end of an interval is known'
    else:
        unit = ' hours' if found['high'] is None else ''
        low = 'below the curve' if found['low'] is None else f'{found["low"]:+.1f}{unit}'
        high = 'beyond the curve' if found['high'] is None else f'{found["high"]:+.1f} hours'
        spread = f'95 % interval {low} to {high}'
    verdict = {
        'saves': 'labels are saved',
        'costs': 'labels are wasted',
        'cannot tell': 'the curve cannot tell',
    }[found['verdict']]
    return f'{start} ({own:.1f} hours of annotation): {body} ({spread}). **{verdict}**.'


def _returns(result: Mapping[str, Any]) -> str:
    returns = result['returns']
    lines = ['## What unlabelled images save', '']
    if not returns:
        return '\n'.join([*lines, result['returns_missing']])
    lines += ['![AP against labels](returns.png)', '']
    for records in returns.values():
        lines += [f'- {return_sentence(found, result["seconds"])}' for found in records]
    lines += [
        '',
        f'An instance takes {result["seconds"]:g} s to annotate. {result["uncertainty"]}',
    ]
    return '\n'.join(lines)


def _runs(result: Mapping[str, Any]) -> str:
    keys = list(result['metrics_shown'])
    rows = [
        [
            run['name'],
            'with unlabelled' if run['kind'] == 'semi' else 'labelled alone',
            f'{run["labelled_images"]:,}',
            f'{run["labelled_instances"]:,}',
            f'{run["labelled_instances"] * result["seconds"] / 3600:.1f}',
            *(percent(run['metrics'].get(key)) for key in keys),
        ]
        for run in result['runs']
    ]
    head = ['training', 'images', 'labelled images', 'instances', 'hours', *keys]
    return '## Trainings\n\n' + _table(head, rows)


def _thresholds(result: Mapping[str, Any]) -> str:
    rows = []
    for name in GROUP_NAMES:
        curve = result['thresholds'].get(name)
        if curve is None or curve['best_threshold'] is None:
            continue
        place = curve['threshold'].index(curve['best_threshold'])
        rows.append(
            [
                name,
                f'{curve["best_threshold"]:.2f}',
                percent(curve['precision'][place]),
                percent(curve['recall'][place]),
                f'{curve["kept_per_image"][place]:.2f}',
            ]
        )
    text = (
        '## Which threshold\n\n![Precision and recall against the threshold](thresholds.png)\n\n'
        f'The best single threshold of each group by F-beta (beta {result["beta"]:g}), with boost '
        'and prototypes as in the config:\n\n'
    )
    head = ['group', 'threshold', 'precision', 'recall', 'labels an image']
    own = [
        [
            name,
            percent(result['own'].get(f'precision_{name}')),
            percent(result['own'].get(f'recall_{name}')),
        ]
        for name in GROUP_NAMES
        if f'recall_{name}' in result['own']
    ]
    return (
        text
        + _table(head, rows)
        + "\n\nWith the config's own thresholds per class:\n\n"
        + _table(['group', 'precision', 'recall'], own)
    )


def _reliability(result: Mapping[str, Any]) -> str:
    rows = [
        [name, *(_number(result['reliability'][side].get(name)) for side in ('before', 'after'))]
        for name in GROUP_NAMES
        if name in result['reliability']['before']
    ]
    return (
        '## Can the confidences be believed\n\n![Reliability](reliability.png)\n\n'
        'Calibration error (ECE) of the scores that thresholds act on, and of the confidences, '
        'each image calibrated by others:\n\n' + _table(['group', 'score', 'confidence'], rows)
    )


def _sensitivity(result: Mapping[str, Any]) -> str:
    rows = []
    for knob, records in result['sensitivity'].items():
        values = [record['proxy'] for record in records]
        best = max(records, key=lambda record: record['proxy'])
        own = next(record for record in records if record['own'])
        rows.append(
            [
                f'`{knob}`',
                _value(own['value']),
                _value(best['value']),
                f'{best["proxy"] - own["proxy"]:+.3f}',
                f'{max(values) - min(values):.3f}',
            ]
        )
    rows.sort(key=lambda row: -float(row[-1]))
    head = ['setting', 'own', 'best', 'gain in proxy', 'range of proxy']
    return (
        '## What matters\n\n![Sensitivity](sensitivity.png)\n\nOne setting at a time, on all '
        'held-out images; a gain that was picked from several values is optimistic. `softpl tune` '
        'varies them together and checks on other images.\n\n' + _table(head, rows)
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ['| ' + ' | '.join(head) + ' |', '|' + ' --- |' * len(head)]
    lines += ['| ' + ' | '.join(row) + ' |' for row in rows]
    return '\n'.join(lines)


def _number(value: float | None) -> str:
    return '-' if value is None or value != value else f'{value:.3f}'


def _value(value: object) -> str:
    return f'{value:g}' if isinstance(value, (int, float)) else str(value)
