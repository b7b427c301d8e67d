"""Do two lists rank alike?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata


def spearman(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    """Pearson's correlation of the ranks, ties at their mean rank; nan where one is constant.

    Shape: (N,), (N,) -> a number in [-1, 1]. SciPy's own, without its p-value, which takes most of
    the time.
    """
    ranks = np.stack([rankdata(a), rankdata(b)])
    ranks -= ranks.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(ranks, axis=1)
    return float(ranks[0] @ ranks[1] / norms.prod()) if norms.all() else float('nan')
