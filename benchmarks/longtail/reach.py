"""The recall that a teacher's labels can have at a precision, whatever their threshold.

Shape letters: **G** = 3 frequency groups, **B** confidence bins.
"""

from __future__ import annotations

import math

import numpy as np

from mmdet_softpl.functional import GROUP_NAMES as GROUPS

from .results import Table
from .runs import Runs
from .tables import markdown

PRECISION = 0.5


def recall_at_precision(counts: np.ndarray, objects: float, precision: float) -> float:
    """Largest recall among the thresholds at the borders of bins that keep to a precision.

    Args:
        counts: (2, B) labels and right ones among them, by confidence, ascending.
        objects: Those that there are.
        precision: Least share of right labels, in [0, 1].

    Returns:
        In [0, 1]; 0 if no threshold keeps to it, NaN without objects.
    """
    if not objects:
        return math.nan
    labels, right = np.cumsum(counts[:, ::-1], axis=1)
    return float(right[right >= precision * labels].max(initial=0) / objects)


def reach_table(table: Table, runs: Runs) -> list[str]:
    """By arm and group, pooled over seeds: best recall at ``PRECISION``; empty without counts."""
    rows = []
    for arm in table.arms:
        objects = {
            group: table.by_seed(arm, 'unlabeled_all', f'{group}_pseudo_objects')
            for group in GROUPS
        }
        mine = [
            run
            for run in runs.values()
            if run['arm'] == arm and run['reliability'] and run['seed'] in objects[GROUPS[0]]
        ]
        if not mine:
            continue
        seeds = sorted(run['seed'] for run in mine)
        # (G, 2, B), of all seeds together.
        counts = sum(np.array(run['reliability']['object'])[:2] for run in mine).swapaxes(0, 1)
        cells = [arm, ', '.join(map(str, seeds))]
        named, right = counts[0].sum(-1)
        cells.append(f'{named / len(seeds):.0f}, {right / len(seeds):.0f}')
        for group, part in zip(GROUPS, counts, strict=True):
            total = sum(objects[group][seed] for seed in seeds)
            cells.append(f'{recall_at_precision(part, total, PRECISION):.3f}')
        rows.append(cells)
    if not rows:
        return []
    return [
        *markdown(['arm', 'seeds', 'rare: named, right', *GROUPS], rows),
        '',
        f'What could be had with another threshold: the largest recall at a precision of '
        f'{PRECISION:g} or more, by one threshold a group on the confidence of the surest label of '
        'every object, chosen with the hidden labels. Beside it, a seed: objects whose surest '
        'label is a rare class, whatever its confidence, and how many of them are.',
    ]
