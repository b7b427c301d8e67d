"""File names of an export."""

from __future__ import annotations

import pytest

from mmdet_softpl.engine.review_export import _unique_names


@pytest.mark.parametrize(
    ('paths', 'expected'),
    [
        (['x/a.jpg', 'x/b.jpg'], ['a.jpg', 'b.jpg']),
        (['x/a.jpg', 'y/A.jpg', 'y/b.jpg'], ['000000_a.jpg', '000001_A.jpg', 'b.jpg']),
        # The name that the first would get is there already, before it or behind.
        (
            ['x/a.jpg', 'y/a.jpg', 'z/000000_a.jpg'],
            ['000000_000000_a.jpg', '000001_a.jpg', '000000_a.jpg'],
        ),
        (
            ['z/000001_a.jpg', 'x/a.jpg', 'y/a.jpg'],
            ['000001_a.jpg', '000001_000001_a.jpg', '000002_a.jpg'],
        ),
        ([], []),
    ],
)
def test_names_are_unique(paths: list[str], expected: list[str]) -> None:
    assert _unique_names(paths) == expected
