"""Helpers of the AP; the numbers themselves are compared in test_longtail_metric.py."""

import numpy as np
import pytest

from mmdet_softpl.evaluation.average_precision import best_of_each, class_averages, summarise


@pytest.mark.parametrize('limit', [1, 2, 5, 100])
def test_best_of_each_equals_a_loop(limit):
    rng = np.random.default_rng(limit)
    keys = rng.integers(0, 6, 80)
    # Few distinct scores: ties keep the earlier row.
    scores = rng.integers(0, 5, 80) / 5
    expected = []
    for key in range(6):
        rows = [i for i in range(80) if keys[i] == key]
        expected += sorted(rows, key=lambda i: (-scores[i], i))[:limit]
    assert best_of_each(keys, scores, limit).tolist() == sorted(expected)


def test_best_of_nothing():
    assert best_of_each(np.zeros(0, int), np.zeros(0), 3).tolist() == []


def test_summarise_by_hand():
    precision = np.full((10, 101, 4), -1.0)
    precision[:, :, 0] = 0.2
    precision[:, :, 1] = 0.6
    precision[0, :, 1] = 1.0
    precision[5, :, 0] = 0.7
    values = summarise(precision, np.array([0, 2, 2, 1]))
    assert values['APr'] == pytest.approx(0.2 + 0.5 / 10)
    assert values['APf'] == pytest.approx(0.6 + 0.4 / 10), 'the class without objects is left out'
    assert values['APc'] == -1
    assert values['AP'] == pytest.approx((0.25 + 0.64) / 2)
    assert values['AP50'] == pytest.approx((0.2 + 1.0) / 2)
    assert values['AP75'] == pytest.approx((0.7 + 0.6) / 2)
    assert set(summarise(precision, None)) == {'AP', 'AP50', 'AP75'}


def test_class_averages_by_hand():
    precision = np.full((10, 101, 3), -1.0)
    precision[:, :, 1] = 0.25
    precision[:, :, 2] = 0
    precision[3, :, 2] = 0.5
    assert class_averages(precision) == pytest.approx([-1, 0.25, 0.05])
