"""Trainings that a command starts: resumed where they stopped, their validations kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner, find_latest_checkpoint

from mmdet_softpl.atomic_json import write_json

VALIDATIONS = 'validations.json'


class _KeepValidations(Hook):
    """Writes the metrics of every validation by iteration, and hands them on."""

    def __init__(self, path: Path, heard: Callable[[int, dict[str, float]], None]) -> None:
        self.path = path
        self.heard = heard

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        known = read_validations(self.path.parent)
        known[runner.iter] = {key: float(value) for key, value in (metrics or {}).items()}
        write_json(self.path, {str(key): value for key, value in known.items()}, indent=1)
        self.heard(runner.iter, known[runner.iter])


def read_validations(work_dir: Path) -> dict[int, dict[str, float]]:
    """Metrics by iteration of a training in ``work_dir``; empty where there is none."""
    path = Path(work_dir) / VALIDATIONS
    if not path.is_file():
        return {}
    return {int(key): value for key, value in json.loads(path.read_text()).items()}


def train_or_resume(
    cfg: Config,
    work_dir: Path,
    heard: Callable[[int, dict[str, float]], None] = lambda iteration, metrics: None,
) -> Path:
    """Train to ``train_cfg.max_iters`` and return the last checkpoint.

    Starts from the last checkpoint in ``work_dir`` if there is one; a training that is over is
    not started again.

    Args:
        cfg: Of an iteration-based training; ``work_dir`` and ``resume`` are set here.
        work_dir: Of this training alone.
        heard: Called after each validation with iteration and metrics.

    Raises:
        RuntimeError: The training left no checkpoint.
    """
    work_dir = Path(work_dir)
    last = find_latest_checkpoint(str(work_dir)) if work_dir.is_dir() else None
    if last is not None and Path(last).name == f'iter_{cfg.train_cfg.max_iters}.pth':
        return Path(last)
    # mmengine formats the config's text at every checkpoint, a second of CPU each time.
    cfg = Config(cfg.to_dict(), filename=cfg.filename, format_python_code=False)
    cfg.work_dir = str(work_dir)
    if last is not None:
        cfg.resume, cfg.load_from = True, last
    checkpoint = cfg.setdefault('default_hooks', {}).setdefault('checkpoint', {})
    checkpoint.update(type='CheckpointHook', by_epoch=False, save_last=True)
    checkpoint.setdefault('max_keep_ckpts', 1)
    cfg.experiment_name = '-'.join(work_dir.absolute().parts[-3:])
    runner = Runner.from_cfg(cfg)
    runner.register_hook(_KeepValidations(work_dir / VALIDATIONS, heard))
    runner.train()
    last = find_latest_checkpoint(str(work_dir))
    if last is None:
        raise RuntimeError(f'{work_dir}: the training left no checkpoint.')
    return Path(last)


def main_metric(metrics: dict[str, float]) -> tuple[str, float]:
    """Name and value of the metric that trainings are compared by.

    Mask AP before box AP, the teacher's before others, ours before mmdet's.

    Raises:
        ValueError: There is none.
    """
    for ending in ('segm_AP', 'segm_mAP', 'bbox_AP', 'bbox_mAP'):
        names = sorted(
            (key for key in metrics if key.endswith(ending)),
            key=lambda key: not key.startswith('teacher/'),
        )
        if names:
            return names[0], metrics[names[0]]
    raise ValueError(f'validation has no AP, only {", ".join(metrics) or "nothing"}.')
