"""Hours saved, in closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from mmdet_softpl.evaluation.annotation_return import annotation_return, equivalent_labels

LABELS = np.array([100.0, 400.0, 1600.0])
CURVE = np.array([0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ('ap', 'expected'),
    [
        (0.15, (200.0, 'within')),  # half-way in the logarithm
        (0.2, (400.0, 'within')),
        (0.1, (100.0, 'within')),
        (0.3, (1600.0, 'within')),
        (0.31, (1600.0, 'above')),
        (0.09, (100.0, 'below')),
    ],
)
def test_equivalent_labels(ap: float, expected: tuple[float, str]) -> None:
    number, place = equivalent_labels(LABELS, CURVE, ap)
    assert number == pytest.approx(expected[0])
    assert place == expected[1]


def test_dip_is_flattened_and_the_fewest_labels_count() -> None:
    # 0.3 and 0.1 become 0.2 each.
    number, place = equivalent_labels(LABELS, np.array([0.1, 0.3, 0.1]), 0.2)
    assert (number, place) == (pytest.approx(400), 'within')


@pytest.mark.parametrize('labels', [[100.0], [100.0, 100.0], [200.0, 100.0]])
def test_no_curve(labels: list[float]) -> None:
    with pytest.raises(ValueError, match='two different'):
        equivalent_labels(np.array(labels), np.array(labels) / 1000, 0.1)


def returned(ap: float, draws: np.ndarray, curve_draws: np.ndarray | None = None) -> dict:
    curve_draws = np.tile(CURVE, (len(draws), 1)) if curve_draws is None else curve_draws
    return annotation_return(
        LABELS, CURVE, 100.0, ap, curve_draws=curve_draws, ap_draws=draws, seconds=36.0
    )


def test_hours_and_interval() -> None:
    found = returned(0.2, np.full(100, 0.2))
    # 300 labels of 36 s are 3 hours.
    assert found['hours'] == pytest.approx(3)
    assert (found['low'], found['high']) == (pytest.approx(3), pytest.approx(3))
    assert found['verdict'] == 'saves'
    # 100 labels of which training on labels alone would not have got there.
    found = returned(0.15, np.linspace(0.11, 0.19, 200))
    assert 0 < found['low'] < found['hours'] < found['high'] < 3


def test_where_the_curve_cannot_tell() -> None:
    none = returned(0.2, np.zeros(0), np.zeros((0, 3)))
    assert (none['low'], none['high'], none['verdict']) == (None, None, 'cannot tell')
    above = returned(0.4, np.full(100, 0.4))
    # More than the curve: at least what its end says.
    assert above['place'] == 'above' and above['high'] is None
    assert above['low'] == pytest.approx(15) and above['verdict'] == 'saves'
    below = returned(0.05, np.full(100, 0.05))
    assert below['place'] == 'below' and below['low'] is None
    assert below['verdict'] == 'cannot tell'
    mixed = returned(0.2, np.array([0.05] * 50 + [0.4] * 50))
    assert (mixed['low'], mixed['high'], mixed['verdict']) == (None, None, 'cannot tell')


@pytest.mark.parametrize(
    ('curve', 'ap', 'own', 'hours', 'interval', 'verdict'),
    [
        # Nobody found a rare object: labels are neither wasted nor saved.
        ([0.0, 0.0, 0.0], 0.0, 400.0, 0, (None, None), 'cannot tell'),
        ([0.0, 0.0, 0.1], 0.0, 400.0, 0, (None, 0), 'cannot tell'),
        ([0.0, 0.0, 0.1], 0.0, 1600.0, -12, (None, -12), 'costs'),
        ([0.1, 0.2, 0.2], 0.2, 100.0, 3, (3, None), 'saves'),
        # More labels brought less: noise, wherever the AP lies.
        ([0.3, 0.2, 0.1], 0.05, 400.0, 0, (None, None), 'cannot tell'),
        ([0.3, 0.2, 0.1], 0.05, 1600.0, 0, (None, None), 'cannot tell'),
        ([0.3, 0.2, 0.1], 0.4, 100.0, 0, (None, None), 'cannot tell'),
        ([0.3, 0.2, 0.1], 0.4, 9999.0, 0, (None, None), 'cannot tell'),
        # Fewer labels alone reach more.
        ([0.1, 0.2, 0.3], 0.05, 400.0, -3, (None, -3), 'costs'),
    ],
)
def test_flat_curves(
    curve: list[float],
    ap: float,
    own: float,
    hours: float,
    interval: tuple[float | None, float | None],
    verdict: str,
) -> None:
    points = np.array(curve)
    found = annotation_return(
        LABELS,
        points,
        own,
        ap,
        curve_draws=np.tile(points, (50, 1)),
        ap_draws=np.full(50, ap),
        seconds=36.0,
    )
    assert found['hours'] == pytest.approx(hours)
    assert (found['place'] == 'flat') == (curve[-1] <= curve[0])
    assert found['low'] == pytest.approx(interval[0])
    assert found['high'] == pytest.approx(interval[1])
    assert found['verdict'] == verdict


def test_a_loss() -> None:
    found = annotation_return(
        LABELS,
        CURVE,
        1600.0,
        0.2,
        curve_draws=np.tile(CURVE, (50, 1)),
        ap_draws=np.full(50, 0.2),
        seconds=3600.0,
    )
    assert found['hours'] == pytest.approx(-1200)
    assert found['verdict'] == 'costs'


def test_noise_of_the_curve_counts() -> None:
    rng = np.random.default_rng(0)
    noisy = CURVE + rng.normal(0, 0.02, (500, 3))
    steady, noise = returned(0.2, np.full(500, 0.2)), returned(0.2, np.full(500, 0.2), noisy)
    assert noise['high'] is None or noise['high'] - noise['low'] > 1
    assert steady['high'] - steady['low'] == pytest.approx(0)


@pytest.mark.parametrize(
    ('own', 'off', 'verdict', 'end'), [(50.0, 0.05, 'saves', 'low'), (500.0, 0.35, 'costs', 'high')]
)
def test_an_end_beyond_the_curve_proves_nothing(
    own: float, off: float, verdict: str, end: str
) -> None:
    """One draw in 40 is the tail itself; with two, that end of the interval is unknown."""
    curve = np.array([0.1, 0.2, 0.3])
    known, unknown = (
        annotation_return(
            np.array([100.0, 200, 400]),
            curve,
            own,
            0.2,
            curve_draws=np.tile(curve, (40, 1)),
            ap_draws=np.array([off] * count + [0.2] * (40 - count)),
            seconds=3600.0,
        )
        for count in (1, 2)
    )
    assert known['verdict'] == verdict and known[end] is not None
    assert unknown['verdict'] == 'cannot tell' and unknown[end] is None
