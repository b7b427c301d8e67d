"""Small charts as inline SVG, which follow the colours and the width of their page.

Shape legend: C classes, R refreshes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from mmdet_softpl.reporting.figure import (
    FONT_SIZE,
    GREY,
    PALETTE,
    any_script,
    new_figure,
    say,
    style_axes,
)

# Stands for the colour of the page's text, light or dark, which matplotlib cannot name.
INK = '#010203'
UNNAMED = '_'
"""Name of a series that the legend leaves out."""
# In inches. Narrow, so that the text of a chart is still read on a telephone.
WIDTH, HEIGHT = 4.4, 2.7
MAX_NAMES = 80
# On a logarithmic axis.
MAX_TICKS = 6
# A class with four times what was expected has the strongest colour.
MAX_LOG_RATIO = 2.0
# Any: matplotlib's stubs take a dict of literal names alone.
STYLE: Any = {
    'svg.fonttype': 'none',
    'svg.hashsalt': 'mmdet_softpl',
    'text.color': INK,
    'axes.labelcolor': INK,
    'axes.edgecolor': INK,
    'xtick.color': INK,
    'ytick.color': INK,
}


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Attributes:
        name: For the legend, or ``UNNAMED``.
        x, y: Of equal length; None and NaN in ``y`` are left out.
        color: Of matplotlib.
        style: Line style of matplotlib, ``'-'``, ``'--'`` or ``':'``.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    color: str
    style: str = '-'


def line_chart(
    series: Sequence[Series],
    ylabel: str,
    *,
    name: str,
    log: bool = False,
    if_zero: str = 'all are 0',
) -> str:
    """Lines over iterations.

    Args:
        series: Lines; those without a value are left out.
        ylabel: Of the vertical axis.
        name: Unique on the page, for the ids inside.
        log: Whether the vertical axis is logarithmic. It then ends below in a 0, a power of ten
            under the smallest value, where zeros are drawn.
        if_zero: What a logarithmic chart says where every value of the named lines is 0.

    Returns:
        ``<svg>...</svg>``, to be labelled by the page.
    """
    with rc_context(STYLE):
        figure = new_figure(HEIGHT, WIDTH)
        axes = _axes(figure)
        lines = [(line, points) for line in series if (points := _points(line))]
        drawn = sum(line.name != UNNAMED for line, _ in lines)
        positive = [y for _, points in lines for _, y in points if y > 0]
        zeros = log and any(y == 0 for _, points in lines for _, y in points)
        log = log and bool(drawn and positive)
        floor = 10.0 ** (np.ceil(np.log10(min(positive))) - 1) if log else 0.0
        for line, points in lines:
            if log:
                points = [(x, y or floor) for x, y in points]
            axes.plot(
                *zip(*points, strict=True),
                line.style,
                color=line.color,
                linewidth=1.5,
                marker='o' if len(points) < 25 and line.style != ':' else None,
                markersize=2.8,
                label=line.name,
            )
        if not drawn:
            say(axes, 'nothing recorded')
        else:
            figure.legend(
                loc='outside upper center',
                ncols=min(drawn, 3),
                fontsize=FONT_SIZE,
                frameon=False,
                handlelength=2.4,
            )
        named = (y for line, points in lines if line.name != UNNAMED for _, y in points)
        if zeros and not any(named):
            # Above, since the dotted line may be anywhere.
            axes.set_title(if_zero, fontsize=FONT_SIZE)
        if log:
            axes.set_yscale('log')
            if zeros:
                _end_in_zero(axes, floor, max(positive))
        else:
            # A curve that starts elsewhere makes small changes look large.
            axes.set_ylim(bottom=0)
        axes.set_xlabel('iteration', fontsize=FONT_SIZE)
        axes.set_ylabel(ylabel, fontsize=FONT_SIZE)
        return to_svg(figure, name)


def _points(line: Series) -> list[tuple[float, float]]:
    """Those of a line that have a value."""
    return [(x, y) for x, y in zip(line.x, line.y, strict=True) if y is not None and y == y]


def _end_in_zero(axes: Axes, floor: float, top: float) -> None:
    """Let a logarithmic axis begin at ``floor`` under the name 0, with a power of ten above it."""
    powers = np.arange(np.log10(floor), np.log10(top) + 1).round()
    ticks = 10.0 ** powers[:: -(-len(powers) // MAX_TICKS)]
    axes.set_yticks(ticks, ['0', *(f'{tick:g}' for tick in ticks[1:])])
    # Room for a line that lies on it.
    axes.set_ylim(bottom=floor / 1.08)


def reliability_chart(parts: Sequence[tuple[str, np.ndarray]], *, name: str) -> str:
    """Share right against confidence.

    Args:
        parts: Name and (3, B) counts, correct and confidence sums of each line.
        name: Unique on the page.
    """
    with rc_context(STYLE):
        figure = new_figure(HEIGHT, WIDTH)
        axes = _axes(figure)
        axes.plot([0, 1], [0, 1], '--', linewidth=0.8, color=GREY)
        drawn = False
        for (label, part), color in zip(parts, PALETTE, strict=False):
            count, correct, confidence = np.asarray(part, dtype=float)
            seen = count > 0
            if not seen.any():
                continue
            drawn = True
            axes.plot(
                confidence[seen] / count[seen],
                correct[seen] / count[seen],
                color=color,
                marker='o',
                markersize=3,
                linewidth=1.4,
                label=f'{label} ({int(count.sum())})',
            )
        if drawn:
            figure.legend(loc='outside upper center', ncols=2, fontsize=FONT_SIZE, frameon=False)
        else:
            say(axes, 'no detections')
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel('confidence', fontsize=FONT_SIZE)
        axes.set_ylabel('share right', fontsize=FONT_SIZE)
        return to_svg(figure, name)


def ratio_map(
    ratios: np.ndarray, iters: Sequence[int], class_names: Sequence[str], *, name: str
) -> str:
    """Kept against expected pseudo-labels of each class (row) at each refresh (column).

    Args:
        ratios: (C, R) kept by expected, 0 where nothing was kept, NaN where nothing is expected.
        iters: (R,) iterations of the refreshes.
        class_names: (C,), from the top.
        name: Unique on the page.
    """
    count = len(class_names)
    named = count <= MAX_NAMES
    with rc_context(STYLE):
        figure = new_figure(min(0.9 + 0.15 * count, 12) if named else 5.0, WIDTH)
        axes = figure.subplots()
        style_axes(axes)
        with np.errstate(divide='ignore'):
            logs = np.log2(ratios)
        values = np.ma.masked_invalid(np.where(np.isneginf(logs), np.nan, logs))
        image = axes.imshow(
            values,
            aspect='auto',
            interpolation='nearest',
            cmap=colormaps['RdBu'].with_extremes(bad=GREY),
            norm=TwoSlopeNorm(0, -MAX_LOG_RATIO, MAX_LOG_RATIO),
        )
        ticks = np.unique(np.linspace(0, len(iters) - 1, min(6, len(iters))).astype(int))
        axes.set_xticks(ticks, [str(iters[i]) for i in ticks])
        axes.set_xlabel('iteration', fontsize=FONT_SIZE)
        if named:
            axes.set_yticks(range(count), class_names, fontsize=FONT_SIZE - 1.5, parse_math=False)
        else:
            axes.set_yticks([])
            axes.set_ylabel(f'{count} classes, rare ones below', fontsize=FONT_SIZE)
        bar = figure.colorbar(image, ax=axes, location='top', aspect=40, extend='both')
        bar.set_ticks([-2, -1, 0, 1, 2], labels=['1/4', '1/2', 'as expected', '2 x', '4 x'])
        bar.ax.tick_params(labelsize=FONT_SIZE - 1)
        return to_svg(figure, name)


def to_svg(figure: Figure, name: str) -> str:
    """A figure drawn under ``STYLE`` as inline SVG without width, height and metadata.

    Args:
        figure: Its ids are prefixed by ``name``, since ids are unique on a page.
        name: Of letters, digits and hyphens.
    """
    buffer = io.StringIO()
    # STYLE keeps text as text.
    with any_script(figure, drawn=False):
        figure.savefig(buffer, format='svg', transparent=True, metadata={'Date': None})
    text = buffer.getvalue()
    text = text[text.index('<svg') :]
    text = re.sub(r'<metadata>.*?</metadata>\s*', '', text, flags=re.DOTALL)
    # Only of the outer element: images inside keep their size.
    head, body = text.split('>', 1)
    head = re.sub(r' (width|height)="[^"]*"', '', head)
    text = f'{head} aria-hidden="true">{body}'
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = re.sub(r'url\(#([^)]+)\)', rf'url(#{name}-\1)', text)
    return text.replace(INK, 'currentColor').strip()


def _axes(figure: Figure) -> Axes:
    axes = figure.subplots()
    style_axes(axes)
    axes.grid(color=GREY, alpha=0.25, linewidth=0.5)
    return axes
