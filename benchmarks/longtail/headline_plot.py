"""The picture of the main comparison: every seed of some arms, as it is and rebalanced."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mmdet_softpl.reporting.figure import FONT_SIZE, PALETTE, new_figure, style_axes

from .arms import (
    PASTED,
    PASTED_SUPERVISED,
    PASTED_TEACHER,
    SHIPPED,
    SHIPPED_SUPERVISED,
    SHIPPED_TEACHER,
)
from .results import SUPERVISED, Table, spread

ROWS = {
    SUPERVISED: 'labelled images alone,\nplain classifier',
    SHIPPED_SUPERVISED: 'labelled images alone',
    SHIPPED_TEACHER: 'one-hot labels',
    SHIPPED: 'the method',
    PASTED_SUPERVISED: 'labelled images alone,\npasted objects',
    PASTED_TEACHER: 'one-hot labels,\npasted objects',
    PASTED: 'the method as shipped,\npasted objects',
}
KINDS = {
    '': (PALETTE[0], 'as trained', 0.16),
    'rebalanced_': (PALETTE[3], 'rebalanced after training', -0.16),
}


def draw_headline(table: Table) -> Figure:
    """Mask AP and APr on ``test``: a dot for a seed, a bar for the mean over them."""
    figure = new_figure(height=4.2)
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, metric, title in ((left, 'segm_AP', 'mask AP'), (right, 'segm_APr', 'mask APr')):
        style_axes(axes)
        for row, arm in enumerate(ROWS):
            for prefix in KINDS:
                _draw_row(
                    axes, list(table.by_seed(arm, 'test', prefix + metric).values()), row, prefix
                )
        # Room for the figures at the ends.
        axes.margins(x=0.1)
        axes.set_xlim(left=0)
        axes.set_xlabel(f'{title} on test', fontsize=FONT_SIZE)
    left.set_yticks(range(len(ROWS)), list(ROWS.values()), fontsize=FONT_SIZE)
    left.invert_yaxis()
    handles = [Patch(color=color, alpha=0.5, label=name) for color, name, _ in KINDS.values()]
    figure.legend(
        handles=handles, ncols=2, fontsize=FONT_SIZE, frameon=False, loc='outside upper center'
    )
    return figure


def _draw_row(axes: Axes, values: list[float], row: int, prefix: str) -> None:
    if not values:
        return
    color, _, offset = KINDS[prefix]
    mean = 100 * spread(values).mean
    axes.barh(row - offset, mean, height=0.3, color=color, alpha=0.5)
    axes.plot(
        [100 * v for v in values], [row - offset] * len(values), 'o', color=color, markersize=4
    )
    axes.annotate(
        f'{mean:.1f}',
        (max(100 * v for v in values), row - offset),
        xytext=(6, 0),
        textcoords='offset points',
        va='center',
        fontsize=FONT_SIZE - 1,
    )
