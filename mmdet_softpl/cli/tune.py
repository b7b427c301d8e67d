"""``python -m mmdet_softpl tune``: boost, prototypes and thresholds, chosen without training.

The teacher looks at held-out labelled images once; every setting is then replayed on what it saw.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmdet_softpl.engine.held_out import HeldOut

NAME = 'tune'
PROXY = (
    'geometric mean over groups of the F1 of soft labels and of what they give the true class of '
    'an object (of hard labels: of their F1)'
)
HELP = 'choose boost, prototype weights, thresholds on held-out images, without training'

EXAMPLE = """example:
  softpl tune my_config.py --checkpoint work_dirs/parts/iter_20000.pth --trials 200

The validation set of the config is looked at, or --held-out JSON --held-out-images DIR. Settings
are chosen on one half of it and reported on the other. The result is a config that inherits
CONFIG, a picture and tune.json in the folder --out. Ctrl-C stops it, the same command goes on.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.set_defaults(resumes=True)
    parser.epilog = EXAMPLE
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument('config', metavar='CONFIG', help='config of the training')
    parser.add_argument(
        '--checkpoint', required=True, help='of that training; its teacher is looked through'
    )
    parser.add_argument('--out', help='folder of the results (default: tune/ beside CHECKPOINT)')
    parser.add_argument('--trials', type=int, default=200, help='settings to try (default: 200)')
    parser.add_argument('--held-out', metavar='JSON', help='labelled images (default: validation)')
    parser.add_argument('--held-out-images', metavar='DIR', help='their folder')
    parser.add_argument(
        '--online',
        type=int,
        default=0,
        metavar='N',
        help='also train the config and the N best settings for --online-iters (default: 0)',
    )
    parser.add_argument(
        '--online-iters', type=int, default=1000, help='iterations of each (default: 1000)'
    )
    parser.add_argument('--batch-size', type=int, default=8, help='images in a forward pass')
    parser.add_argument('--seed', type=int, default=0, help='of the halves and the search')
    parser.add_argument('--json', action='store_true', help='print tune.json instead of a table')


def run(args: argparse.Namespace) -> int:
    """Look, search, compare on the other half, write.

    Returns:
        0; 1 where the settings found are worse than the config's on the second half (no config is
        written then). Bad input raises ``ValueError`` or ``OSError``.
    """
    from mmdet_softpl.checks import check_range

    check_range('tune', '--trials', args.trials, 1, None)
    check_range('tune', '--online', args.online, 0, None)
    check_range('tune', '--online-iters', args.online_iters, 1, None)
    check_range('tune', '--batch-size', args.batch_size, 1, None)
    check_range('tune', '--seed', args.seed, 0, None)
    from mmdet_softpl.engine.held_out import look_at_held_out, require_optuna
    from mmdet_softpl.engine.load_teacher import read_config

    require_optuna()
    out = Path(args.out or Path(args.checkpoint).parent / 'tune')
    if out.exists() and not out.is_dir():
        raise ValueError(f'--out must be a folder, this is a file: {out}')
    # Standard output is for the result; the host prints there while it reads annotations.
    with contextlib.redirect_stdout(sys.stderr):
        held_out = look_at_held_out(
            read_config(args.config),
            args.checkpoint,
            out,
            ann_file=args.held_out,
            images=args.held_out_images,
            batch_size=args.batch_size,
        )
        result = _search(args, held_out, out)
        _write(args, held_out, result, out)
        if args.online:
            result['online'] = _train(args, held_out, result, out)
            _write(args, held_out, result, out)
    if args.json:
        from mmdet_softpl.atomic_json import json_text

        print(json_text(result))
    else:
        _print(result, out)
    for warning in held_out.warnings:
        print(f'warning: {warning}', file=sys.stderr)
    return 1 if result['verdict'] == 'worse' else 0


def _search(args: argparse.Namespace, held_out: HeldOut, out: Path) -> dict[str, Any]:
    """The study and the comparison; plain values."""
    from mmdet_softpl.evaluation.label_search import LabelSearch, search_settings
    from mmdet_softpl.progress import Progress

    search = LabelSearch(
        held_out.dump,
        held_out.statistics,
        held_out.detector.labeling_cfg,
        object_weights=held_out.object_weights,
        seed=args.seed,
    )
    start = held_out.settings
    name = held_out.study_name(start, PROXY, args.seed)
    report = Progress('trying settings')
    found = search_settings(
        search,
        start,
        out / 'study.db',
        name,
        args.trials,
        progress=lambda done, total, best: report(done, total, f'best proxy {best:.3f}'),
    )
    return dict(
        config=args.config,
        checkpoint=args.checkpoint,
        held_out=held_out.ann_file,
        images=dict(tune=len(search.tune_half), report=len(search.report_half)),
        proxy=PROXY,
        class_mix_weighted=held_out.object_weights is not None,
        start=dataclasses.asdict(start),
        best=dataclasses.asdict(found.best),
        **search.compare(start, found.best),
        importances=found.importances,
        trials=found.trials,
        warnings=list(held_out.warnings),
    )


def _train(
    args: argparse.Namespace, held_out: HeldOut, result: dict[str, Any], out: Path
) -> dict[str, Any]:
    from mmdet_softpl.engine.online_tuning import train_settings

    return train_settings(
        held_out.cfg,
        args.checkpoint,
        result['start'],
        result['trials'],
        args.online,
        args.online_iters,
        out / 'online',
        seed=args.seed,
        temperatures=held_out.dump.temperatures,
    )


