"""``python -m mmdet_softpl pilot``: what unlabelled images bring, before anybody labels more."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmdet_softpl.engine.pilot_runs import PilotRun

NAME = 'pilot'
HELP = 'train at a few labelled shares and say what unlabelled images save'

EXAMPLE = """example:
  softpl pilot my_config.py --shares 25 50 100 --iters 6000 --out work_dirs/pilot

Trains each share twice, on labelled images alone and with the unlabelled ones, evaluates all on
the held-out images (the validation set, or --held-out JSON --held-out-images DIR), and sweeps
thresholds and calibration on what the last teacher saw of them. Or takes trainings that are there:
  softpl pilot my_config.py --runs labelled:work_dirs/a semi:work_dirs/b labelled:work_dirs/c
Ctrl-C stops it, the same command goes on.
"""
THRESHOLDS = 96
RETURN_METRICS = ('AP', 'APr')
SHARES = (25.0, 50.0, 100.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.set_defaults(resumes=True)
    parser.epilog = EXAMPLE
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument('config', metavar='CONFIG', help='config with unlabelled images')
    parser.add_argument(
        '--shares',
        type=float,
        nargs='+',
        metavar='PERCENT',
        help='of the labelled images (default: 25 50 100)',
    )
    parser.add_argument(
        '--runs',
        nargs='+',
        metavar='KIND:WORK_DIR',
        help='trainings to use instead; KIND is labelled or semi',
    )
    parser.add_argument('--seeds', type=int, help='trainings of each kind (default: 1)')
    parser.add_argument(
        '--iters', type=int, help="iterations of a training, schedule scaled (default: CONFIG's)"
    )
    parser.add_argument('--out', default='work_dirs/pilot', help='folder of everything it writes')
    parser.add_argument('--held-out', metavar='JSON', help='labelled images (default: validation)')
    parser.add_argument('--held-out-images', metavar='DIR', help='their folder')
    parser.add_argument(
        '--seconds-per-instance', type=float, default=79.0, help='to annotate one (default: 79)'
    )
    parser.add_argument(
        '--bootstrap', type=int, default=100, help='draws of the held-out images (default: 100)'
    )
    parser.add_argument('--beta', type=float, default=0.5, help='of F-beta (default: 0.5)')
    parser.add_argument('--batch-size', type=int, default=8, help='images in a forward pass')
    parser.add_argument('--json', action='store_true', help='print pilot.json instead of sentences')


def run(args: argparse.Namespace) -> int:
    """Train what is missing, evaluate, sweep, report.

    Returns:
        0. Bad input raises ``ValueError`` or ``OSError``.
    """
    _check(args)
    # Standard output is for the result; the host prints there while it reads annotations.
    with contextlib.redirect_stdout(sys.stderr):
        result = _pilot(args, Path(args.out))
    if args.json:
        from mmdet_softpl.atomic_json import finite

        print(json.dumps(finite(result)))
    else:
        _print(result, Path(args.out))
    for warning in result['warnings']:
        print(f'warning: {warning}', file=sys.stderr)
    return 0


def _pilot(args: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Train, evaluate, write; what pilot.json holds."""
    from mmdet_softpl.engine.load_teacher import read_config
    from mmdet_softpl.engine.pilot_evaluation import held_out_metric
    from mmdet_softpl.engine.pilot_runs import claim_for_runs, given_runs, plan_runs

    cfg = read_config(args.config)
    # Held-out images and given trainings are looked at before anything is written or trained.
    held_out_metric(cfg, args.held_out, args.held_out_images)
    if args.runs:
        runs = given_runs(args.runs, cfg)
        claim_for_runs(runs, out)
    else:
        shares = SHARES if args.shares is None else args.shares
        runs = plan_runs(cfg, sorted(set(shares)), args.seeds or 1, args.iters, out)
        _train(runs)
    result = _answer(args, cfg, runs, out)
    _write(result, out)
    return result


