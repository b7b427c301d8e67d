"""Checks of arguments."""

from __future__ import annotations

import math
from collections.abc import Iterable

# The ignore_index of torch's cross entropy where nobody sets one.
UNUSED_INDEX = -100


def check_range(
    owner: str,
    name: str,
    value: float,
    lower: float | None,
    upper: float | None,
    *,
    include_lower: bool = True,
    include_upper: bool = True,
    whole: bool = False,
) -> None:
    """Raise ValueError, naming owner, argument, range and value, unless value is in range.

    Args:
        owner: Class or function that got the value.
        name: Name of the argument.
        value: A finite number.
        lower, upper: Bounds; None for no bound.
        include_lower, include_upper: Whether a bound itself is allowed.
        whole: Whether it must be an int.
    """
    if whole and (not isinstance(value, int) or isinstance(value, bool)):
        raise ValueError(f'{owner}: {name} must be a whole number, got {value!r}.')
    number = isinstance(value, (int, float)) and math.isfinite(value)
    low = number and (lower is None or (value >= lower if include_lower else value > lower))
    high = number and (upper is None or (value <= upper if include_upper else value < upper))
    if not (low and high):
        left = '(-inf' if lower is None else f'{"[" if include_lower else "("}{lower:g}'
        right = 'inf)' if upper is None else f'{upper:g}{"]" if include_upper else ")"}'
        raise ValueError(f'{owner}: {name} must lie in {left}, {right}, got {value!r}.')


def check_choice(owner: str, name: str, value: object, choices: Iterable[object]) -> None:
    """Raise ValueError, listing the known choices, unless value is one of them."""
    choices = list(choices)
    if value not in choices:
        known = ', '.join(repr(choice) for choice in choices)
        raise ValueError(f'{owner}: unknown {name}={value!r}; known are {known}.')
