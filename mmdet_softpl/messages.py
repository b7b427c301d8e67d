"""How messages name many things."""

from __future__ import annotations

from collections.abc import Sequence

MAX_EXAMPLES = 10


def some_of(items: Sequence[object], limit: int = MAX_EXAMPLES, separator: str = '; ') -> str:
    """The first ``limit`` items, and how many more there are.

    Args:
        items: shown as ``str`` does.
        limit: >= 1.
        separator: between two items.
    """
    shown = separator.join(str(item) for item in items[:limit])
    return f'{shown} and {len(items) - limit} more' if len(items) > limit else shown
