"""The settings that training and its replay share; what they come to is tested with both."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest

from mmdet_softpl.engine import RareBoostPseudoLabeler
from mmdet_softpl.models.label_policy import LabelPolicy, by_group


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
