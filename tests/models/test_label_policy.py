"""The settings that training and its replay share; what they come to is tested with both."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest
import torch

from mmdet_softpl.engine import RareBoostPseudoLabeler
from mmdet_softpl.functional import per_class_thresholds
from mmdet_softpl.models.class_state import SCORE_BINS, ClassState
from mmdet_softpl.models.label_policy import LabelPolicy, by_group
from tests.support.tiny_labelling import statistics

GROUPS = torch.tensor([0, 0, 1, 1, 2])


def test_defaults_are_those_of_the_hook() -> None:
    parameters = inspect.signature(RareBoostPseudoLabeler).parameters
    for field in fields(LabelPolicy):
        assert parameters[field.name].default == field.default, field.name


def test_lists_of_a_config_equal_tuples() -> None:
    given = LabelPolicy(prototype_weight=[1, 0.5, 0], thr_range=[0.3, 0.9])
    assert given == LabelPolicy() and hash(given) == hash(LabelPolicy())


def test_one_number_for_all_groups() -> None:
    assert by_group(0.25) == (0.25, 0.25, 0.25)
    assert by_group([1, 2]) == [1, 2]


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (dict(prototype_weight=(1.0, 0.5)), 'three .rare, common, frequent., got .1.0, 0.5.'),
        (dict(prototype_weight=(1.0, 0.5, 2.0)), 'prototype_weight must lie in .0, 1., got 2.0'),
        (dict(thr_range=0.3), 'a lower and an upper bound, got 0.3'),
        (dict(thr_range=(0.6, 0.5)), 'thr_range.1. must lie in .0.6, 1., got 0.5'),
        (dict(threshold_mode='best'), "threshold_mode='best'"),
        (dict(alpha=0), 'alpha must lie in .0, inf., got 0'),
    ],
)
def test_wrong_values(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f'RareBoostPseudoLabeler.*{message}'):
        LabelPolicy(**wrong)


@pytest.mark.parametrize(
    ('given', 'handed_on'),
    [
        (dict(threshold_mode='fixed', fixed_thr=0.55), dict(mode='fixed', fixed=0.55)),
        (dict(alpha=0.9), dict(alpha=0.9)),
        (dict(threshold_mode='quantile', quantile=0.2), dict(mode='quantile', quantile=0.2)),
        (dict(thr_range=(0.85, 0.9)), dict(lower=0.85)),
        (dict(thr_range=(0.3, 0.5)), dict(upper=0.5)),
        # Too few are seen of any class: the last resort.
        (dict(min_count=10**6, fixed_thr=0.55), dict(min_count=10**6, fixed=0.55)),
    ],
)
def test_thresholds_are_those_of_the_settings(given: dict, handed_on: dict) -> None:
    generator = torch.Generator().manual_seed(0)
    histogram = torch.rand(5, SCORE_BINS, generator=generator) * 4
    seen = (histogram, 100.0, torch.tensor([0.1, 0.3, 0.5, 1.0, 2.0]), GROUPS)
    settings = dict(fixed=0.7, alpha=0.2, quantile=0.5, min_count=20, lower=0.3, upper=0.9)
    settings |= handed_on
    mode = settings.pop('mode', 'prior')
    found = LabelPolicy(**given).thresholds(*seen)
    torch.testing.assert_close(found, per_class_thresholds(mode, *seen, **settings))
    default = LabelPolicy(threshold_mode=mode).thresholds(*seen)
    assert not torch.allclose(found, default)


def test_the_state_before_anything_was_seen() -> None:
    """Classes of 2, 8, 20, 60 and 200 images: two rare, two common, one frequent."""
    policy = LabelPolicy(
        boost_gamma=1.0, max_boost=8.0, prototype_weight=(0.9, 0.4, 0.1), fixed_thr=0.6
    )
    state = ClassState(5, 0.5)
    for value in (state.boosts, state.thresholds, state.reliability, state.kept):
        value.fill_(7)
    policy.set_initial(state, statistics())
    assert torch.equal(state.groups, GROUPS)
    # The median over the class's own images, at most 8.
    assert state.boosts.tolist() == state.wanted_boosts.tolist() == [8, 2.5, 1, 1, 1]
    torch.testing.assert_close(state.prototype_weights, torch.tensor([0.9, 0.9, 0.4, 0.4, 0.1]))
    torch.testing.assert_close(state.thresholds, torch.full((5,), 0.6))
    assert not state.reliability.any() and not state.kept.any()