def _write(args: argparse.Namespace, held_out: HeldOut, result: dict[str, Any], out: Path) -> None:
    """tune.json, tune.png and, unless it would do harm, the config."""
    import numpy as np

    from mmdet_softpl.atomic_json import write_json, write_text
    from mmdet_softpl.engine.tuned_config import tuned_config_text
    from mmdet_softpl.evaluation.label_replay import LabelSettings
    from mmdet_softpl.evaluation.label_search import pareto_front
    from mmdet_softpl.reporting.figure import save_figure
    from mmdet_softpl.reporting.tuning import draw_tuning

    trials = result['trials']
    points = np.array([(t['learned_recall'], t['learned_precision']) for t in trials])
    front = pareto_front(points)
    for trial, on_front in zip(trials, front.tolist(), strict=True):
        trial['on_front'] = on_front
    tune = result['tune']
    low, high = result['interval']
    figure = draw_tuning(
        result['importances'],
        trials,
        front.tolist(),
        tune['old'],
        tune['new'],
        f'chosen on one half of the images; on the other half the proxy changes by {low:+.3f} to '
        f'{high:+.3f} (95 %): {result["verdict"]}',
    )
    save_figure(figure, out / 'tune.png')
    result['picture'] = str(out / 'tune.png')
    result['tuned_config'] = None
    path = out / f'{Path(args.config).stem}_tuned.py'
    if result['verdict'] != 'worse':
        settings = LabelSettings.from_dict(result['best'])
        text = tuned_config_text(
            held_out.cfg,
            _base_of(args.config, out),
            settings,
            held_out.dump.temperatures,
            _comment(result),
        )
        write_text(path, text)
        result['tuned_config'] = str(path)
    elif path.exists():
        # Of an earlier call with fewer trials: it would contradict this result.
        path.unlink()
    write_json(out / 'tune.json', result, indent=1)


def _base_of(config: str, out: Path) -> str:
    """How a config in ``out`` names the one that it inherits.

    mmengine takes `..` out of paths as text: behind a symbolic link only the whole path is right.
    """
    from mmdet_softpl.relative_path import relative_path

    text = os.path.relpath(config, out).replace(os.sep, '/')
    return text if text == relative_path(config, out) else os.path.abspath(config)


def _comment(result: dict[str, Any]) -> str:
    """What is known about the settings, for the head of the config."""
    old, new = (result['report'][side]['proxy'] for side in ('old', 'new'))
    low, high = result['interval']
    return (
        f'Written by `softpl tune` after {len(result["trials"])} trials on '
        f'{result["images"]["tune"]} images.\n'
        f'Proxy on {result["images"]["report"]} other images: {old:.3f} before, {new:.3f} now, '
        f'difference {low:+.3f} to {high:+.3f} (95 %): {result["verdict"]}.'
    )


def _print(result: dict[str, Any], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from mmdet_softpl.engine.tuned_config import labeller_arguments
    from mmdet_softpl.evaluation.label_replay import LabelSettings
    from mmdet_softpl.functional import GROUP_NAMES

    table = Table(title=f'On {result["images"]["report"]} images that were not tuned on')
    for title in ('', 'config', 'tuned'):
        table.add_column(title, justify='left' if not title else 'right')
    old, new = result['report']['old'], result['report']['new']
    rows = [('proxy', 'proxy'), ('F1 of what is learned', 'learned_f1')]
    if 'likelihood' in old:
        rows.append(('given to the true class', 'likelihood'))
    rows.append(('calibration error', 'ece'))
    rows += [
        (f'given to the true class, {group}', f'likelihood_{group}')
        for group in GROUP_NAMES
        if f'likelihood_{group}' in old
    ]
    rows += [
        (f'{what} {kind}, {group}', f'{key}{kind}_{group}')
        for what, key in (('learned', 'learned_'), ('kept', ''))
        for group in GROUP_NAMES
        for kind in ('precision', 'recall')
        if f'{key}{kind}_{group}' in old
    ]
    for title, key in rows:
        table.add_row(title, _number(old[key]), _number(new[key]))
    console = Console()
    console.print(table)
    low, high = result['interval']
    print(f'proxy, tuned - config: {low:+.3f} to {high:+.3f} (95 %): {result["verdict"]}')
    if result['verdict'] == 'better' and not result.get('online'):
        print(
            'That is the proxy: it finds bad settings; in the four full trainings that followed '
            'such a choice, one of them by this proxy, the AP did not rise.'
        )
    settings = LabelSettings.from_dict(result['best'])
    read = {*labeller_arguments(settings, True), 'temperature', 'calibration', 'label_temperature'}
    changed = [k for k in result['best'] if result['best'][k] != result['start'][k]]
    for key in filter(read.__contains__, changed):
        print(f'{key}: {_short(result["start"][key])} -> {_short(result["best"][key])}')
    online = result.get('online')
    if online:
        for record in online['trainings']:
            score = '-' if record['score'] is None else f'{record["score"]:.4f}'
            print(f'trained, {record["name"]}: {online["metric"]} {score} ({record["state"]})')
        print(online['ranking'])
    for path in (result['tuned_config'], result['picture'], out / 'tune.json'):
        if path is not None:
            print(path)
    if result['tuned_config'] is None:
        print('no config was written: keep your own settings')
    elif result['verdict'] == 'cannot tell':
        print('no evidence that these settings are better than your own: keep those')


def _number(value: float) -> str:
    """- for the precision of a group that keeps nothing."""
    return '-' if value != value else f'{value:.3f}'


def _short(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return '(' + ', '.join(_short(item) for item in value) + ')'
    return f'{value:.3g}' if isinstance(value, float) else str(value)
