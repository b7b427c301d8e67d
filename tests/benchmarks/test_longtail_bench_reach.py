"""The best recall at a precision against a search over every threshold."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.longtail.reach import reach_table, recall_at_precision
from benchmarks.longtail.results import Table


@pytest.mark.parametrize('precision', [0.0, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize('seed', range(5))
def test_no_threshold_does_better(seed: int, precision: float) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 6, 15).astype(float)
    right = np.floor(labels * rng.random(15))
    best = 0.0
    for border in range(15):
        kept, good = labels[border:].sum(), right[border:].sum()
        if kept and good / kept >= precision:
            best = max(best, good / 100)
    found = recall_at_precision(np.stack([labels, right]), 100, precision)
    assert found == pytest.approx(best)


def test_wrong_labels_and_nothing_to_find() -> None:
    counts = np.array([[5.0, 3.0], [0.0, 0.0]])
    assert recall_at_precision(counts, 10, 0.5) == 0
    assert recall_at_precision(np.zeros((2, 4)), 10, 0.5) == 0
    assert math.isnan(recall_at_precision(counts, 0, 0.5))


def test_seeds_are_pooled() -> None:
    groups = ('rare', 'common', 'frequent')
    records = [
        dict(preset='tiny', arm='7', seed=s, split='unlabeled_all', metric=m, value=10)
        for s in (0, 1)
        for m in (f'{g}_pseudo_objects' for g in groups)
    ]

    def run(seed: int, labels: list[float], right: list[float]) -> dict:
        part = [[labels] * 3, [right] * 3, [[0.0, 0.0]] * 3]
        return dict(arm='7', seed=seed, reliability=dict(object=part))

    runs = {
        'arm-7-seed0': run(0, [8.0, 4.0], [1.0, 4.0]),
        'arm-7-seed1': run(1, [8.0, 4.0], [1.0, 1.0]),
        'arm-7-seed2': dict(arm='7', seed=2, reliability={}),
    }
    lines = reach_table(Table(records, 'tiny'), runs)
    # 5 of the 8 surest labels are right, and there are 20 objects; 7 of all 24.
    assert lines[2] == '| 7 | 0, 1 | 12, 4 | 0.250 | 0.250 | 0.250 |'
    assert reach_table(Table(records, 'tiny'), {}) == []
