"""Random states in the checkpoint, so that a resumed run repeats the uninterrupted one."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmdet.registry import HOOKS as MMDET_HOOKS
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_softpl.registry import HOOKS

CHECKPOINT_KEY = 'random_state'


@MMDET_HOOKS.register_module()
@HOOKS.register_module()
class RandomStateHook(Hook):
    """Saves the random states of Python, NumPy and torch and takes them up again on a resume.

    The order of the images is the sampler's, see ``QuickResumeHook``.

    mmengine skips the data that was already trained on but starts the generators anew, so RoI
    sampling would differ, and without data workers the augmentation too. A validation leaves
    the states as they were: a run that resumes from a checkpoint saved just before one does
    not repeat it. A checkpoint holds the states of rank 0; on a resume rank r > 0 derives its
    own from them, so that ranks stay different.
    """

    def __init__(self) -> None:
        self._pending: dict[str, Any] | None = None
        self._before_val: dict[str, Any] | None = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the states as tensors and numbers, which ``weights_only`` loading accepts."""
        checkpoint[CHECKPOINT_KEY] = random_state()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember the states on a resume."""
        if runner._resume:
            self._pending = checkpoint.get(CHECKPOINT_KEY)

    def before_train(self, runner: Runner) -> None:
        """Have the states restored right before the first batch that is trained on."""
        if self._pending is None:
            return
        state, self._pending = self._pending, None
        loop = runner.train_loop
        if hasattr(loop, 'dataloader_iterator'):
            iterator = loop.dataloader_iterator
            # onedl-mmengine skips by a method of its iterator, mmengine by that many items.
            skipped = 0 if hasattr(iterator, 'skip_iter') else runner.iter
            loop.dataloader_iterator = _CallAfter(iterator, skipped, lambda: _take_up(state))
        else:
            _take_up(state)

    def before_val(self, runner: Runner) -> None:
        """Keep the states."""
        self._before_val = random_state()

    def after_val(self, runner: Runner) -> None:
        """Put them back."""
        if self._before_val is not None:
            restore_random_state(self._before_val)
            self._before_val = None


class _CallAfter:
    """An iterator that calls ``action`` once, after ``skipped`` items and before the next."""

    def __init__(self, iterator: Any, skipped: int, action: Callable[[], None]) -> None:
        self.iterator = iterator
        self.left = skipped
        self.action = action

    def __iter__(self) -> _CallAfter:
        return self

    def skip_iter(self, num_iters: int) -> None:
        """Of onedl-mmengine; what it skips is not counted."""
        self.iterator.skip_iter(num_iters)

    def __next__(self) -> Any:
        if self.left == 0:
            self.action()
        self.left -= 1
        return next(self.iterator)


def random_state() -> dict[str, Any]:
    """States of the generators of Python, NumPy, torch and the current CUDA device."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return dict(
        python=random.getstate(),
        # uint32 tensors are younger than torch 2.1.
        numpy=(name, torch.from_numpy(np.asarray(keys, np.int64)), position, has_gauss, gauss),
        torch=torch.get_rng_state(),
        cuda=torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    )


def restore_random_state(state: dict[str, Any]) -> None:
    """Set the generators to what ``random_state`` returned."""
    random.setstate(_tuple(state['python']))
    name, keys, *rest = state['numpy']
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state['torch'].cpu())
    if torch.cuda.is_available() and state['cuda'] is not None:
        torch.cuda.set_rng_state(state['cuda'].cpu())


def _take_up(state: dict[str, Any]) -> None:
    restore_random_state(state)
    rank = get_rank()
    if rank > 0:
        seed = int(torch.randint(2**31 - 1, ()).item()) + rank
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)


def _tuple(value: Any) -> Any:
    """Nested lists back to the tuples that ``random.setstate`` wants."""
    return tuple(_tuple(v) for v in value) if isinstance(value, (list, tuple)) else value
