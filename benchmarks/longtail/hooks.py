"""What a run notes while it trains: its cost, its progress and the curves."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_softpl.atomic_json import write_json
from mmdet_softpl.engine.random_state_hook import random_state, restore_random_state

from .batches import StartsHere
from .measure import evaluate, label_sample, part_of_split, quality
from .presets import Preset

CHECKPOINT_KEY = 'longtail_cost'
PROGRESS_SECONDS = 3.0
# What of the metrics is kept for the curves.
CURVE_METRICS = ('segm_AP', 'segm_APr', 'segm_APc', 'segm_APf', 'bbox_AP', 'bbox_APr')


class StartHere(Hook):
    """Resumes without loading the batches that came before, see ``StartsHere``."""

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Before ``RandomStateHook``, which wraps the iterator for its own purpose."""
        loop = runner.train_loop
        loop.dataloader_iterator = StartsHere(loop.dataloader_iterator, runner.iter)


class Cost(Hook):
    """Time and memory of the training, without evaluations; in the checkpoint.

    Args:
        progress: ``Progress`` of the run.
        supervised_iters: Where the second kind of iterations begins.

    Attributes:
        cost: ``seconds`` (wall), ``cpu_seconds``, ``semi_seconds`` and ``semi_cpu_seconds`` (the
            part after the burn-in), ``peak_memory`` in bytes (of the GPU where there is one, else
            of the process).
    """

    priority = 'VERY_HIGH'

    def __init__(self, progress: Progress, supervised_iters: int) -> None:
        self.progress = progress
        self.supervised_iters = supervised_iters
        self.cost = dict.fromkeys(
            ('seconds', 'cpu_seconds', 'semi_seconds', 'semi_cpu_seconds', 'peak_memory'), 0.0
        )

    def restart(self) -> None:
        """What was done since the last iteration is not training."""
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def before_train_epoch(self, runner: Runner) -> None:
        """Start the clock."""
        self.restart()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Add the iteration."""
        wall = time.perf_counter() - self._wall
        cpu = time.process_time() - self._cpu
        self.restart()
        semi = runner.iter >= self.supervised_iters
        for prefix in ('', 'semi_') if semi else ('',):
            self.cost[f'{prefix}seconds'] += wall
            self.cost[f'{prefix}cpu_seconds'] += cpu
        self.cost['peak_memory'] = max(self.cost['peak_memory'], peak_memory())
        self.progress.iteration('semi' if semi else 'supervised', runner.iter + 1, wall)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the cost so far."""
        checkpoint[CHECKPOINT_KEY] = dict(self.cost)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Take it up on a resume."""
        self.cost.update(checkpoint.get(CHECKPOINT_KEY, {}))


def peak_memory() -> float:
    """Bytes: most allocated on the GPU since the last reset, or most the process ever held."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


class Progress:
    """``progress.json`` of a run, from which the runner makes its estimate.

    Args:
        path: The file.
        total: Iterations of the run.
    """

    def __init__(self, path: Path, total: int) -> None:
        self.path = path
        self.state: dict[str, Any] = dict(stage='starts', done=0, total=total, seconds={})
        self._written = 0.0

    def iteration(self, kind: str, done: int, seconds: float) -> None:
        """An iteration of a kind is done; ``seconds`` goes into a moving average of its kind."""
        times = self.state['seconds']
        times[kind] = seconds if kind not in times else 0.98 * times[kind] + 0.02 * seconds
        self.state.update(stage='train', done=done)
        self._write()

    def images(self, done: int, total: int, seconds: float) -> None:
        """Images of an evaluation are done, each in ``seconds``."""
        self.state['seconds']['image'] = seconds
        self.state.update(stage='evaluate', images_done=done, images=total)
        self._write()

    def image(self, seconds: float) -> None:
        """What an image of an evaluation takes."""
        self.state['seconds']['image'] = seconds

    def _write(self) -> None:
        if time.monotonic() - self._written > PROGRESS_SECONDS:
            write_json(self.path, self.state)
            self._written = time.monotonic()

    def close(self) -> None:
        """Write the last state."""
        write_json(self.path, self.state)


class Curves(Hook):
    """Points of the curves, in ``curves.json`` by iteration.

    AP of the teacher on a small part of ``tune`` and the quality of its pseudo-labels on a fixed
    sample of the unlabelled images, at the start of the arm and then every
    ``preset.curve_interval`` iterations. The random states stay as they are.

    Args:
        cfg: Of the arm.
        preset: Sizes.
        data_root: Folder of the data set.
        work_dir: Of the run.
        cost: Its clock is stopped meanwhile.
    """

    priority = 'LOW'

    def __init__(
        self, cfg: Config, preset: Preset, data_root: Path, work_dir: Path, cost: Cost
    ) -> None:
        self.cfg = cfg
        self.preset = preset
        self.data_root = data_root
        self.path = work_dir / 'curves.json'
        self.part = part_of_split(data_root, 'tune', preset.curve_images, work_dir)
        self.cost = cost

    def before_train_epoch(self, runner: Runner) -> None:
        """The burn-in's end is the arm's first point."""
        if str(runner.iter) not in self._read():
            self._add(runner, runner.iter)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Add a point when it is due."""
        done = runner.iter + 1
        if done % self.preset.curve_interval == 0 or done == runner.max_iters:
            self._add(runner, done)
            runner.model.train()

    def _read(self) -> dict[str, dict[str, float]]:
        return json.loads(self.path.read_text()) if self.path.is_file() else {}

    def _add(self, runner: Runner, iteration: int) -> None:
        before, start = random_state(), time.perf_counter()
        found, _ = evaluate(runner.model, self.cfg, self.part, self.data_root / 'tune')
        point = {key: found[key] for key in CURVE_METRICS}
        if hasattr(runner.model, 'class_state'):
            seen = label_sample(runner.model, self.cfg, self.preset.pseudo_images)
            values = quality(seen, self.cfg, self.data_root)
            point |= {key: v for key, v in values.items() if isinstance(v, (int, float))}
        write_json(self.path, self._read() | {str(iteration): point})
        images = self.preset.curve_images + self.preset.pseudo_images
        self.cost.progress.image((time.perf_counter() - start) / images)
        restore_random_state(before)
        self.cost.restart()
