"""The table of trained arms whose class biases were shifted by ``rebalance.py``."""

from __future__ import annotations

from .arms import (
    PASTED,
    PASTED_SUPERVISED,
    PASTED_TEACHER,
    SHIPPED,
    SHIPPED_SUPERVISED,
    SHIPPED_TEACHER,
)
from .results import SUPERVISED, Table, paired_difference
from .tables import difference, markdown

_R = 'rebalanced_'
# One-hot labels that count twice as much.
_HEAVY_TEACHER = '3-normed'
METRICS = ('segm_AP', 'segm_APr', 'segm_APc', 'segm_APf')


def rebalance_table(table: Table) -> list[str]:
    """Mask AP / APr / APc / APf by arm and seed, as it is and rebalanced; empty without any."""
    rows = []
    for arm in table.arms:
        strengths = table.by_seed(arm, 'tune', 'rebalanced_gamma')
        for seed, gamma in sorted(strengths.items()):
            low, high = (
                100 * table.by_seed(arm, 'tune', f'rebalanced_bbox_AP_gain_{end}')[seed]
                for end in ('low', 'high')
            )
            cells = [
                _cell(table, arm, seed, split, prefix)
                for split in ('tune', 'test')
                for prefix in ('', _R)
            ]
            rows.append([arm, str(seed), f'{gamma:g}', f'{low:+.1f} to {high:+.1f}', *cells])
    if not rows:
        return []
    head = [f'{split}: {when}' for split in ('tune', 'test') for when in ('as it is', 'rebalanced')]
    lines = markdown(['arm', 'seed', 'strength', 'half of tune: box AP', *head], rows)
    if any(row[5] == '-' for row in rows):
        # `rebalance.py` leaves all of them.
        lines += ['', 'Rows without rebalanced figures of `tune`: copied as printed, to a tenth.']
    return lines


def rebalanced_difference_table(table: Table) -> list[str]:
    """Paired differences, mask AP and APr on ``test``, of what is shipped and what it stands
    beside: as they are, both rebalanced, and either of the two.
    """
    rows = []
    for a, b in (
        (SHIPPED, SUPERVISED),
        (SHIPPED, SHIPPED_SUPERVISED),
        (SHIPPED, SHIPPED_TEACHER),
        (SHIPPED, _HEAVY_TEACHER),
        (SHIPPED_TEACHER, SHIPPED_SUPERVISED),
        (_HEAVY_TEACHER, SHIPPED_SUPERVISED),
        (PASTED, SUPERVISED),
        (PASTED, PASTED_SUPERVISED),
        (PASTED, PASTED_TEACHER),
    ):
        cells = []
        for mine, other in (('', ''), (_R, _R), (_R, ''), ('', _R)):
            for metric in METRICS[:2]:
                found = paired_difference(
                    table.by_seed(a, 'test', mine + metric),
                    table.by_seed(b, 'test', other + metric),
                )
                cells.append(difference(found))
        rows.append([f'{a} - {b}', *cells])
    kinds = ('as they are', 'both rebalanced', 'only the first', 'only the second')
    head = [f'{kind}: {metric}' for kind in kinds for metric in ('AP', 'APr')]
    return markdown(['arms', *head], rows)


def _cell(table: Table, arm: str, seed: int, split: str, prefix: str) -> str:
    found = [table.by_seed(arm, split, prefix + metric).get(seed) for metric in METRICS]
    if all(value is None for value in found):
        return '-'
    return ' / '.join('-' if value is None else f'{100 * value:.1f}' for value in found)
