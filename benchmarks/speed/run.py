"""Speed of what we add, as ratios: results.json and RESULTS.md.

    make bench-speed                                   # everything
    python -m benchmarks.speed.run --size full iteration --rounds 3

The iterations take images of a quarter of the area with a quarter of the RoIs, unless --size says
otherwise. Run it with OMP_WAIT_POLICY=passive: threads that wait in a loop would count as work.

Every bench writes its rows as soon as it is done; Ctrl-C prints the command for the rest.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.registry import init_default_scope

import mmdet_softpl  # noqa: F401  isort: skip
from benchmarks.longtail.origin import commit
from benchmarks.speed import (
    counts,
    evaluation,
    iteration,
    launches,
    loading,
    losses,
    records,
    scaling,
    waits,
)
from benchmarks.speed.planted import Case

HERE = Path(__file__).resolve().parent
SIZES = {
    'small': Case(size=(224, 320), depth=18, share=0.1),
    'quarter': Case(size=(416, 672), share=0.25),
    'full': Case(size=(800, 1344), share=1.0),
}


def benches(args: argparse.Namespace, device: str, name: str) -> dict[str, Callable]:
    """Rows of each bench."""
    case = dataclasses.replace(SIZES[args.size], device=device, batch=args.batch)
    rounds = args.rounds
    return {
        'state': counts.state_rows,
        'ranks': counts.rank_rows,
        'decoding': counts.decode_rows,
        'loading': lambda: loading.rows(case, rounds),
        'waits': lambda: waits.wait_rows(dataclasses.replace(SIZES['small'], device=device), name),
        'launches': lambda: launches.launch_rows(
            dataclasses.replace(SIZES['small'], detector='faster-rcnn', num_classes=80)
        ),
        'iteration': lambda: iteration.bare_rows(case, name, rounds),
        'host': lambda: iteration.host_rows(case, name, rounds),
        'soft_teacher': lambda: iteration.soft_teacher_rows(case, name, rounds),
        'growth': lambda: iteration.growth_rows(case, name, rounds),
        'evaluation': lambda: evaluation.rows(args.images),
        'scaling': lambda: scaling.rows(dataclasses.replace(case, device='cpu'), rounds),
        # Last: they leave the C library with other rules for large blocks.
        'loss': lambda: losses.smoothed_cross_entropy_rows(device, name, rounds),
        'compile': lambda: losses.compiled_rows(device, name, rounds),
        'masks': lambda: losses.mask_target_rows(device, name, rounds),
    }


def machine(device: str, threads: int) -> str:
    """What the numbers come from."""
    if device == 'cuda':
        return f'{torch.cuda.get_device_name()}, torch {torch.__version__}'
    model = 'CPU'
    cpuinfo = Path('/proc/cpuinfo')
    if cpuinfo.is_file():
        names = [n for n in cpuinfo.read_text().splitlines() if n.startswith('model name')]
        model = names[0].split(':', 1)[1].strip() if names else model
    return f'{model}, {threads} of {os.cpu_count()} threads, torch {torch.__version__}'


def main() -> int:
    """Run the benches asked for.

    Returns:
        0; 130 after Ctrl-C.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('which', nargs='*', help='benches; default all')
    parser.add_argument('--size', choices=SIZES, default='quarter', help='of the iterations')
    parser.add_argument(
        '--batch', type=int, default=1, help='labelled images of an iteration, and unlabelled ones'
    )
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--images', type=int, default=1000, help='of the evaluation')
    parser.add_argument('--out', type=Path, default=HERE)
    args = parser.parse_args()
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    name = torch.cuda.get_device_name() if device == 'cuda' else 'cpu'
    known = benches(args, device, name)
    if unknown := set(args.which) - set(known):
        parser.error(f'unknown bench {", ".join(sorted(unknown))}; known: {", ".join(known)}')
    torch.set_num_threads(args.threads)
    init_default_scope('mmdet')
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / 'results.json'
    wanted = list(args.which or known)
    for position, bench in enumerate(wanted):
        begin = time.perf_counter()
        try:
            rows = known[bench]()
        except KeyboardInterrupt:
            options = [word for word in sys.argv[1:] if word not in known]
            rest = shlex.join([*wanted[position:], *options])
            print(f'stopped; go on with: python -m benchmarks.speed.run {rest}', file=sys.stderr)
            return 130
        run = dict(
            bench=bench,
            date=datetime.date.today().isoformat(),
            commit=commit(),
            machine=machine(device, args.threads),
            load=round(os.getloadavg()[0], 1),
        )
        content = records.update(path, rows, run)
        page = args.out / 'RESULTS.md'
        temporary = page.with_suffix('.tmp')
        temporary.write_text(records.page(content))
        temporary.replace(page)
        for row in rows:
            print(f'{row.what} [{row.case}]: {row.ratio:.3g}, target {row.target:g}', flush=True)
        print(f'({bench} took {time.perf_counter() - begin:.0f} s)', flush=True)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
