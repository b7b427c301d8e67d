"""RandomStateHook: the generators of a resumed run."""

from __future__ import annotations

import itertools
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mmdet_softpl.engine import RandomStateHook
from mmdet_softpl.engine import random_state_hook as module


def draw() -> tuple[float, float, float]:
    # An odd number of normal draws: NumPy keeps the second one of each pair.
    return random.random(), float(np.random.standard_normal()), float(torch.rand(()))


def saved(hook: RandomStateHook, tmp_path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = {}
    hook.before_save_checkpoint(SimpleNamespace(), checkpoint)
    torch.save(checkpoint, tmp_path / 'checkpoint.pth')
    return torch.load(tmp_path / 'checkpoint.pth', weights_only=True)


def loader():
    """Data that is augmented in this process."""
    while True:
        yield draw()


@pytest.mark.parametrize('skipped', [0, 3])
def test_the_first_trained_batch_is_the_one_of_the_uninterrupted_run(tmp_path, skipped) -> None:
    checkpoint = saved(RandomStateHook(), tmp_path)
    expected = [draw() for _ in range(4)]
    hook = RandomStateHook()
    loop = SimpleNamespace(dataloader_iterator=loader())
    runner = SimpleNamespace(_resume=True, train_loop=loop, iter=skipped)
    hook.after_load_checkpoint(runner, checkpoint)
    hook.before_train(runner)
    iterator = iter(loop.dataloader_iterator)
    for _ in range(skipped):
        next(iterator)
    assert list(itertools.islice(iterator, 4)) == expected


def test_loops_without_skipping_start_from_the_saved_state(tmp_path) -> None:
    checkpoint = saved(RandomStateHook(), tmp_path)
    expected = draw()
    hook = RandomStateHook()
    runner = SimpleNamespace(_resume=True, train_loop=SimpleNamespace(), iter=3)
    hook.after_load_checkpoint(runner, checkpoint)
    assert draw() != expected
    hook.before_train(runner)
    assert draw() == expected
    # Only once.
    hook.before_train(runner)
    assert draw() != expected


@pytest.mark.parametrize('key', ['random_state', 'nothing'])
def test_load_from_and_old_checkpoints_change_nothing(tmp_path, key) -> None:
    checkpoint = {key: saved(RandomStateHook(), tmp_path)['random_state']}
    hook = RandomStateHook()
    runner = SimpleNamespace(_resume=key == 'nothing', train_loop=SimpleNamespace(), iter=0)
    hook.after_load_checkpoint(runner, checkpoint)
    draw()
    state = torch.get_rng_state()
    hook.before_train(runner)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_validation_leaves_the_states_alone() -> None:
    hook, runner = RandomStateHook(), SimpleNamespace()
    state = module.random_state()
    expected = draw()
    module.restore_random_state(state)
    hook.before_val(runner)
    draw()
    hook.after_val(runner)
    assert draw() == expected


def test_ranks_stay_different(tmp_path, monkeypatch) -> None:
    checkpoint = saved(RandomStateHook(), tmp_path)
    drawn = []
    for rank in (0, 1, 2):
        monkeypatch.setattr(module, 'get_rank', lambda rank=rank: rank)
        hook = RandomStateHook()
        runner = SimpleNamespace(_resume=True, train_loop=SimpleNamespace(), iter=0)
        hook.after_load_checkpoint(runner, checkpoint)
        hook.before_train(runner)
        drawn.append(draw())
    for values in zip(*drawn, strict=True):
        assert len(set(values)) == 3
