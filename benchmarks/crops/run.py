"""When do pseudo-labels hurt? `python -m benchmarks.crops.run`

Trains a small classifier on labelled crops for a short and for a long while, then goes on with
every arm for the same number of iterations. Writes ``results.json`` (records with ``burn_in``,
``arm``, ``seed``, ``metric``, ``value``) and ``RESULTS.md`` made from it, beside this file.
Arms of a burn-in and a seed are kept in ``results.json`` when all are done; an interrupted run
does the others.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.crops.data import load_crops
from benchmarks.crops.learner import ARMS, BATCH, Arm, train
from benchmarks.longtail.origin import origin
from mmdet_softpl.atomic_json import write_json, write_text

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / 'work_dirs' / 'longtail_data'
# Iterations on labelled crops before the arms part.
BURN_INS = (800, 3000)
ITERS = 1000
COLUMNS = (
    'AP',
    'APr',
    'APc',
    'APf',
    'precision_rare',
    'recall_rare',
    'precision_common',
    'recall_common',
    'precision_frequent',
    'recall_frequent',
)
Records = list[dict[str, object]]


def measure(root: Path, burn_in: int, seed: int, iters: int, arms: list[str]) -> Records:
    """Records of the arms after one burn-in, in this process, on one thread."""
    torch.set_num_threads(1)
    crops, groups = load_crops(root)
    start, _ = train(crops, groups, Arm(unlabeled=False), seed, burn_in, anneal=False)
    records: Records = []
    for name in arms:
        _, metrics = train(crops, groups, ARMS[name], seed, iters, start=start)
        records += [
            dict(
                burn_in=burn_in,
                iters=iters,
                arm=name,
                seed=seed,
                metric=metric,
                value=_number(value),
            )
            for metric, value in metrics.items()
        ]
    return records


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def table(records: Records) -> str:
    """Markdown: mean and, with several seeds, half the range over them."""
    lines: list[str] = []
    for burn_in in sorted({int(str(r['burn_in'])) for r in records}):
        mine = [r for r in records if r['burn_in'] == burn_in]
        lines += [f'## {burn_in} iterations on labelled crops first', '']
        lines += ['| | ' + ' | '.join(COLUMNS) + ' |', '|---' * (len(COLUMNS) + 1) + '|']
        for arm in [name for name in ARMS if any(r['arm'] == name for r in mine)]:
            cells = [_cell([r for r in mine if r['arm'] == arm], m) for m in COLUMNS]
            lines.append(f'| {arm} | ' + ' | '.join(cells) + ' |')
        lines.append('')
    return '\n'.join(lines)


def _cell(records: Records, metric: str) -> str:
    mine = [r['value'] for r in records if r['metric'] == metric]
    values = [float(str(value)) for value in mine if value is not None]
    if not values:
        return '-'
    mean = statistics.fmean(values)
    spread = f' ± {(max(values) - min(values)) / 2:.3f}' if len(values) > 1 else ''
    return f'{mean:.3f}{spread}'


def report(records: Records, iters: int) -> str:
    """The whole page."""
    seeds = sorted({int(str(r['seed'])) for r in records})
    made = origin()
    return '\n'.join(
        [
            '# Crops: when do pseudo-labels hurt?',
            '',
            f'Made by `python -m benchmarks.crops.run --seeds {len(seeds)}` on {made["date"]}, '
            f'{made["hardware"]}, torch {made["torch"]}, commit {made["commit"]}. Seeds: '
            f'{", ".join(map(str, seeds))}; ± is half their range, a row without it has seed 0 '
            'alone.',
            '',
            'The class decision alone: a small network on the true boxes of the detector '
            f"benchmark's images, {BATCH} labelled and {BATCH} unlabelled crops an iteration, "
            f'{iters} iterations from a shared start. AP of each class on the balanced `tune` '
            'split; pseudo-labels against hidden labels.',
            '',
            table(records),
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """Run what is missing and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else '')
    parser.add_argument('--seeds', type=int, default=2)
    parser.add_argument('--iters', type=int, default=ITERS)
    parser.add_argument('--burn-ins', type=int, nargs='+', default=BURN_INS)
    parser.add_argument('--processes', type=int, default=2)
    parser.add_argument('--data', type=Path, default=DATA)
    parser.add_argument('--out', type=Path, default=HERE)
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / 'results.json'
    records: Records = json.loads(path.read_text()) if path.is_file() else []
    other = {int(str(r.get('iters', ITERS))) for r in records} - {args.iters}
    if other:
        parser.error(
            f'{path} has results of {other.pop()} iterations, --iters is {args.iters}; give '
            'another --out.'
        )
    done = {(r['burn_in'], r['seed'], r['arm']) for r in records}
    load_crops(args.data)
    jobs = [
        (burn_in, seed, [arm for arm in ARMS if (burn_in, seed, arm) not in done])
        for seed in range(args.seeds)
        for burn_in in args.burn_ins
    ]
    jobs = [job for job in jobs if job[2]]
    if not jobs:
        print(f'all of it is in {path}; give another --out to train anew')
    bar = Progress(TextColumn('crops'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with bar, ProcessPoolExecutor(args.processes) as pool:
        task = bar.add_task('', total=len(jobs))
        futures = [
            pool.submit(measure, args.data, burn_in, seed, args.iters, arms)
            for burn_in, seed, arms in jobs
        ]
        for future in as_completed(futures):
            records += future.result()
            write_json(path, records)
            write_text(args.out / 'RESULTS.md', report(records, args.iters))
            bar.advance(task)
    print(table(records))
    return 0


if __name__ == '__main__':
    sys.exit(main())
