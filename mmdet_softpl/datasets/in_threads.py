"""Work on many files in threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_THREADS = 8
_Item = TypeVar('_Item')
_Result = TypeVar('_Result')


def map_in_threads(
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    advance: Callable[[], None] | None = None,
) -> list[_Result]:
    """What ``function`` returns for each item, in their order.

    Args:
        function: called in a thread; what it raises is raised here.
        items: such as paths of files.
        advance: called in this thread after each item, for a progress bar.
    """
    pool = ThreadPoolExecutor(_THREADS)
    try:
        results = []
        for result in pool.map(function, items):
            results.append(result)
            if advance is not None:
                advance()
        return results
    finally:
        # After Ctrl-C the items that nobody has begun are left alone.
        pool.shutdown(cancel_futures=True)
