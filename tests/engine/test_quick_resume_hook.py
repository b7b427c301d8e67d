"""A quick resume goes on with the images that the host's slow one goes on with."""

from __future__ import annotations

import multiprocessing
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmdet.datasets.samplers import MultiSourceSampler
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, MODELS
from mmengine.runner import Runner, loops
from torch.utils.data import ConcatDataset, DataLoader

from mmdet_softpl.engine import QuickResumeHook, RandomStateHook

SAVED, ITERS, BATCH = 40, 46, 3
SKIPS_BY_ITSELF = hasattr(loops._InfiniteDataloaderIterator, 'skip_iter')
LOADED = multiprocessing.get_context('fork').Value('i', 0)


@DATASETS.register_module()
class CountsWhatItLoads:
    """Numbers; counts, over processes, how many were asked for."""

    def __init__(self, size: int = 50) -> None:
        self.size = size
        self.metainfo: dict = {}

    def full_init(self) -> None:
        pass

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, int]:
        with LOADED.get_lock():
            LOADED.value += 1
        return dict(inputs=index)


@MODELS.register_module()
class LearnsNothing(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs: Any, mode: str = 'tensor') -> dict:
        return dict(loss=self.weight.sum() * 0)


@HOOKS.register_module()
class NotesWhatIsTrainedOn(Hook):
    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self.seen.append([int(value) for value in data_batch['inputs']])


def config(work_dir: Path, workers: int, sampler: str, *hooks: Any) -> Config:
    """A training that reads ``SAVED`` batches, or goes on from there to ``ITERS``."""
    dataset: dict[str, Any] = dict(type='CountsWhatItLoads')
    order: dict[str, Any] = dict(type=sampler, seed=5) if sampler != 'DefaultSampler' else {}
    if sampler == 'MultiSourceSampler':
        dataset = dict(type='ConcatDataset', datasets=[dataset, dict(dataset, size=7)])
        order.update(type='mmdet.MultiSourceSampler', batch_size=BATCH, source_ratio=[2, 1])
    elif not order:
        order = dict(type='DefaultSampler', shuffle=True, seed=5)
    return Config(
        dict(
            default_scope='mmengine',
            work_dir=str(work_dir),
            model=dict(type='LearnsNothing'),
            train_dataloader=dict(
                batch_size=BATCH,
                num_workers=workers,
                dataset=dataset,
                sampler=order,
                collate_fn=dict(type='pseudo_collate'),
            ),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=SAVED),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=10)),
            randomness=dict(seed=0),
            custom_hooks=list(hooks),
        )
    )


def train(cfg: Config, until: int, resume: bool) -> tuple[list[list[int]], int]:
    """The batches of a training, and how many images it loaded."""
    cfg.train_cfg.max_iters = until
    cfg.resume = resume
    cfg.experiment_name = f'{Path(cfg.work_dir).name}-{until}-{resume}-{id(cfg)}'
    notes = NotesWhatIsTrainedOn()
    runner = Runner.from_cfg(cfg)
    runner.register_hook(notes)
    before = LOADED.value
    runner.train()
    return notes.seen, LOADED.value - before


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('sampler', ['InfiniteSampler', 'MultiSourceSampler'])
def test_goes_on_where_the_host_would(tmp_path: Path, workers: int, sampler: str) -> None:
    whole, _ = train(config(tmp_path / 'whole', workers, sampler), ITERS, False)
    states = dict(type='mmdet_softpl.RandomStateHook')
    # In either order.
    hooks = [states, dict(type='mmdet_softpl.QuickResumeHook')]
    cfg = config(tmp_path / 'run', workers, sampler, *hooks)
    first, _ = train(cfg, SAVED, False)
    seen, loaded = train(cfg, ITERS, True)
    assert first + seen == whole and len(seen) == ITERS - SAVED
    # What workers had been given, and look ahead: two batches each.
    assert loaded <= BATCH * (ITERS - SAVED + 4 * workers)


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('sampler', ['InfiniteSampler', 'MultiSourceSampler'])
@pytest.mark.parametrize('saved', [1, SAVED])
def test_without_a_seed_the_order_is_that_of_the_checkpoint(
    tmp_path: Path, workers: int, sampler: str, saved: int
) -> None:
    cfg = config(tmp_path / 'run', workers, sampler, dict(type='mmdet_softpl.QuickResumeHook'))
    cfg.default_hooks.checkpoint.interval = 1
    cfg.randomness.seed = None
    cfg.train_dataloader.sampler.pop('seed')
    first, _ = train(cfg, saved, False)
    seen, _ = train(cfg, ITERS, True)
    path = tmp_path / 'run' / f'iter_{saved}.pth'
    seed = torch.load(path, weights_only=False)['meta']['seed']
    whole = config(tmp_path / 'whole', 0, sampler)
    whole.train_dataloader.sampler.seed = seed
    assert first + seen == train(whole, ITERS, False)[0]


