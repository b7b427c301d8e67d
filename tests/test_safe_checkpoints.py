"""Resuming is tested with real Runners, each in its own process, as a user meets it."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmdet_softpl.installed_stack import release, stack
from mmdet_softpl.safe_checkpoints import _history_buffer_statistic

needs_weights_only = pytest.mark.skipif(
    release(torch.__version__) < (2, 6), reason='torch loads without weights_only here'
)

RESUME = """
import pickle
import sys
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner

class Numbers(torch.utils.data.Dataset):
    metainfo = dict(classes=('a', 'b'))
    def __len__(self):
        return 16
    def __getitem__(self, index):
        return dict(inputs=torch.full((2,), float(index)))

class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)
    def forward(self, inputs, mode):
        return dict(loss=self.linear(torch.stack(inputs)).square().mean())

def train(name, max_iters, resume=False):
    torch.manual_seed(0)
    runner = Runner(
        Toy(), f'{sys.argv[1]}/{name}',
        train_dataloader=dict(
            dataset=Numbers(), batch_size=2, sampler=dict(type='InfiniteSampler')
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=max_iters),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01)),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=2),
            dict(type='CosineAnnealingLR', by_epoch=False, T_max=8, begin=2, end=10),
        ],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=3, by_epoch=False)),
        custom_hooks=[dict(type='EMAHook')],
        resume=resume, randomness=dict(seed=7), log_level='ERROR',
        experiment_name=f'{name}-{max_iters}-{len(sys.modules)}',
    )
    runner.train()
    losses = runner.message_hub.log_scalars['train/loss'].data[0].tolist()
    return losses, [parameter.tolist() for parameter in runner.model.parameters()]

straight = train('straight', 6)
train('stopped', 3)
try:
    train('stopped', 6, resume=True)
except pickle.UnpicklingError:
    print('UNPICKLING ERROR')
import mmdet_softpl
resumed = train('stopped', 6, resume=True)
print('LOSSES', len(resumed[0]))
print('SAME', resumed == straight)
"""


@needs_weights_only
def test_runner_resumes_and_continues(tmp_path: Path) -> None:
    command = [sys.executable, '-W', 'ignore', '-c', RESUME, str(tmp_path)]
    cwd = Path(__file__).parents[1]
    process = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    lines = process.stdout.splitlines()
    # What we are here for: without us this very checkpoint cannot be resumed. The day this
    # fails, allow_mmengine_checkpoints can go. onedl-mmengine loads it, unsafely if need be.
    ours_needed = stack()['mmengine']['origin'] == 'openmmlab'
    assert ('UNPICKLING ERROR' in lines) == ours_needed, process.stderr[-2000:]
    # Six losses in the message hub, three of which came with the checkpoint; losses and
    # parameters are those of a run without a stop.
    assert 'LOSSES 6' in lines, process.stderr[-2000:]
    assert 'SAME True' in lines


def round_trip(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@needs_weights_only
@pytest.mark.parametrize(
    'dtype', ['bool', 'uint8', 'int32', 'int64', 'uint64', 'float16', 'float32', 'float64']
)
def test_numpy_values_load(dtype: str) -> None:
    array = np.array([[0, 1], [1, 0]]).astype(dtype)
    loaded, scalar = round_trip([array, array[0, 1]])
    assert loaded.dtype == array.dtype and scalar.dtype == array.dtype
    np.testing.assert_array_equal(loaded, array)
    assert scalar == array[0, 1]


@needs_weights_only
def test_a_loader_that_takes_its_own_allowance_back_leaves_ours() -> None:
    """As onedl-mmengine does after each load."""
    with torch.serialization.safe_globals([HistoryBuffer, np.ndarray, np.dtype]):
        pass
    loaded = round_trip(HistoryBuffer([1.0, 3.0], [1, 1]))
    np.testing.assert_array_equal(loaded.data[0], [1.0, 3.0])


@needs_weights_only
@pytest.mark.parametrize(
    ('old', 'new'), [(b'numpy._core', b'numpy.core'), (b'numpy.core', b'numpy._core')]
)
def test_module_names_of_the_other_numpy_load(old: bytes, new: bytes) -> None:
    """A checkpoint written under numpy 1 is read under numpy 2, and the reverse."""
    content = pickle.dumps(np.arange(3.0), protocol=2)
    renamed = content.replace(old, new)
    from torch import _weights_only_unpickler

    np.testing.assert_array_equal(_weights_only_unpickler.load(io.BytesIO(renamed)), np.arange(3.0))


@needs_weights_only
def test_history_buffer_keeps_its_values_and_statistics() -> None:
    buffer = HistoryBuffer([1.0, 3.0], [1, 1])
    loaded = round_trip(buffer)
    assert isinstance(loaded, HistoryBuffer)
    assert loaded.statistics('mean') == 2.0 and loaded.statistics('max') == 3.0


class Reaching:
    """Pickles as ``getattr(HistoryBuffer, '__init__')``, the way to its globals."""

    def __reduce__(self) -> tuple:
        return getattr, (HistoryBuffer, '__init__')


class Running:
    """Pickles as ``eval('1')``."""

    def __reduce__(self) -> tuple:
        return eval, ('1',)


@needs_weights_only
@pytest.mark.parametrize('value', [Reaching(), Running()])
def test_nothing_else_is_allowed(value: object) -> None:
    with pytest.raises(pickle.UnpicklingError):
        round_trip(value)
    with pytest.raises(pickle.UnpicklingError, match='system'):
        _history_buffer_statistic(sys, 'system')
