"""The table of results that ``make demo`` prints."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

COLUMNS = ('AP', 'AP50', 'APr', 'APc', 'APf')
KINDS = {'bbox': 'box', 'segm': 'mask'}
BLANK = '    \n'
# rich's SIMPLE_HEAD in ASCII, for log files and pipes: only a rule below the head.
ASCII_HEAD = box.Box(2 * BLANK + ' -- \n' + 5 * BLANK, ascii=True)


def metrics_table(rows: Mapping[str, Mapping[str, float]], *, terminal: bool | None = None) -> str:
    """Box and mask AP of several models as text, one model a row.

    Args:
        rows: Name of a row (``'after burn-in'``, ``'teacher'``, ``'student'``) to the metrics of
            ``LongTailMetric``: fractions in [0, 1]; a prefix up to the last ``/`` is ignored. What
            is absent, not finite or negative (LVIS writes -1 where a group has no object) is
            shown as ``-``, everything else in percent.
        terminal: Whether to write colours and line drawing; None: whether standard output is a
            terminal.

    Returns:
        The table, lines separated and ended by newlines.
    """
    if terminal is None:
        terminal = sys.stdout.isatty()
    table = Table(
        box=box.SIMPLE_HEAD if terminal else ASCII_HEAD, header_style='bold', pad_edge=False
    )
    table.add_column('', no_wrap=True)
    for kind in KINDS.values():
        for column in COLUMNS:
            table.add_column(f'{kind}\n{column}', justify='right', no_wrap=True)
    for name, metrics in rows.items():
        plain = {key.rsplit('/', 1)[-1]: value for key, value in metrics.items()}
        cells = [plain.get(f'{kind}_{column}') for kind in KINDS for column in COLUMNS]
        table.add_row(Text(name), *(percent(cell) for cell in cells))
    # Wide enough for any table of ours: a narrow window must wrap lines, not lose digits.
    console = Console(
        file=io.StringIO(),
        force_terminal=terminal,
        color_system='standard' if terminal else None,
        width=200,
        emoji=False,
    )
    console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return '\n'.join(line.rstrip() for line in text.splitlines()) + '\n'


def percent(value: float | None) -> str:
    """AP and shares in per cent; ``-`` where there is none (-1: no object of the group)."""
    if value is None or not math.isfinite(value) or value < 0:
        return '-'
    return f'{100 * value:.1f}'