def _check(args: argparse.Namespace) -> None:
    from mmdet_softpl.checks import check_range

    for name in ('shares', 'seeds', 'iters'):
        if args.runs and getattr(args, name) is not None:
            raise ValueError(
                f'pilot: --{name} is of the trainings that pilot makes, and --runs names finished '
                'ones; leave one of the two out.'
            )
    for share in args.shares or ():
        check_range('pilot', '--shares', share, 0, 100, include_lower=False)
    for name in ('seeds', 'iters'):
        if getattr(args, name) is not None:
            check_range('pilot', f'--{name}', getattr(args, name), 1, None)
    seconds = args.seconds_per_instance
    check_range('pilot', '--seconds-per-instance', seconds, 0, None, include_lower=False)
    check_range('pilot', '--bootstrap', args.bootstrap, 0, None)
    check_range('pilot', '--beta', args.beta, 0, None, include_lower=False)
    check_range('pilot', '--batch-size', args.batch_size, 1, None)


def _train(runs: Sequence[PilotRun]) -> None:
    from mmdet_softpl.engine.short_training import train_or_resume
    from mmdet_softpl.progress import Progress

    progress = Progress('trainings')
    for done, planned in enumerate(runs):
        progress(done, len(runs), planned.name)
        train_or_resume(planned.cfg, planned.work_dir)
    progress(len(runs), len(runs))


def _answer(
    args: argparse.Namespace, cfg: Any, runs: Sequence[PilotRun], out: Path
) -> dict[str, Any]:
    """Everything that pilot.json holds."""
    from mmdet_softpl.engine.pilot_evaluation import evaluate_runs, returns_of, sweep

    evaluated, uncertainty = evaluate_runs(
        cfg,
        runs,
        out,
        ann_file=args.held_out,
        images=args.held_out_images,
        bootstrap=args.bootstrap,
        batch_size=args.batch_size,
    )
    points, returns, missing = returns_of(evaluated, RETURN_METRICS, args.seconds_per_instance)
    semi = [found for found in runs if found.kind == 'semi'] or list(runs)
    looked_at = max(semi, key=lambda found: found.labelled_instances)
    swept = sweep(
        looked_at,
        out,
        ann_file=args.held_out,
        images=args.held_out_images,
        beta=args.beta,
        num_thresholds=THRESHOLDS,
        batch_size=args.batch_size,
    )
    shown = [key for key in evaluated[0]['metrics'] if key.startswith(('segm_AP', 'bbox_AP'))]
    if any(key.startswith('segm_') for key in shown):
        shown = [key for key in shown if key.startswith('segm_')]
    plain = [{k: v for k, v in found.items() if k != 'draws'} for found in evaluated]
    return dict(
        config=args.config,
        seconds=args.seconds_per_instance,
        beta=args.beta,
        runs=plain,
        metrics_shown=shown,
        points=points,
        returns=returns,
        returns_missing=missing,
        uncertainty=uncertainty,
        **swept,
    )


def _write(result: dict[str, Any], out: Path) -> None:
    """pilot.json, pilot.md and the pictures."""
    import torch

    from mmdet_softpl.atomic_json import write_json, write_text
    from mmdet_softpl.reporting.figure import save_figure
    from mmdet_softpl.reporting.pilot import (
        draw_returns,
        draw_sensitivity,
        draw_threshold_curves,
    )
    from mmdet_softpl.reporting.pilot_page import pilot_page
    from mmdet_softpl.reporting.reliability import draw_reliability

    before, after, groups = (torch.tensor(value) for value in result.pop('reliability_counts'))
    save_figure(draw_reliability(before, groups, after), out / 'reliability.png')
    save_figure(draw_threshold_curves(result['thresholds']), out / 'thresholds.png')
    save_figure(draw_sensitivity(result['sensitivity']), out / 'sensitivity.png')
    titles = {record[0]['metric']: record[0]['title'] for record in result['returns'].values()}
    if titles:
        save_figure(draw_returns(result['points'], result['returns'], titles), out / 'returns.png')
    write_json(out / 'pilot.json', result, indent=1)
    write_text(out / 'pilot.md', pilot_page(result))


def _print(result: dict[str, Any], out: Path) -> None:
    from mmdet_softpl.reporting.pilot_page import return_sentence

    for records in result['returns'].values():
        for found in records:
            print(return_sentence(found, result['seconds']).replace('**', ''))
    if not result['returns']:
        print(result['returns_missing'])
    for name, curve in result['thresholds'].items():
        if curve['best_threshold'] is not None:
            place = curve['threshold'].index(curve['best_threshold'])
            print(
                f'best single threshold, {name}: {curve["best_threshold"]:.2f} (precision '
                f'{curve["precision"][place]:.2f}, recall {curve["recall"][place]:.2f})'
            )
    print(out / 'pilot.md')
    print(out / 'pilot.json')
