"""Pictures and page of a pilot from made-up results."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

from mmdet_softpl.reporting.pilot import draw_returns, draw_sensitivity, draw_threshold_curves
from mmdet_softpl.reporting.pilot_page import pilot_page, return_sentence

FOUND = dict(
    metric='segm_AP', title='mask AP', ap=0.21, own_labels=100.0, equivalent_labels=400.0,
    hours=6.58, place='within', low=2.0, high=9.0, verdict='saves', draws=100,
)  # fmt: skip
CURVE = dict(
    threshold=[0.1, 0.5], precision=[0.5, math.nan], recall=[0.6, 0.0],
    kept_per_image=[2.0, 0.0], best_threshold=0.1,
)  # fmt: skip
RECORDS = [
    dict(value='none', own=False, proxy=0.1, f_beta_rare=0.2),
    dict(value='histogram', own=True, proxy=0.3, f_beta_rare=0.2),
]
POINTS = [
    dict(kind=kind, labelled_images=i, labelled_instances=size, values=dict(segm_AP=ap),
         intervals=dict(segm_AP=(ap - 0.02, ap + 0.02)))
    for kind, i, size, ap in (
        ('labelled', 1, 100, 0.1), ('labelled', 2, 400, 0.21), ('semi', 1, 100, 0.21))
]  # fmt: skip
RESULT = dict(
    config='my.py', held_out='val.json', held_out_images=8, checkpoint='a.pth', warnings=['w.'],
    seconds=79.0, beta=0.5, returns=dict(segm_AP=[FOUND]), returns_missing='', points=POINTS,
    uncertainty='One seed.', metrics_shown=['segm_AP', 'segm_APr'],
    runs=[dict(name='25-semi-0', kind='semi', labelled_images=50, labelled_instances=100,
               metrics=dict(segm_AP=0.21, segm_APr=-1.0))],
    thresholds=dict(rare=CURVE),
    own=dict(precision_rare=0.4, recall_rare=0.2),
    reliability=dict(before=dict(rare=0.2), after=dict(rare=math.nan)),
    sensitivity=dict(calibration=RECORDS),
)  # fmt: skip


def test_page() -> None:
    page = pilot_page(RESULT)
    assert '**Note:** w.' in page
    assert '| 25-semi-0 | with unlabelled | 50 | 100 | 2.2 | 21.0 | - |' in page
    assert '| rare | 0.10 | 50.0 | 60.0 | 2.00 |' in page
    assert '| rare | 0.200 | - |' in page
    assert '| `calibration` | histogram | histogram | +0.000 | 0.200 |' in page
    without = pilot_page(dict(RESULT, returns={}, returns_missing='No return: why.'))
    assert 'No return: why.' in without and 'returns.png' not in without


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        ({}, '400: +6.6 hours (95 % interval +2.0 to +9.0 hours). **labels are saved**'),
        (dict(low=None, verdict='cannot tell'), 'below the curve to +9.0'),
        (dict(place='above', high=None), 'at least 6.6 hours'),
        (dict(place='above', high=None), 'interval +2.0 hours to beyond the curve)'),
        (
            dict(place='above', low=-3.0, high=None, hours=-1.5, equivalent_labels=30),
            'ends at 30 labels and says nothing of as many as here',
        ),
        (
            dict(place='below', low=None, high=-1.0, hours=0.0),
            'starts with at 400 labels: no return',
        ),
        (dict(place='below', low=None, high=None, hours=1.0), 'cannot tell what fewer alone reach'),
        (
            dict(place='below', low=None, high=-1.0, hours=-1.5, equivalent_labels=30),
            'reach more with 30 of them, so at least 1.5 hours are lost, if any (95 % interval '
            'below the curve to -1.0 hours)',
        ),
        (dict(place='flat', low=None, high=None), 'no AP stands for a number of labels'),
        (dict(low=None, high=None, draws=0), 'uncertainty unknown'),
        (dict(low=None, high=None), 'no end of an interval is known'),
        (dict(verdict='costs'), 'labels are wasted'),
    ],
)
def test_sentence(changes: dict, expected: str) -> None:
    sentence = return_sentence(dict(FOUND, **changes), 79.0)
    assert expected in sentence
    assert 'mask AP 21.0 with 100 labels (2.2 hours of annotation)' in sentence


def test_threshold_curves() -> None:
    figure = draw_threshold_curves(dict(rare=CURVE))
    rare, common, _ = figure.axes
    np.testing.assert_array_equal(rare.lines[1].get_ydata(), [0.6, 0.0])
    assert rare.lines[2].get_xdata()[0] == 0.1
    assert common.texts[0].get_text() == 'no objects'
    figure.canvas.draw()


@pytest.mark.parametrize('count', [0, 1, 6])
def test_sensitivity(count: int) -> None:
    figure = draw_sensitivity({f'knob{i}': RECORDS for i in range(count)})
    shown = [axes for axes in figure.axes if axes.get_title()]
    assert len(shown) == count
    for axes in shown:
        assert [label.get_text() for label in axes.get_xticklabels()] == ['none', 'histogram']
        # Only rare classes are known, beside the proxy.
        assert len(axes.lines) == 2 and len(axes.patches) == 1
    figure.canvas.draw()


def test_returns() -> None:
    points = copy.deepcopy(POINTS)
    points[0]['intervals']['segm_AP'] = None
    figure = draw_returns(points, dict(segm_AP=[FOUND]), dict(segm_AP='mask AP'))
    (axes,) = figure.axes
    assert axes.get_xscale() == 'log'
    curve = axes.lines[0]
    np.testing.assert_allclose(curve.get_ydata(), [10, 21])
    np.testing.assert_allclose(curve.get_xdata(), [100, 400])
    # The arrow goes from the labels used to those that would have done the same.
    (arrow,) = axes.texts
    assert arrow.xy == (400.0, 21.0) and arrow.get_position() == (100.0, 21.0)
    figure.canvas.draw()
    draw_returns([], {}, {}).canvas.draw()
