"""Argument checks name owner, argument, range and value."""

from __future__ import annotations

import math

import pytest

from mmdet_softpl.checks import check_choice, check_range


@pytest.mark.parametrize(
    ('value', 'lower', 'upper', 'options'),
    [
        (0, 0, 1, {}),
        (1, 0, 1, {}),
        (0.5, None, 1, {}),
        (1e9, 0, None, {}),
        (1e-9, 0, 1, {'include_lower': False}),
    ],
)
def test_values_in_range_pass(value, lower, upper, options) -> None:
    check_range('Owner', 'name', value, lower, upper, **options)


@pytest.mark.parametrize(
    ('value', 'lower', 'upper', 'options', 'shown'),
    [
        (-0.1, 0, 1, {}, '[0, 1]'),
        (1.1, 0, 1, {}, '[0, 1]'),
        (0, 0, 1, {'include_lower': False}, '(0, 1]'),
        (1, 0, 1, {'include_upper': False}, '[0, 1)'),
        (2, None, 1, {}, '(-inf, 1]'),
        (-1, 0, None, {}, '[0, inf)'),
        (math.nan, 0, 1, {}, '[0, 1]'),
        (math.inf, 0, None, {}, '[0, inf)'),
        (-math.inf, None, 1, {}, '(-inf, 1]'),
        ('0.5', 0, 1, {}, '[0, 1]'),
        (None, 0, 1, {}, '[0, 1]'),
    ],
)
def test_other_values_are_named(value, lower, upper, options, shown) -> None:
    with pytest.raises(ValueError) as error:
        check_range('Owner', 'name', value, lower, upper, **options)
    assert f'Owner: name must lie in {shown}, got {value!r}.' == str(error.value)


@pytest.mark.parametrize('value', [2.0, True, '2', None])
def test_other_than_whole_numbers_are_named(value) -> None:
    check_range('Owner', 'name', 2, 1, None, whole=True)
    with pytest.raises(ValueError) as error:
        check_range('Owner', 'name', value, 0, None, whole=True)
    assert f'Owner: name must be a whole number, got {value!r}.' == str(error.value)


def test_unknown_choices_list_the_known_ones() -> None:
    check_choice('Owner', 'mode', 'a', ('a', 'b'))
    with pytest.raises(ValueError, match=r"Owner: unknown mode='c'; known are 'a', 'b'\."):
        check_choice('Owner', 'mode', 'c', ('a', 'b'))
