"""``python -m mmdet_softpl inspect``: the data that a config would train on."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

NAME = 'inspect'
HELP = 'look at the data that a config would train on'

REPORT = 'inspect.json'
CLASS_CURVE = 'class_counts.png'
IMAGE_SIZES = 'image_sizes.png'
MAX_CLASS_ROWS = 60
LOG_WIDTH = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        'example: python -m mmdet_softpl inspect parts.py --out work_dirs/data\n\n'
        'Exit status: 0, or 1 when the training would fail or learn something else than was '
        'meant;\n2 when the config itself cannot be read.'
    )
    parser.add_argument('config', metavar='CONFIG', help='config of a training')
    parser.add_argument('--json', action='store_true', help='print everything as json')
    parser.add_argument(
        '--out', metavar='DIR', help=f'write {REPORT}, {CLASS_CURVE} and {IMAGE_SIZES} there'
    )
    parser.add_argument(
        '--no-images',
        action='store_true',
        help='open no image: quick, but finds no broken image and no copy under another name',
    )


def run(args: argparse.Namespace) -> int:
    """Look, print and write.

    Returns:
        0, or 1 where a finding is an error. A config that cannot be read raises ``ValueError``
        or ``OSError``.
    """
    from mmdet_softpl.config_file import find_hook
    from mmdet_softpl.datasets.annotation_findings import finding_of_message
    from mmdet_softpl.datasets.config_findings import LABELLER
    from mmdet_softpl.datasets.config_sets import LABELLED
    from mmdet_softpl.datasets.data_inspection import inspect_data
    from mmdet_softpl.datasets.findings import ERROR, errors_first
    from mmdet_softpl.engine.derived_settings import labeller_settings, training_length
    from mmdet_softpl.engine.settings_findings import boost_findings, settings_findings
    from mmdet_softpl.progress import one_by_one
    from mmdet_softpl.reporting.data_report import data_report

    cfg = read_config(args.config)
    if args.out is not None and Path(args.out).exists() and not Path(args.out).is_dir():
        raise ValueError(f'--out {args.out}: a file has that name; give a folder')
    # Standard output is for the result; the host prints there while it reads annotations.
    with contextlib.redirect_stdout(sys.stderr):
        inspection = inspect_data(
            cfg, read_images=not args.no_images, track=partial(one_by_one, 'reading images')
        )
        length = training_length(cfg, inspection.sets)
        refused = settings_findings(cfg, inspection.sets, length)
    statistics = next(
        (
            s.statistics
            for s in inspection.sets
            if s.configured.role == LABELLED and s.statistics is not None
        ),
        None,
    )
    labeller, unboosted = None, []
    if statistics is not None and not any(LABELLER in f.subject for f in refused):
        try:
            labeller = labeller_settings(cfg, statistics)
        # Where the data have errors the hook was not built, so nothing has said so.
        except ValueError as error:
            refused.append(finding_of_message(ERROR, LABELLER, 'refused setting', str(error)))
        if labeller is not None:
            unboosted = boost_findings(labeller, statistics.image_counts)
    findings = errors_first((*inspection.findings, *refused, *unboosted))
    inspection = replace(inspection, findings=findings)
    has_labeller = find_hook(cfg, LABELLER) is not None
    report = data_report(args.config, inspection, labeller, length, has_labeller)
    if args.json:
        print(json.dumps(report, indent=1))
    else:
        _print(report)
    if args.out is not None:
        for path in _write(Path(args.out), report, inspection):
            print(path, file=sys.stderr if args.json else sys.stdout)
    return 0 if inspection.trains else 1


def read_config(path: str) -> Any:
    """mmengine's ``Config`` of a file, with its ``custom_imports`` done.

    Raises:
        ValueError: the file is no config, or one of its bases or imports is missing.
        OSError: there is no such file.
    """
    from mmdet_softpl.config_file import load_config
    from mmdet_softpl.shipped_configs import given_or_shipped

    path = given_or_shipped(path)
    if not Path(path).is_file():
        raise FileNotFoundError(
            f'{path}: there is no such config; `python -m mmdet_softpl config-path --list` names '
            'the shipped ones, `python -m mmdet_softpl new-config` writes one'
        )
    return load_config(path)


def _write(folder: Path, report: dict[str, Any], inspection: Any) -> list[Path]:
    from mmdet_softpl.atomic_json import write_json
    from mmdet_softpl.reporting.data_overview import draw_class_curve, draw_image_sizes
    from mmdet_softpl.reporting.data_report import image_sizes
    from mmdet_softpl.reporting.figure import save_figure

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / REPORT, report, indent=1)
    classes = report['classes']
    columns = {key: [c[key] for c in classes] for key in (classes[0] if classes else ())}

    def complete(key: str) -> list | None:
        column = columns.get(key)
        return None if not column or None in column else column

    curve = draw_class_curve(
        columns.get('name', ()),
        columns.get('images', ()),
        ['rcf'.index(letter) for letter in columns.get('group', ())],
        complete('validation_images'),
        complete('expected_total'),
    )
    sizes = {s.configured.name: image_sizes(inspection, s) for s in inspection.sets}
    return [
        folder / REPORT,
        save_figure(curve, folder / CLASS_CURVE),
        save_figure(draw_image_sizes(sizes), folder / IMAGE_SIZES),
    ]


def _print(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.text import Text

    from mmdet_softpl.datasets.class_statistics import LEGEND

    terminal = sys.stdout.isatty()
    # A log file or a pipe has no width: nothing is wrapped or cut there.
    console = Console(highlight=False, soft_wrap=True, width=None if terminal else LOG_WIDTH)
    table = _table('sets', terminal)
    for title in ('images', 'used', 'an epoch', 'instances', 'classes', 'r / c / f', 'sides'):
        table.add_column(title, justify='right')
    for one in report['sets']:
        groups = one['groups']
        table.add_row(
            Text(one['name']),
            *(_number(one[key]) for key in ('images', 'used_images', 'epoch_images')),
            _number(one['instances']),
            _number(one['num_classes']),
            ' / '.join(str(n) for n in groups.values()) if groups else '',
            _sides(one['image_sizes']),
        )
    console.print(table, soft_wrap=False)
    if report['classes']:
        console.print(_class_table(report['classes'], terminal), soft_wrap=False)
        console.print(Text(LEGEND))
    for line in _settings(report):
        console.print(Text(line))
    if not report['images_read']:
        console.print(Text('images were not opened (--no-images)'))
    for finding in report['findings']:
        head = f'{finding["severity"]:7}  {finding["subject"]}: {finding["kind"]}'
        console.print(Text(head), style='bold red' if finding['severity'] == 'error' else 'bold')
        console.print(Text(f'         {finding["detail"]}'))
        console.print(Text(f'         -> {finding["remedy"]}'))
    errors = sum(f['severity'] == 'error' for f in report['findings'])
    warnings = len(report['findings']) - errors
    verdict = 'ready to train' if report['trains'] else 'not ready to train'
    console.print(Text(f'{verdict}: {errors} errors, {warnings} warnings'), style='bold')


def _number(value: int | None) -> str:
    return '' if value is None else f'{value:,}'


def _sides(sizes: dict[str, Any] | None) -> str:
    if sizes is None:
        return ''
    low, high = sizes['shorter_side']['min'], sizes['longer_side']['max']
    return f'{low} to {high} px' if low != high else f'{low} px'


def _table(title: str, terminal: bool) -> Any:
    """An empty table with a first column for names."""
    from rich import box
    from rich.table import Table

    from mmdet_softpl.reporting.table import ASCII_HEAD

    table = Table(
        title=title,
        title_justify='left',
        box=box.SIMPLE_HEAD if terminal else ASCII_HEAD,
        pad_edge=False,
    )
    table.add_column('', overflow='fold')
    return table


def _class_table(classes: list[dict[str, Any]], terminal: bool) -> Any:
    from rich.text import Text

    shown = sorted(classes, key=lambda c: -c['images'])
    title = 'classes of the labelled set'
    if len(shown) > MAX_CLASS_ROWS:
        half = MAX_CLASS_ROWS // 2
        title += f', the {half} commonest and the {half} rarest of {len(shown)} (--json has all)'
        shown = shown[:half] + shown[-half:]
    table = _table(title, terminal)
    for column in ('group', 'images', 'instances', 'val images', 'boost', 'repeat', 'expected'):
        table.add_column(column, justify='right')
    for one in shown:
        expected = one['expected_total']
        table.add_row(
            Text(one['name']),
            one['group'],
            _number(one['images']),
            _number(one['instances']),
            _number(one['validation_images']),
            '' if one['boost'] is None else f'{one["boost"]:.2f}',
            f'{math.ceil(one["repeat_factor"])}',
            '' if expected is None else f'{expected:,.1f}',
        )
    return table


def _settings(report: dict[str, Any]) -> Iterator[str]:
    from mmdet_softpl.messages import some_of

    labeller, length = report['settings']['labeller'], report['settings']['length']
    if labeller is None and report['settings']['has_labeller']:
        yield 'pseudo-labels: not derived before the errors are gone'
    elif labeller is None:
        yield 'pseudo-labels: no RareBoostPseudoLabeler, so no boost and one threshold for all'
    else:
        values = ', '.join(f'{key}={value}' for key, value in labeller.items())
        yield f'pseudo-labels: {values}'
        if labeller['threshold_mode'] == 'prior':
            yield (
                'expected: pseudo-labels of the class on all unlabelled images, alpha x labelled '
                'instances an image x unlabelled images'
            )
            few = [c['name'] for c in report['classes'] if c['images'] and c['expected_total'] < 1]
            if few:
                yield (
                    f'expected less than once: {some_of(few)}; raise alpha, or give more '
                    'unlabelled images'
                )
    if length is not None:
        yield (
            f'length: {length["max_iters"]:,} iterations, {length["supervised_iters"]:,} of them '
            f'on labelled images alone; a GPU takes {length["labelled_per_batch"]} labelled and '
            f'{length["unlabelled_per_batch"]} unlabelled images: {length["labelled_passes"]:.1f} '
            f'and {length["unlabelled_passes"]:.1f} passes with one GPU, '
            f'{length["supervised_passes"]:.1f} of the former before unlabelled images come'
        )
