"""The command line of the benchmark; `run.py` is its script."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmdet_softpl.atomic_json import write_json

from .arms import ARMS, MAIN_ARMS, differences
from .data import SPLITS, VERSION, make_data
from .presets import PRESETS, Preset
from .schedule import (
    CPU_SECONDS,
    GPU_SECONDS,
    duration,
    jobs_of,
    run_jobs,
    seconds_left,
)

HERE = Path(__file__).resolve().parent
EXAMPLE = """example:
  python benchmarks/longtail/run.py --preset tiny --out /somewhere/tiny
  python benchmarks/longtail/run.py --preset cpu --arms 0 3 7 --seeds 0 1 2

Interrupted with Ctrl-C, the same command goes on where it was.
"""


def parser() -> argparse.ArgumentParser:
    """Its arguments."""
    made = argparse.ArgumentParser(
        prog='run.py',
        description='Train the arms of the detector benchmark, measure them, write the tables.',
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument('--preset', choices=PRESETS, default='cpu')
    made.add_argument('--arms', nargs='+', choices=ARMS, help="default: the preset's")
    made.add_argument('--seeds', nargs='+', type=int, help="default: 0, 1, ... as the preset's")
    made.add_argument('--splits', nargs='+', choices=SPLITS, default=list(SPLITS))
    made.add_argument('--processes', type=int, help='runs side by side')
    made.add_argument('--device', choices=('auto', 'cpu', 'cuda'), default='auto')
    made.add_argument(
        '--out', type=Path, help='folder of the runs (default: work_dirs/longtail/PRESET)'
    )
    made.add_argument('--data', type=Path, help='folder of the pictures (default: OUT/data)')
    made.add_argument(
        '--results',
        type=Path,
        help='folder of results.json, RESULTS.md and plots/ (default: OUT; without --out '
        'benchmarks/longtail, but for the preset tiny)',
    )
    made.add_argument(
        '--report-only',
        action='store_true',
        help='train nothing, write the tables of what is there',
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run.

    Returns:
        0; 1 if a run failed; 2 for settings that do not fit; 130 after Ctrl-C.
    """
    args = parser().parse_args(argv)
    preset = PRESETS[args.preset]
    out = (args.out or Path('work_dirs') / 'longtail' / preset.name).resolve()
    data_root = (args.data or out / 'data').resolve()
    results = args.results or (out if args.out or preset.name == 'tiny' else HERE)
    arms = [a for a in ARMS if a in (args.arms or preset.arms or MAIN_ARMS)]
    seeds = sorted(set(range(preset.seeds) if args.seeds is None else args.seeds))
    try:
        if args.report_only:
            _check_reportable(out, results, preset.name)
        with claimed(out, preset):
            failed = False
            if not args.report_only:
                failed = _train(args, preset, out, data_root, arms, seeds)
            _report(preset, out, results)
            return int(failed)
    except (ValueError, FileExistsError, BlockingIOError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('\nstopped; the same command goes on from here', file=sys.stderr)
        return 130


def _check_reportable(out: Path, results: Path, preset: str) -> None:
    """Raise ``ValueError`` where a report would be empty, and would replace one that is not."""
    if any((out / 'runs').glob('arm-*')):
        return
    path = results / 'results.json'
    if not path.is_file() or all(r['preset'] != preset for r in json.loads(path.read_text())):
        raise ValueError(
            f'--report-only: there is no run in {out / "runs"}, nor a result of {preset} in {path}.'
        )


def _train(
    args: argparse.Namespace,
    preset: Preset,
    out: Path,
    data_root: Path,
    arms: list[str],
    seeds: list[int],
) -> bool:
    """Make the data, run the jobs; whether one failed."""
    if args.processes is not None and args.processes < 1:
        raise ValueError(f'--processes {args.processes}: give 1 or more.')
    device = _device(args.device)
    processes = args.processes or (preset.processes if device == 'cuda' else cores())
    make_data(data_root, preset.data, preset.draw)
    jobs = jobs_of(arms, seeds)
    defaults = GPU_SECONDS if device == 'cuda' else CPU_SECONDS

    def estimate() -> float:
        return seconds_left(jobs, preset, out, args.splits, processes, defaults)

    print(
        f'{preset.name}: arms {", ".join(arms)}, seeds {", ".join(map(str, seeds))}, '
        f'{processes} at a time on {device}; about {duration(estimate())}',
        flush=True,
    )
    failed = run_jobs(
        jobs,
        preset,
        out,
        data_root,
        args.splits,
        processes,
        device,
        report=lambda line: print(line, flush=True),
        estimate=estimate,
    )
    for job in failed:
        print(f'{job.name} is missing, see {job.folder(out)}/log.txt', file=sys.stderr)
    return bool(failed)


def _report(preset: Preset, out: Path, results: Path) -> None:
    from .report import write_report

    for path in write_report(preset, out, results):
        print(path)


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _device(wanted: str) -> str:
    import torch

    found = torch.cuda.is_available()
    if wanted == 'cuda' and not found:
        raise ValueError('--device cuda: torch finds no GPU here; leave the option out.')
    return 'cuda' if found and wanted != 'cpu' else 'cpu'


@contextmanager
def claimed(out: Path, preset: Preset) -> Iterator[None]:
    """Hold the folder for this process and note the preset in it.

    Raises:
        BlockingIOError: Another process works in it.
        ValueError: It holds runs of another preset, or of other numbers.
    """
    out.mkdir(parents=True, exist_ok=True)
    with open(out / '.lock', 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f'{out}: another benchmark works in this folder.') from None
        settings: dict[str, Any] = json.loads(
            json.dumps(dict(data_version=VERSION, preset=asdict(preset)))
        )
        for key in ('arms', 'seeds', 'processes', 'num_workers'):
            del settings['preset'][key]
        path = out / 'settings.json'
        if path.is_file():
            changed = differences(json.loads(path.read_text()), settings)
            if changed:
                listed = '; '.join(f'{k}: {a!r}, now {b!r}' for k, (a, b) in changed.items())
                raise ValueError(
                    f'{path} is of runs with other settings ({listed}). Give another --out, or '
                    'remove that folder.'
                )
        else:
            write_json(path, settings, indent=1)
        yield
