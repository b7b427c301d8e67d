"""The axis of classes, sorted by count, that bar charts share.

Shape letter: C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from matplotlib.axes import Axes

from mmdet_softpl.functional.frequency import GROUP_NAMES
from mmdet_softpl.reporting.figure import FONT_SIZE, GROUP_COLORS, SMALL_FONT_SIZE

# More names than this cannot be read at the width of a README.
MAX_NAMES = 60
_LONG_NAME = 24


def shade_groups(axes: Axes, groups: np.ndarray) -> None:
    """Colour the background by frequency group.

    Args:
        axes: With class i of the order at x = i.
        groups: (C,) 0 rare, 1 common, 2 frequent, in the order of the axis.
    """
    shaded: set[int] = set()
    for value, run in groupby(range(len(groups)), key=lambda i: int(groups[i])):
        places = list(run)
        axes.axvspan(
            places[0] - 0.5,
            places[-1] + 0.5,
            color=GROUP_COLORS[value],
            alpha=0.12,
            linewidth=0,
            label=None if value in shaded else f'{GROUP_NAMES[value]} classes',
        )
        shaded.add(value)


def name_classes(axes: Axes, class_names: Sequence[str], otherwise: str) -> None:
    """Set the limits of the axis and write the names, or ``otherwise`` where they are too many.

    Args:
        axes: As in :func:`shade_groups`.
        class_names: C names, in the order of the axis; long ones are cut.
        otherwise: Label of the axis without names.
    """
    axes.set_xlim(-0.5, len(class_names) - 0.5)
    if len(class_names) > MAX_NAMES:
        axes.set_xlabel(otherwise, fontsize=FONT_SIZE)
        return
    axes.set_xticks(
        range(len(class_names)),
        [_short(name) for name in class_names],
        rotation=60,
        ha='right',
        rotation_mode='anchor',
        fontsize=SMALL_FONT_SIZE,
        parse_math=False,
    )


def _short(name: str) -> str:
    return name if len(name) <= _LONG_NAME else name[: _LONG_NAME - 1] + '…'
