"""Random states in the checkpoint, so that a resumed run repeats the uninterrupted one."""

from __future__ import annotations

import random
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

    mmengine skips the data that was already trained on but starts the generators anew, so RoI
    sampling would differ. A checkpoint holds the states of rank 0; on a resume rank r > 0
    derives its own from them, so that ranks stay different.
    """

    def __init__(self) -> None:
        self._pending: dict[str, Any] | None = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the states as tensors and numbers, which ``weights_only`` loading accepts."""
        name, keys, *rest = np.random.get_state()
        checkpoint[CHECKPOINT_KEY] = dict(
            python=random.getstate(),
            # uint32 tensors are younger than torch 2.1.
            numpy=(name, torch.from_numpy(keys.astype(np.int64)), *rest),
            torch=torch.get_rng_state(),
            cuda=torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember the states on a resume."""
        if runner._resume:
            self._pending = checkpoint.get(CHECKPOINT_KEY)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Restore before the first resumed iteration: skipping data used the generators up."""
        if self._pending is None:
            return
        state, self._pending = self._pending, None
        random.setstate(_tuple(state['python']))
        name, keys, *rest = state['numpy']
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
        torch.set_rng_state(state['torch'].cpu())
        if torch.cuda.is_available() and state['cuda'] is not None:
            torch.cuda.set_rng_state(state['cuda'].cpu())
        rank = get_rank()
        if rank > 0:
            seed = int(torch.randint(2**31 - 1, ()).item()) + rank
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)


def _tuple(value: Any) -> Any:
    """Nested lists back to the tuples that ``random.setstate`` wants."""
    return tuple(_tuple(v) for v in value) if isinstance(value, (list, tuple)) else value
