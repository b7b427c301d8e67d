"""What ``runs.json`` keeps of each run, so that runs of several machines make one report.

Shape letters: **C** foreground classes, **G** = 3 frequency groups, **B** confidence bins.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mmdet_softpl.functional import GROUP_NAMES

from .arms import ARMS
from .data import VERSION
from .job import Job, comparable, config_of
from .presets import Preset

ORIGIN = ('commit', 'date', 'hardware', 'torch')
CURVES = (
    *(f'segm_{metric}' for metric in ('AP', 'APr', 'APc', 'APf')),
    *(f'{group}_pseudo_{metric}' for group in GROUP_NAMES for metric in ('precision', 'recall')),
)
Run = dict[str, Any]
Runs = dict[str, Run]


def jobs_in(out: Path) -> list[Job]:
    """Arms that have a folder, in the order of the arms."""
    found = []
    for arm in ARMS:
        for folder in sorted((out / 'runs').glob(f'arm-{arm}-seed*')):
            seed = folder.name.rsplit('seed', 1)[1]
            # A copy that somebody put aside is none.
            if seed.isdigit():
                found.append(Job(arm, int(seed)))
    return found


def read_runs(preset: Preset, out: Path) -> Runs:
    """The runs of a folder by name, whatever is there.

    Returns:
        Name to ``arm``, ``seed``, ``settings`` (a digest of them), ``finished``, the lists
        ``commit``, ``date``, ``hardware`` and ``torch`` of the parts of the run, ``curves``
        (metric to iterations and values) and ``reliability`` (``classes`` (G,), ``object_raw`` and
        ``object``, each (3, G, B); empty for a supervised run that has no teacher).
    """
    return {job.name: _read_run(job, preset, out) for job in jobs_in(out)}


def carried_runs(old: Mapping[str, Run], new: Mapping[str, Run], preset: Preset) -> Runs:
    """Runs of ``old`` with the present settings that ``new`` lacks, or lacks finished."""
    settings = {arm: digest(arm, preset) for arm in {run['arm'] for run in old.values()} & {*ARMS}}
    return {
        name: run
        for name, run in old.items()
        if settings.get(run['arm']) == run['settings']
        and (name not in new or (run['finished'] and not new[name]['finished']))
    }


def in_order(runs: Mapping[str, Run]) -> Runs:
    """Runs by arm and seed."""
    order = list(ARMS)

    def place(item: tuple[str, Run]) -> tuple[int, int]:
        return order.index(item[1]['arm']), item[1]['seed']

    return dict(sorted(runs.items(), key=place))


def digest(arm: str, preset: Preset) -> str:
    """Short name of all that a new run of an arm depends on but code, seed and device."""
    return _digest(comparable(config_of(Job(arm, 0), preset, 'cpu')), preset)


def _digest(config: Mapping[str, Any], preset: Preset) -> str:
    settings = dict(
        data=VERSION,
        config={key: value for key, value in config.items() if key != 'randomness'},
        stem_iters=preset.stem_iters,
        pseudo_images=preset.pseudo_images,
        curve_images=preset.curve_images,
    )
    if preset.draw is not None:
        settings['draw'] = asdict(preset.draw)
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def _read_run(job: Job, preset: Preset, out: Path) -> Run:
    folder = job.folder(out)
    # What it was begun with, which the arm's config need not be any more.
    config = _read(folder / 'settings.json')
    origins = [_read(part.folder(out) / 'origin.json') for part in _parts(job)]
    pseudo = _read(folder / 'pseudo.json')
    split = 'test' if ARMS[job.arm].knob is None else 'tune'
    return dict(
        arm=job.arm,
        seed=job.seed,
        settings=_digest(config, preset) if config else digest(job.arm, preset),
        # Knobs are compared on `tune` alone.
        finished=all((folder / f'{name}.json').is_file() for name in (split, 'pseudo')),
        **{key: sorted({origin[key] for origin in origins if origin}) for key in ORIGIN},
        curves=_curves(_read(folder / 'curves.json')),
        reliability=_reliability(pseudo) if pseudo else {},
    )


def _parts(job: Job | None) -> Iterator[Job]:
    """A run, its burn-in, its stem."""
    while job is not None:
        yield job
        job = job.needs


def _curves(points: Mapping[str, Mapping[str, float | None]]) -> dict[str, list[list[float]]]:
    """Iterations and values of each metric; points without a value are left out."""
    curves: dict[str, list[list[float]]] = {}
    for iteration in sorted(points, key=int):
        for metric in CURVES:
            value = points[iteration].get(metric)
            if value is not None:
                iterations, values = curves.setdefault(metric, [[], []])
                iterations.append(int(iteration))
                values.append(round(value, 5))
    return curves


def _reliability(pseudo: Mapping[str, Any]) -> dict[str, list]:
    """Counts of all unlabelled images, summed over the classes of each group."""
    groups = torch.tensor(pseudo['groups'])
    found: dict[str, list] = dict(classes=groups.bincount(minlength=len(GROUP_NAMES)).tolist())
    for name in ('object_raw', 'object'):
        counts = torch.tensor(pseudo['all'][name]['reliability'])
        sums = counts.new_zeros(len(counts), len(GROUP_NAMES), counts.shape[-1])
        found[name] = [
            [[round(x, 3) for x in row] for row in part]
            for part in sums.index_add(1, groups, counts).tolist()
        ]
    return found


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}
