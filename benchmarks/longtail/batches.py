"""Which images are in the batch of an iteration: known from the seed alone.

Shape letters: n images of a part (labelled or unlabelled), b of them in a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import BatchSampler, Sampler


@DATA_SAMPLERS.register_module()
class PhasedBatches(BatchSampler):
    """Batches of labelled images, with unlabelled ones from some iteration on.

    Iteration i of a seed has the same labelled images in every arm, however many unlabelled ones
    stand beside them, and a resumed run starts at its iteration without loading what came before.

    Args:
        sampler: Of a ``ConcatDataset`` of labelled and unlabelled images; gives data set and seed.
        batch_size: Of labelled and unlabelled images together, 2 * b.
        drop_last: Not used, the stream is endless.
        supervised_iters: Batches with labelled images alone (b of them), >= 0.
        unlabeled: Whether unlabelled images come after that.
        start: First iteration, >= 0.
    """

    def __init__(
        self,
        sampler: Sampler,
        batch_size: int,
        drop_last: bool = False,
        supervised_iters: int = 0,
        unlabeled: bool = True,
        start: int = 0,
    ) -> None:
        super().__init__(sampler, batch_size, drop_last)
        self.supervised_iters = supervised_iters
        self.unlabeled = unlabeled
        self.start = start
        labeled, everything = sampler.dataset.cumulative_sizes  # type: ignore[attr-defined]
        self.sizes = (labeled, everything - labeled)
        self.seed = sampler.seed  # type: ignore[attr-defined]

    def __iter__(self) -> Iterator[list[int]]:
        b, iteration = self.batch_size // 2, self.start
        labeled = shuffled_stream(self.sizes[0], [self.seed, 0], self.start * b)
        skipped = max(self.start - self.supervised_iters, 0) * b
        unlabeled = shuffled_stream(self.sizes[1], [self.seed, 1], skipped)
        while True:
            batch = [next(labeled) for _ in range(b)]
            if self.unlabeled and iteration >= self.supervised_iters:
                batch += [self.sizes[0] + next(unlabeled) for _ in range(b)]
            yield batch
            iteration += 1

    def __len__(self) -> int:
        return sum(self.sizes) // self.batch_size


def shuffled_stream(n: int, seed: list[int], start: int = 0) -> Iterator[int]:
    """Endless passes over ``range(n)``, each in an order of its own, from item ``start`` on."""
    epoch, position = divmod(start, n)
    while True:
        order = np.random.default_rng([*seed, epoch]).permutation(n)
        yield from order[position:].tolist()
        epoch, position = epoch + 1, 0


class StartsHere:
    """An iterator that gives None for the first ``skipped`` items and loads nothing for them.

    mmengine loads and throws away all batches before the iteration that a run resumes from; ours
    start there already (:class:`PhasedBatches`).
    """

    def __init__(self, iterator: Iterator, skipped: int) -> None:
        self.iterator = iterator
        self.left = skipped

    def __iter__(self) -> StartsHere:
        return self

    def __next__(self) -> Any:
        if self.left:
            self.left -= 1
            return None
        return next(self.iterator)
