"""Trainings that a command starts: resumed where they stopped, their validations kept."""

from __future__ import annotations

import json
from bisect import bisect
from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_softpl.atomic_json import write_json
from mmdet_softpl.checkpoint_files import last_checkpoint

VALIDATIONS = 'validations.json'


class _KeepValidations(Hook):
    """Writes the metrics of every validation by iteration, and hands them on."""

    def __init__(
        self,
        path: Path,
        heard: Callable[[int, dict[str, float]], None],
        iteration: int | None = None,
    ) -> None:
        self.path = path
        self.heard = heard
        self.iteration = iteration

    def before_train(self, runner: Runner) -> None:
        """Make up for the validation after the checkpoint that the training goes on from."""
        loop = runner.train_loop
        # As the loop itself does after an iteration.
        step = bisect(loop.dynamic_milestones, runner.iter + 1)
        interval = loop.dynamic_intervals[step - 1]
        due = runner.iter >= max(loop.val_begin, 1) and runner.iter % interval == 0
        known = read_validations(self.path.parent)
        if due and runner.val_loop is not None and runner.iter not in known:
            runner.val_loop.run()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        iteration = runner.iter if self.iteration is None else self.iteration
        known = read_validations(self.path.parent)
        known[iteration] = {key: float(value) for key, value in (metrics or {}).items()}
        write_json(self.path, {str(key): value for key, value in known.items()}, indent=1)
        self.heard(iteration, known[iteration])


def read_validations(work_dir: Path) -> dict[int, dict[str, float]]:
    """Metrics by iteration of a training in ``work_dir``; empty where there is none."""
    path = Path(work_dir) / VALIDATIONS
    if not path.is_file():
        return {}
    return {int(key): value for key, value in json.loads(path.read_text(encoding='utf-8')).items()}


def _validates(cfg: Config) -> bool:
    return bool(cfg.get('val_cfg')) and cfg.train_cfg.get('val_begin', 1) <= cfg.train_cfg.max_iters


def train_or_resume(
    cfg: Config,
    work_dir: Path,
    heard: Callable[[int, dict[str, float]], None] = lambda iteration, metrics: None,
) -> Path:
    """Train to ``train_cfg.max_iters`` and return the last checkpoint.

    Starts from the last checkpoint in ``work_dir`` if there is one. A training that is over is
    not started again; if it was stopped in a validation, that is made up for.

    Args:
        cfg: Of an iteration-based training; ``work_dir`` and ``resume`` are set here.
        work_dir: Of this training alone.
        heard: Called after each validation with iteration and metrics.

    Raises:
        RuntimeError: The training left no checkpoint.
    """
    work_dir = Path(work_dir)
    last = last_checkpoint(work_dir)
    max_iters = cfg.train_cfg.max_iters
    done = last if last is not None and last.name == f'iter_{max_iters}.pth' else None
    if done and (not _validates(cfg) or max_iters in read_validations(work_dir)):
        return done
    # mmengine formats the config's text at every checkpoint, a second of CPU each time.
    cfg = Config(cfg.to_dict(), filename=cfg.filename, format_python_code=False)
    cfg.work_dir = str(work_dir)
    if last is not None:
        cfg.resume, cfg.load_from = done is None, str(last)
    checkpoint = cfg.setdefault('default_hooks', {}).setdefault('checkpoint', {})
    # The best one cannot be gone on from: it has no optimizer.
    checkpoint.update(
        type='CheckpointHook', by_epoch=False, save_last=True, save_best=None, rule=None
    )
    # With 1, mmengine removes the only checkpoint before it writes the next.
    checkpoint.setdefault('max_keep_ckpts', 2)
    cfg.experiment_name = '-'.join(work_dir.absolute().parts[-3:])
    runner = Runner.from_cfg(cfg)
    validations = work_dir / VALIDATIONS
    if done is not None:
        runner.register_hook(_KeepValidations(validations, heard, max_iters))
        runner.val()
        return done
    runner.register_hook(_KeepValidations(validations, heard))
    runner.train()
    last = last_checkpoint(work_dir)
    if last is None:
        raise RuntimeError(f'{work_dir}: the training left no checkpoint.')
    return last


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
