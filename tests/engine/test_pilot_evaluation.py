"""Returns from records of trainings; cli/test_pilot.py makes such records."""

from __future__ import annotations

import numpy as np
import pytest

from mmdet_softpl.engine.pilot_evaluation import _best_threshold, _uncertainty, returns_of


def record(kind: str, images: int, instances: int, ap: float, draws: np.ndarray | None, seed=0):
    drawn = {} if draws is None else dict(segm_AP=draws, bbox_AP=draws)
    return dict(
        kind=kind,
        seed=seed,
        images=images,
        labelled_images=images,
        labelled_instances=instances,
        metrics=dict(segm_AP=ap, bbox_AP=0.9, segm_APr=-1.0),
        draws=drawn,
    )


def test_return_with_paired_draws() -> None:
    # Hard and easy draws of images move all trainings alike.
    shift = np.linspace(-0.05, 0.05, 40)
    records = [
        record('labelled', 10, 100, 0.1, 0.1 + shift),
        record('labelled', 40, 400, 0.2, 0.2 + shift),
        record('semi', 10, 100, 0.15, 0.15 + shift),
    ]
    points, returns, missing = returns_of(records, ('AP', 'APr'), 36.0)
    # Of masks; nothing is known of rare classes.
    assert set(returns) == {'segm_AP'} and missing == ''
    (found,) = returns['segm_AP']
    assert found['equivalent_labels'] == pytest.approx(200)
    assert (found['low'], found['high']) == (pytest.approx(1), pytest.approx(1))
    assert found['verdict'] == 'saves' and found['draws'] == 40
    assert [p['labelled_instances'] for p in points] == [100, 400, 100]
    low, high = points[0]['intervals']['segm_AP']
    assert 0.05 < low < 0.06 and 0.14 < high < 0.15
    assert 'drawn' not in points[0]


def test_seeds_are_drawn_too() -> None:
    flat = np.zeros(200)
    records = [
        record('labelled', 10, 100, 0.1, 0.1 + flat),
        record('labelled', 40, 400, 0.2, 0.2 + flat),
        record('semi', 10, 90, 0.12, 0.12 + flat, 0),
        record('semi', 10, 110, 0.18, 0.18 + flat, 1),
    ]
    points, returns, _ = returns_of(records, ('AP',), 36.0)
    (found,) = returns['segm_AP']
    # The mean of both seeds, and Student's interval of two, 12.7 standard errors to each side.
    assert found['ap'] == pytest.approx(0.15) and found['own_labels'] == 100
    assert found['verdict'] == 'cannot tell'
    low, high = points[-1]['intervals']['segm_AP']
    assert low < 0.15 - 3 * 0.03 and high > 0.15 + 3 * 0.03


@pytest.mark.parametrize('seeds', [2, 3, 8])
def test_intervals_of_seeds_hold_what_they_say(seeds: int) -> None:
    """Of the intervals of trainings that differ by chance 95 % have their true mean inside."""
    rng = np.random.default_rng(seeds)
    inside = 0
    for _ in range(300):
        values = rng.normal(0.2, 0.01, seeds)
        records = [record('semi', 10, 100, v, v + np.zeros(400)) for v in values]
        (point,), _, _ = returns_of(records, ('AP',), 36.0)
        low, high = point['intervals']['segm_AP']
        inside += low <= 0.2 <= high
    assert 0.91 <= inside / 300 <= 0.985


def test_draws_of_a_share_are_one_point_whatever_they_hold() -> None:
    """Of the same number of images one draw has 97 with an object, the other 99."""
    records = [record('semi', 100, 300 + i, 0.2, np.full(40, 0.2)) for i in range(2)]
    for one, labelled in zip(records, (97, 99), strict=True):
        one['labelled_images'] = labelled
    (point,), _, _ = returns_of(records, ('AP',), 36.0)
    assert point['labelled_images'] == 98


def test_a_draw_without_rare_objects_is_no_draw_of_zero() -> None:
    draws = np.full(40, 0.1)
    draws[::2] = -1
    records = [record('labelled', 10, 100, 0.1, draws), record('labelled', 40, 400, 0.2, draws)]
    points, returns, missing = returns_of(records, ('AP',), 36.0)
    assert points[0]['intervals']['segm_AP'] == (pytest.approx(0.1), pytest.approx(0.1))
    assert returns == {} and 'two labelled sizes' in missing


@pytest.mark.parametrize('draws', [None, np.full(5, 0.1)])
def test_too_few_draws_are_no_interval(draws: np.ndarray | None) -> None:
    records = [
        record('labelled', 10, 100, 0.1, draws),
        record('labelled', 40, 400, 0.2, draws),
        # As many instances on more images: the first one stands for both.
        record('labelled', 41, 400, 0.5, draws),
        record('semi', 10, 100, 0.15, draws),
    ]
    points, returns, _ = returns_of(records, ('AP',), 36.0)
    (found,) = returns['segm_AP']
    assert (found['low'], found['high'], found['draws']) == (None, None, 0)
    assert found['equivalent_labels'] == pytest.approx(200)
    assert all(point['intervals']['segm_AP'] is None for point in points)


def test_best_threshold() -> None:
    curve = dict(
        threshold=[0.1, 0.5, 0.9], precision=[0.2, 0.8, float('nan')], recall=[0.9, 0.5, 0]
    )
    assert _best_threshold(curve, 0.5) == 0.5
    assert _best_threshold(dict(curve, precision=[0, 0, 0], recall=[0, 0, 0]), 0.5) is None


def test_where_intervals_come_from() -> None:
    assert '--bootstrap is 0' in _uncertainty(0, 8, 3)
    assert 'One training' in _uncertainty(100, 8, 1)
    assert '3 trainings' in _uncertainty(100, 8, 3)
