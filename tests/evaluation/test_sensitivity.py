"""One knob at a time."""

from __future__ import annotations

import pytest

from mmdet_softpl.evaluation.label_replay import LabelSettings
from mmdet_softpl.evaluation.sensitivity import GRIDS, MODE_OF, sensitivity, value_of, vary


@pytest.mark.parametrize('knob', [*GRIDS, 'temperature'])
def test_vary_changes_one_thing(knob: str) -> None:
    settings = LabelSettings(temperature=0.2)
    for value in GRIDS.get(knob, (0.05, 0.1)):
        changed = vary(settings, knob, value)
        assert value_of(changed, knob) == value
        others = [k for k in (*GRIDS, 'temperature') if k != knob]
        assert all(value_of(changed, k) == value_of(settings, k) for k in others)
    assert vary(settings, 'thr_range[0]', 0.95).thr_range == (0.95, 0.95)


@pytest.mark.parametrize('mode', ['prior', 'curriculum', 'quantile', 'fixed'])
def test_every_value_and_the_own(mode: str) -> None:
    settings = LabelSettings(threshold_mode=mode, alpha=0.123, boost_gamma=0.77, held_out=True)
    seen: list[LabelSettings] = []
    reports: list[tuple[int, int]] = []

    def evaluate(tried: LabelSettings) -> dict[str, float]:
        seen.append(tried)
        return dict(proxy=tried.boost_gamma)

    found = sensitivity(evaluate, settings, (0.1, 0.05), lambda *done: reports.append(done))
    assert {k for k in MODE_OF if k in found} == {k for k, m in MODE_OF.items() if m == mode}
    assert reports[-1] == (len(seen), len(seen))
    for knob, records in found.items():
        (own,) = [record for record in records if record['own']]
        expected = 0.1 if knob == 'temperature' else value_of(settings, knob)
        assert own['value'] == expected
    # A value that is not on the grid is put in its place.
    gammas = [record['value'] for record in found['boost_gamma']]
    assert gammas == [0.0, 0.25, 0.5, 0.77, 1.0]
    assert [record['proxy'] for record in found['boost_gamma']] == gammas


def test_without_prototypes_no_knob_of_theirs() -> None:
    found = sensitivity(lambda settings: dict(proxy=0.0), LabelSettings())
    assert 'temperature' not in found
    # Nor one that training sets on images which the replay does not have.
    assert 'calibration' not in found
    assert 'prototype_weight[rare]' not in found
