"""How messages name many things."""

from __future__ import annotations

from collections.abc import Sequence

MAX_EXAMPLES = 10


def some_of(
    items: Sequence[object],
    limit: int = MAX_EXAMPLES,
    separator: str = '; ',
    total: int | None = None,
) -> str:
    """The first ``limit`` items, and how many more there are.

    Args:
        items: shown as ``str`` does.
        limit: >= 1.
        separator: between two items.
        total: how many there are, where ``items`` are the first of them.
    """
    shown = separator.join(str(item) for item in items[:limit])
    more = (len(items) if total is None else total) - min(limit, len(items))
    return f'{shown} and {more} more' if more > 0 else shown