def test_fewer_batches_than_workers_have_been_given(tmp_path: Path) -> None:
    whole, _ = train(config(tmp_path / 'whole', 2, 'InfiniteSampler'), 6, False)
    cfg = config(tmp_path / 'run', 2, 'InfiniteSampler', dict(type='mmdet_softpl.QuickResumeHook'))
    cfg.default_hooks.checkpoint.interval = 1
    first, _ = train(cfg, 1, False)
    seen, _ = train(cfg, 6, True)
    assert first + seen == whole


def test_other_samplers_are_left_to_the_host(tmp_path: Path) -> None:
    """Theirs end, and the next epoch has another order."""
    whole, _ = train(config(tmp_path / 'whole', 0, 'DefaultSampler'), ITERS, False)
    cfg = config(tmp_path / 'run', 0, 'DefaultSampler', dict(type='mmdet_softpl.QuickResumeHook'))
    first, _ = train(cfg, SAVED, False)
    seen, loaded = train(cfg, ITERS, True)
    assert first + seen == whole
    # onedl-mmengine can do without in this process.
    assert SKIPS_BY_ITSELF or loaded >= 40 * BATCH


def test_a_loop_that_skips_gets_what_it_asks_the_sampler_for() -> None:
    """As onedl-mmengine has it, on any stack."""
    numbers = ConcatDataset([CountsWhatItLoads(), CountsWhatItLoads(7)])

    def order() -> MultiSourceSampler:
        return MultiSourceSampler(numbers, BATCH, [2, 1], seed=5)

    loader = DataLoader(numbers, batch_size=BATCH, sampler=order())
    iterator = SimpleNamespace(skip_iter=lambda count: None)
    loop = SimpleNamespace(dataloader=loader, dataloader_iterator=iterator)
    QuickResumeHook().before_train(SimpleNamespace(iter=SAVED, train_loop=loop, seed=5))
    loader.sampler.skip(SAVED * BATCH)
    whole = list(islice(order(), ITERS * BATCH))
    assert list(islice(loader.sampler, (ITERS - SAVED) * BATCH)) == whole[SAVED * BATCH :]


def test_a_new_training_is_left_alone() -> None:
    class Loop:
        dataloader_iterator = iter(())

    class FakeRunner:
        iter = 0
        train_loop = Loop()

    before = FakeRunner.train_loop.dataloader_iterator
    QuickResumeHook().before_train(FakeRunner())  # type: ignore[arg-type]
    assert FakeRunner.train_loop.dataloader_iterator is before


def test_a_data_loader_of_another_make_is_left_to_the_host() -> None:
    numbers = list(range(4))
    loader = DataLoader(numbers, batch_size=2, sampler=InfiniteSampler(numbers))
    iterator = SimpleNamespace(_iterator=iter(numbers))
    loop = SimpleNamespace(dataloader=loader, dataloader_iterator=iterator)
    QuickResumeHook().before_train(SimpleNamespace(iter=3, train_loop=loop, seed=0))
    assert loop.dataloader_iterator is iterator and next(iterator._iterator) == 0


def test_comes_before_the_random_states() -> None:
    assert QuickResumeHook.priority == 'VERY_HIGH' and RandomStateHook.priority == 'NORMAL'
