"""Batches of the benchmark are known from the seed and the iteration."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from types import SimpleNamespace

import pytest

from benchmarks.longtail.batches import PhasedBatches, StartsHere, shuffled_stream


def batches(n: int, **kwargs) -> list[list[int]]:
    sampler = SimpleNamespace(dataset=SimpleNamespace(cumulative_sizes=[7, 18]), seed=3)
    return list(islice(PhasedBatches(sampler, 6, **kwargs), n))


def test_unlabelled_images_come_after_the_burn_in() -> None:
    found = batches(10, supervised_iters=4)
    assert [len(batch) for batch in found] == [3] * 4 + [6] * 6
    for batch in found:
        assert all(i < 7 for i in batch[:3])
        assert all(7 <= i < 18 for i in batch[3:])


def test_arms_see_the_same_labelled_images() -> None:
    supervised = batches(10, supervised_iters=4, unlabeled=False)
    semi = batches(10, supervised_iters=4)
    assert supervised == [batch[:3] for batch in semi]


@pytest.mark.parametrize('start', [1, 4, 5, 9])
def test_a_later_start_is_the_same_stream(start: int) -> None:
    assert (
        batches(8, supervised_iters=4, start=start)
        == batches(17, supervised_iters=4)[start : start + 8]
    )


def test_every_image_once_a_pass() -> None:
    stream = list(islice(shuffled_stream(7, [0]), 21))
    assert Counter(stream) == dict.fromkeys(range(7), 3)
    assert stream[:7] != stream[7:14]
    assert stream != list(islice(shuffled_stream(7, [1]), 21))


def test_skipped_items_are_not_taken() -> None:
    source = iter([10, 11])
    assert list(islice(StartsHere(source, 3), 5)) == [None, None, None, 10, 11]
