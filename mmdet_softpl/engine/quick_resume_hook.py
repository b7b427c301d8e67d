"""A resume that does not load the images of the iterations before it."""

from __future__ import annotations

from collections import deque
from functools import partial
from itertools import islice
from typing import Any

from mmdet.datasets.samplers import MultiSourceSampler
from mmdet.registry import HOOKS as MMDET_HOOKS
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import BatchSampler

from mmdet_softpl.registry import HOOKS

# Theirs is one order of images without an end, which can be gone through without them.
ENDLESS = (MultiSourceSampler, InfiniteSampler)


@MMDET_HOOKS.register_module()
@HOOKS.register_module()
class QuickResumeHook(Hook):
    """Skips what was trained on by its numbers alone, in the order that it was trained on.

    mmengine's ``IterBasedTrainLoop`` loads and augments every batch before the resumed iteration
    once more and throws it away. Eight images take some 0.4 s of a core (95 ms for two,
    benchmarks/speed), so at iteration 100,000 that is 2.6 hours of 4 workers. The images that
    follow are the same with and without this hook. With data workers (``num_workers > 0``) their
    augmentation is not: a worker's random numbers start anew instead of being drawn and thrown
    away, so a resumed run does not repeat the uninterrupted one to the digit.

    Without a seed in the config every start shuffles anew, and mmengine takes up the seed of the
    checkpoint after the data loader is built. The order of the images is that of the checkpoint
    here: no image comes twice in a pass since it was interrupted, and none is left out.

    Nothing happens with other samplers than mmdet's ``MultiSourceSampler`` and mmengine's
    ``InfiniteSampler``, with a ``batch_sampler`` of the config's, or in an epoch-based loop.
    onedl-mmengine goes past batches by itself where the sampler has a ``skip``; mmdet's is given
    one here, which takes its ``batch_size`` to be the loader's.
    """

    # Before RandomStateHook, which counts what the loop takes from the iterator.
    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._seed_of_start: int | None = None

    def before_run(self, runner: Runner) -> None:
        """Keep the seed that the samplers were built with, which a checkpoint may replace."""
        self._seed_of_start = runner.seed

    def before_train(self, runner: Runner) -> None:
        """Go on in the order of the images where the checkpoint left it."""
        loop = runner.train_loop
        iterator = getattr(loop, 'dataloader_iterator', None)
        if not runner.iter or iterator is None:
            return
        loader = loop.dataloader
        if type(loader.batch_sampler) is not BatchSampler:
            return
        if not isinstance(loader.sampler, ENDLESS):
            return
        # One that the sampler has of the config's stays.
        of_start = type(loader.sampler) in ENDLESS and loader.sampler.seed == self._seed_of_start
        if of_start and loader.sampler.seed != runner.seed:
            _shuffle_by(loader.sampler, runner.seed)
            # What its workers were given is of the other order.
            iterator = loop.dataloader_iterator = type(iterator)(loader)
        if hasattr(iterator, 'skip_iter'):
            # Its workers have not been started yet.
            if not hasattr(loader.sampler, 'skip'):
                loader.sampler.skip = partial(_go_past, loader.sampler)
            return
        # Torch's own name; without it the host's slow way is the right one.
        batches = getattr(iterator, '_iterator', None)
        if not hasattr(batches, '_sampler_iter'):
            return
        _skip(iterator, runner.iter)
        loop.dataloader_iterator = _AfterSkipped(iterator, runner.iter)
        runner.logger.info(
            f'QuickResumeHook: went past {runner.iter} batches without loading their images; the '
            'advance of the data loader that is announced next takes no time.'
        )


def _shuffle_by(sampler: MultiSourceSampler | InfiniteSampler, seed: int) -> None:
    """As if the sampler, of which nothing is needed so far, were built with this seed."""
    sampler.seed = seed
    if isinstance(sampler, MultiSourceSampler):
        sizes = map(len, sampler.dataset.datasets)
        sampler.source2inds = {i: sampler._indices_of_rank(size) for i, size in enumerate(sizes)}
    else:
        sampler.indices = sampler._indices_of_rank()


def _go_past(sampler: MultiSourceSampler | InfiniteSampler, count: int) -> None:
    """Have the next ``iter`` of a sampler, which keeps its place, go on after ``count`` indices."""
    deque(islice(iter(sampler), count), maxlen=0)


def _skip(iterator: Any, count: int) -> None:
    """Take ``count`` batches from mmengine's iterator around a torch data loader's."""
    batches = iterator._iterator
    # Workers have been given these already.
    begun = min(count, getattr(batches, '_tasks_outstanding', 0))
    for _ in range(count - begun):
        next(batches._sampler_iter)
    for _ in range(begun):
        next(iterator)


class _AfterSkipped:
    """An iterator that says it has ``skipped`` items more than it has, all None and at first."""

    def __init__(self, iterator: Any, skipped: int) -> None:
        self.iterator = iterator
        self.left = skipped

    def __iter__(self) -> _AfterSkipped:
        return self

    def __next__(self) -> Any:
        if self.left > 0:
            self.left -= 1
            return None
        return next(self.iterator)
