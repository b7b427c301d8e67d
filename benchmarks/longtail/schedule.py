"""Runs jobs side by side in processes of their own and says when it will be over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .arms import ARMS
from .job import Job
from .presets import Preset

ROOT = Path(__file__).resolve().parents[2]
POLL_SECONDS = 1.0
# What a run gets to end by itself.
END_SECONDS = 20.0
# On one core of an AMD EPYC, and beside ten other processes on an H200 (seen of `semi` alone), by
# kind of work; what is measured replaces it.
CPU_SECONDS = {'supervised': 0.35, 'semi': 0.9, 'image': 0.1}
GPU_SECONDS = {'supervised': 0.2, 'semi': 0.5, 'image': 0.03}
# Start of Python and reading of the data, and what lies between two stages.
START_SECONDS = 20.0


def jobs_of(arms: Sequence[str], seeds: Sequence[int]) -> list[Job]:
    """All jobs, seed by seed, so that what there is can be compared early; shared parts first."""
    jobs: list[Job] = []
    for seed in seeds:
        wanted = [Job(arm, seed) for arm in arms]
        burn_ins = list(dict.fromkeys(job.needs for job in wanted if job.needs))
        stems = list(dict.fromkeys(job.needs for job in burn_ins if job.needs))
        jobs += [*stems, *burn_ins, *wanted]
    return jobs


@dataclass
class Work:
    """What is left of a job, in iterations and images, and how long each was seen to take."""

    left: dict[str, int]
    seconds: dict[str, float] = field(default_factory=dict)


def work_of(job: Job, preset: Preset, out: Path, splits: Sequence[str]) -> Work:
    """What is left of a job, from its folder.

    Args:
        job: The job.
        preset: Sizes.
        out: Folder of everything.
        splits: Those that are measured at the end.
    """
    folder = job.folder(out)
    state: dict = {}
    if (folder / 'progress.json').is_file():
        state = json.loads((folder / 'progress.json').read_text())
    seconds = dict(state.get('seconds', {}))
    semi = ARMS[job.arm].unlabeled and job.stage == 'arm'
    if 'semi' in seconds and not semi:
        seconds['supervised'] = seconds.pop('semi')
    kind = 'semi' if semi else 'supervised'
    if job.is_done(out, tuple(splits)):
        return Work({}, seconds)
    first, last = job.span(preset)
    done = first if not state else max(first, state['done'])
    if (folder / 'final.pth').is_file():
        done = last
    left = {kind: last - done}
    if job.stage == 'arm':
        sizes = preset.images
        images = sum(sizes[s] for s in splits if not (folder / f'{s}.json').is_file())
        if not (folder / 'pseudo.json').is_file():
            images += sizes['unlabeled']
        points = int(done == first)
        if done < last:
            points += last // preset.curve_interval - done // preset.curve_interval
            points += last % preset.curve_interval != 0
        images += points * (preset.curve_images + preset.pseudo_images)
        if state.get('stage') == 'evaluate':
            images -= min(state.get('images_done', 0), images)
        left['image'] = images
    return Work(left, seconds)


def seconds_left(
    jobs: Sequence[Job],
    preset: Preset,
    out: Path,
    splits: Sequence[str],
    processes: int,
    defaults: dict[str, float],
) -> float:
    """Estimate for all jobs: work left times the seconds measured so far, over the processes."""
    works = [work_of(job, preset, out, splits) for job in jobs]
    mean = dict(defaults)
    for kind in defaults:
        seen = [work.seconds[kind] for work in works if kind in work.seconds]
        if seen:
            mean[kind] = sum(seen) / len(seen)
    if not any('semi' in work.seconds for work in works):
        # Before the first one ran: as many times a supervised iteration as by default.
        mean['semi'] = mean['supervised'] * defaults['semi'] / defaults['supervised']
    single = [
        sum(n * work.seconds.get(kind, mean[kind]) for kind, n in work.left.items())
        + (START_SECONDS if work.left else 0)
        for work in works
    ]
    return max(sum(single) / processes, max(single, default=0.0))


def run_jobs(
    jobs: Sequence[Job],
    preset: Preset,
    out: Path,
    data_root: Path,
    splits: Sequence[str],
    processes: int,
    device: str,
    report: Callable[[str], None],
    estimate: Callable[[], float],
    every: float = 30.0,
) -> list[Job]:
    """Run what is not done; a job waits for what it goes on from.

    A job that fails is reported and left out, with those that need it; the others go on.

    Args:
        jobs: All jobs, in the order in which they should start.
        preset: Sizes.
        out: Folder of everything.
        data_root: Folder of the data set.
        splits: What is measured at the end.
        processes: Jobs at the same time.
        device: ``'cpu'`` or ``'cuda'``.
        report: Told a line now and then.
        estimate: Seconds left.
        every: Seconds between two lines.

    Returns:
        The jobs that failed or could not start.
    """
    wanted = tuple(splits)
    waiting = [job for job in jobs if not job.is_done(out, wanted)]
    running: dict[Job, subprocess.Popen] = {}
    failed: list[Job] = []
    said = time.monotonic()
    try:
        while waiting or running:
            for job, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[job]
                if process.returncode:
                    failed.append(job)
                    report(f'{job.name} failed:\n{tail(log_file(job, out))}')
                else:
                    report(f'{job.name} done, {duration(estimate())} left')
            for job in list(waiting):
                needs = job.needs
                if needs in failed:
                    waiting.remove(job)
                    failed.append(job)
                elif len(running) < processes and (needs is None or needs.is_done(out, wanted)):
                    waiting.remove(job)
                    running[job] = start(job, preset, out, data_root, wanted, device)
            if time.monotonic() - said > every:
                said = time.monotonic()
                now = ', '.join(state_of(job, out) for job in running)
                report(f'{len(waiting)} waiting; {now}; {duration(estimate())} left')
            if running:
                time.sleep(POLL_SECONDS)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                # Suspended, or in the middle of something long.
                process.kill()
                process.wait()
    return failed


def start(
    job: Job, preset: Preset, out: Path, data_root: Path, splits: tuple[str, ...], device: str
) -> subprocess.Popen:
    """Start a job; its output goes to ``log.txt`` in its folder."""
    job.folder(out).mkdir(parents=True, exist_ok=True)
    command = [sys.executable, '-m', 'benchmarks.longtail.job']
    command += ['--preset', preset.name, '--arm', job.arm, '--seed', str(job.seed)]
    command += ['--stage', job.stage, '--out', str(out), '--data', str(data_root)]
    command += ['--splits', *splits]
    environment = dict(os.environ, OMP_NUM_THREADS='1', MKL_NUM_THREADS='1')
    environment['PYTHONPATH'] = os.pathsep.join(
        [str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
    )
    if device == 'cpu':
        environment['CUDA_VISIBLE_DEVICES'] = ''
    with open(log_file(job, out), 'ab') as log:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )


def log_file(job: Job, out: Path) -> Path:
    """What a job prints."""
    return job.folder(out) / 'log.txt'


def tail(path: Path, lines: int = 12) -> str:
    """The last lines of a file."""
    return '\n'.join(path.read_text(errors='replace').splitlines()[-lines:])


def state_of(job: Job, out: Path) -> str:
    """Where a running job is."""
    path = job.folder(out) / 'progress.json'
    if not path.is_file():
        return f'{job.name} starts'
    state = json.loads(path.read_text())
    if state['stage'] == 'evaluate':
        return f'{job.name} evaluates {state["images_done"]}/{state["images"]}'
    return f'{job.name} {state["done"]}/{state["total"]}'


def duration(seconds: float) -> str:
    """``1 h 05 min``, ``5 min``."""
    minutes = max(round(seconds / 60), 1)
    return f'{minutes // 60} h {minutes % 60:02d} min' if minutes >= 60 else f'{minutes} min'
