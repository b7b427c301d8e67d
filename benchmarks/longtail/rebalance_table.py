"""The table of trained arms whose class biases were shifted by ``rebalance.py``."""

from __future__ import annotations

from .results import Table
from .tables import markdown

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
                for prefix in ('', 'rebalanced_')
            ]
            rows.append([arm, str(seed), f'{gamma:g}', f'{low:+.1f} to {high:+.1f}', *cells])
    if not rows:
        return []
    head = [f'{split}: {when}' for split in ('tune', 'test') for when in ('as it is', 'rebalanced')]
    return markdown(['arm', 'seed', 'strength', 'half of tune: box AP', *head], rows)


def _cell(table: Table, arm: str, seed: int, split: str, prefix: str) -> str:
    found = [table.by_seed(arm, split, prefix + metric).get(seed) for metric in METRICS]
    if all(value is None for value in found):
        return '-'
    return ' / '.join('-' if value is None else f'{100 * value:.1f}' for value in found)
