"""Work in threads: order, progress, and an end where it is stopped."""

from __future__ import annotations

import time

import pytest

from mmdet_softpl.datasets.in_threads import map_in_threads


def test_results_stand_in_the_order_of_the_items() -> None:
    steps: list[None] = []
    results = map_in_threads(str, range(100), lambda: steps.append(None))
    assert results == [str(number) for number in range(100)]
    assert len(steps) == 100
    assert map_in_threads(str, []) == []


def test_what_is_raised_comes_out() -> None:
    with pytest.raises(ZeroDivisionError):
        map_in_threads(lambda number: 1 // number, [2, 1, 0])


def test_after_an_interruption_the_rest_is_left_alone() -> None:
    begun = []

    def work(number: int) -> None:
        begun.append(number)
        time.sleep(0.01)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        map_in_threads(work, range(2000), interrupt)
    assert len(begun) < 2000
