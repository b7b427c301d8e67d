"""When statistics of the labels are looked at."""

from __future__ import annotations


def is_due(iteration: int, interval: int) -> bool:
    """Every ``interval`` iterations, and after 1/8, 1/4 and 1/2 of the first: labels change most
    when they begin.

    Args:
        iteration: With unlabelled images so far, >= 0; 0 is due.
        interval: >= 1.
    """
    return iteration % interval == 0 or iteration in (interval // 8, interval // 4, interval // 2)
