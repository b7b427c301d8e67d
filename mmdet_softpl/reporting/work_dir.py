"""What a work directory of mmengine says about its training.

Shape letters: **C** foreground classes, **G** = 3 frequency groups, **B** confidence bins.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmdet_softpl.checkpoint_files import last_checkpoint
from mmdet_softpl.functional.frequency import GROUP_NAMES
from mmdet_softpl.run_records import (
    AUDIT_FILE,
    PSEUDO_LABELS_FILE,
    VALIDATIONS_FILE,
    after_restarts,
    metrics_by_network,
    read_records,
)

TIMESTAMP = re.compile(r'\d{8}_\d{6}$')
ENVIRONMENT = re.compile(r'System environment:\n(.*?)\n\s*\n?Runtime environment', re.DOTALL)


@dataclass
class WorkDir:
    """A training as its files tell it; lists are empty and values None where nothing was written.

    Attributes:
        path: The folder.
        losses: Logged training iterations: ``iter`` and the values of mmengine's log.
        validations: See ``VALIDATIONS_FILE`` of ``run_records``; those without per-class results
            come from mmengine's own log.
        validations_recorded: Whether a start of the training wrote ``VALIDATIONS_FILE``.
        refreshes: See ``PSEUDO_LABELS_FILE`` there.
        audit: ``pseudo_label_audit.json``, written at the end of the training; None while a newer
            start goes on.
        classes: (C,) names.
        groups: (C,) 0 rare, 1 common, 2 frequent, or None where nobody counted.
        supervised_iters: Iterations on labelled images alone, before any pseudo-label; 0 where
            nobody wrote them down.
        expected: (C,) labelled instances per labelled image, or None.
        config: Path of the config that mmengine saved for the newest start.
        checkpoint: The newest checkpoint.
        environment: Name and value of each line of mmengine's log about the machine.
        starts: Time stamps of the starts of the training, oldest first; those of tests are left
            out, except where nothing has been trained yet.
        begun: Time stamp of the newest start that did not go on from a checkpoint, or empty: what
            earlier ones left is of another training.
    """

    path: Path
    losses: list[dict[str, Any]] = field(default_factory=list)
    validations: list[dict[str, Any]] = field(default_factory=list)
    validations_recorded: bool = False
    refreshes: list[dict[str, Any]] = field(default_factory=list)
    audit: dict[str, Any] | None = None
    classes: list[str] = field(default_factory=list)
    groups: list[int] | None = None
    supervised_iters: int = 0
    expected: list[float] | None = None
    config: Path | None = None
    checkpoint: Path | None = None
    environment: list[tuple[str, str]] = field(default_factory=list)
    starts: list[str] = field(default_factory=list)
    begun: str = ''


@dataclass(frozen=True)
class _Start:
    """One start of a training.

    Attributes:
        name: Its time stamp.
        start_iter: The iteration at which it went on.
        last_iter: Where the first later start went on: what it wrote of later iterations was
            undone.
        losses, logged: Training iterations and validations of mmengine's log.
        validations, refreshes: Head and records of our files, or None.
    """

    name: str
    start_iter: int
    last_iter: float
    losses: list[dict]
    logged: list[dict]
    validations: tuple[dict, list[dict]] | None
    refreshes: tuple[dict, list[dict]] | None

    def lasts(self, records: Sequence[dict]) -> bool:
        """Whether a later start left any of its records."""
        return any(record['iter'] <= self.last_iter for record in records)


def read_work_dir(path: Path) -> WorkDir:
    """Read what there is.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It is a file, or a folder that no training wrote to; the message says which
            folders near it are work directories.
    """
    folders = _starts(path)
    starts = _training_starts(folders)
    trained = {start.name for start in starts}
    # A test may have had another config, and another machine.
    folders = [folder for folder in folders if folder.name in trained] or folders
    run = WorkDir(path=path, starts=[folder.name for folder in folders])
    run.losses = after_restarts((start.start_iter, start.losses) for start in starts)
    _read_validations(run, starts)
    _read_refreshes(run, starts)
    _read_audit(run, starts)
    run.config = _config(path, folders)
    run.checkpoint = last_checkpoint(path)
    run.begun = max((start.name for start in starts if start.start_iter == 0), default='')
    run.environment = _environment(folders)
    return run


def _starts(path: Path) -> list[Path]:
    """The folders ``TIMESTAMP`` of a work directory."""
    if path.is_file():
        raise ValueError(
            f'{path} is a file; give the work directory of a training (its --work-dir).'
        )
    if not path.is_dir():
        raise FileNotFoundError(f'there is no folder {path}.')
    starts = sorted(p for p in path.iterdir() if p.is_dir() and TIMESTAMP.match(p.name))
    if starts:
        return starts
    if TIMESTAMP.match(path.resolve().name):
        raise ValueError(
            f'{path} is one start of a training; give the folder above it, {path.resolve().parent}.'
        )
    below = sorted(
        child.name
        for child in path.iterdir()
        if child.is_dir() and any(TIMESTAMP.match(p.name) for p in child.iterdir() if p.is_dir())
    )
    hint = f' Work directories in it: {", ".join(below[:8])}.' if below else ''
    raise ValueError(
        f'{path} is not the work directory of a training: it has no folder named like '
        f'20260131_235959 with the logs of mmengine.{hint}'
    )


def _scalars(path: Path) -> tuple[list[dict], list[dict]]:
    """Training iterations and validations of one ``scalars.json``."""
    losses: list[dict] = []
    validations: list[dict] = []
    if not path.is_file():
        return losses, validations
    for record in read_records(path):
        if 'loss' in record:
            losses.append(dict(record, iter=int(record.get('iter', record.get('step', 0)))))
        elif any('AP' in key or 'ece' in key for key in record):
            # By default mmengine logs validations at the number of an epoch, in a training without
            # epochs at 0: then they follow an iteration.
            last = losses[-1]['iter'] if losses else 0
            step = 0 if losses and 'epoch' in losses[-1] else record.get('step')
            validations.append(dict(iter=int(step or last), parts=_parts_of(record)))
    return losses, validations


def _parts_of(record: dict[str, Any]) -> dict[str, dict]:
    metrics = {
        key: value
        for key, value in record.items()
        if key not in ('step', 'time', 'data_time', 'memory') and isinstance(value, (int, float))
    }
    parts = {name: dict(metrics=own) for name, own in metrics_by_network(metrics).items()}
    return parts or {'model': dict(metrics=metrics)}


def _training_starts(folders: Sequence[Path]) -> list[_Start]:
    """The starts that trained, oldest first.

    Tests make folders too, and a training makes one before it has done anything.
    """
    starts: list[_Start] = []
    last_iter = float('inf')
    for folder in reversed(folders):
        losses, logged = _scalars(folder / 'vis_data' / 'scalars.json')
        ours = [_with_head(folder, name) for name in (VALIDATIONS_FILE, PSEUDO_LABELS_FILE)]
        heads = [found[0]['start_iter'] for found in ours if found is not None]
        if not heads and not losses:
            continue
        start_iter = heads[0] if heads else _begin_of(losses)
        starts.append(_Start(folder.name, start_iter, last_iter, losses, logged, *ours))
        last_iter = min(last_iter, start_iter)
    return starts[::-1]


def _begin_of(losses: Sequence[dict]) -> int:
    """Iteration before the first logged one, by as much as lies between the first two."""
    first, second = losses[0]['iter'], losses[min(1, len(losses) - 1)]['iter']
    return max(first - max(second - first, 1), 0)


def _with_head(start: Path, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
    path = start / name
    records = read_records(path) if path.is_file() else []
    return (records[0], records[1:]) if records else None


def _read_validations(run: WorkDir, starts: Sequence[_Start]) -> None:
    parts: list[tuple[int, list[dict]]] = []
    for start in starts:
        head, records = start.validations or ({}, start.logged)
        if head and start.lasts(records):
            run.classes = list(head['classes']) or run.classes
            run.groups = head['groups'] or run.groups
            run.supervised_iters = head.get('supervised_iters', 0)
        parts.append((start.start_iter, records))
    run.validations = after_restarts(parts)
    run.validations_recorded = any(start.validations is not None for start in starts)


def _read_refreshes(run: WorkDir, starts: Sequence[_Start]) -> None:
    parts: list[tuple[int, list[dict]]] = []
    for start in starts:
        head, records = start.refreshes or ({}, [])
        if head and start.lasts(records):
            run.classes, run.groups = list(head['classes']), list(head['groups'])
            run.expected = list(head['expected_per_image'])
        parts.append((start.start_iter, records))
    run.refreshes = after_restarts(parts)


def _read_audit(run: WorkDir, starts: Sequence[_Start]) -> None:
    path = run.path / AUDIT_FILE
    if not path.is_file():
        return
    try:
        audit = json.loads(path.read_text(encoding='utf-8'))
        records = audit['classes']
        names = [record['name'] for record in records]
        groups = [GROUP_NAMES.index(record['group']) for record in records]
        expected = [record['expected_per_image'] for record in records]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path} is not an audit of RareBoostPseudoLabeler: {error!r}.') from error
    if run.classes and run.classes != names:
        # Of an older training in the same folder.
        return
    # A start that had nothing left to train wrote the audit again, under a later time stamp.
    if starts and audit.get('timestamp', starts[-1].name) < starts[-1].name:
        return
    run.audit, run.classes, run.groups, run.expected = audit, names, groups, expected


def _config(path: Path, starts: Sequence[Path]) -> Path | None:
    for start in reversed(starts):
        config = start / 'vis_data' / 'config.py'
        if config.is_file():
            return config
    configs = sorted(path.glob('*.py'), key=lambda p: p.stat().st_mtime)
    return configs[-1] if configs else None


def _environment(starts: Sequence[Path]) -> list[tuple[str, str]]:
    """From the newest log that has it; mmengine writes it at every start."""
    for start in reversed(starts):
        for log in sorted(start.glob('*.log')):
            match = ENVIRONMENT.search(log.read_text(encoding='utf-8', errors='replace'))
            if match:
                return list(_pairs(match[1]))
    return []


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        # How PyTorch was compiled, on lines of their own.
        if line.startswith('  - '):
            continue
        name, separator, value = line.strip().partition(': ')
        if separator and len(name) < 60:
            yield name, value
