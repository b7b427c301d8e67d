"""Messages name the first of many and count the rest."""

from __future__ import annotations

from mmdet_softpl.messages import MAX_EXAMPLES, some_of


def test_few_are_all_named() -> None:
    assert some_of([]) == ''
    assert some_of(['a', 'b']) == 'a; b'
    assert some_of(range(MAX_EXAMPLES)).endswith('; 9')


def test_of_many_the_rest_is_counted() -> None:
    assert some_of(range(12), 2) == '0; 1 and 10 more'
    assert some_of(['a', 'b', 'c'], 2, ', ') == 'a, b and 1 more'
    # Where the first ones alone were kept.
    assert some_of(['a', 'b'], total=5) == 'a; b and 3 more'
    assert some_of(['a', 'b'], total=2) == 'a; b'
