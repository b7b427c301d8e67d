"""What all pictures share: palette, figures without pyplot's global state, atomic writes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from mmdet_softpl.atomic_json import replaced_together

# The eight colours of Okabe and Ito ("Color Universal Design", 2008) that people with any
# common colour blindness tell apart, without black, which is for text.
PALETTE = ('#0072B2', '#E69F00', '#009E73', '#D55E00', '#CC79A7', '#56B4E9', '#F0E442')
GREY = '#7F7F7F'
GROUP_COLORS = ('#D55E00', '#E69F00', '#0072B2')
"""Colours of rare, common and frequent classes."""

FONT_SIZE = 8.0
SMALL_FONT_SIZE = 6.5
# 9 in at 100 dpi: about the width of a README column, so text is shown at its own size.
WIDTH = 9.0
DPI = 100
# For class names in scripts that matplotlib's own font lacks, as far as they are installed.
_OTHER_FONTS = (
    'Noto Sans CJK SC',
    'Noto Sans CJK JP',
    'Source Han Sans SC',
    'WenQuanYi Zen Hei',
    'Microsoft YaHei',
    'PingFang SC',
    'Hiragino Sans',
    'Malgun Gothic',
    'Arial Unicode MS',
    'Noto Sans',
)


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure on the Agg canvas, known to no global state; sizes in inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout='constrained')
    FigureCanvasAgg(figure)
    return figure


@lru_cache(maxsize=1)
def _families() -> list[str]:
    installed = set(font_manager.get_font_names())
    return ['DejaVu Sans', *(name for name in _OTHER_FONTS if name in installed)]


@contextmanager
def any_script(figure: Figure, drawn: bool = True) -> Iterator[None]:
    """While a figure is drawn: other fonts where a text needs them, one warning where none has it.

    matplotlib would draw boxes, and warn of each character.

    Args:
        figure: The figure.
        drawn: Whether its text becomes shapes. Text that stays text has the fonts of who looks at
            it, and text that is only measured is not seen: then there is no warning.
    """
    for text in figure.findobj(Text):
        if not text.get_text().isascii():
            text.set_fontfamily(_families())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        yield
    missing = False
    for warning in caught:
        if str(warning.message).startswith('Glyph '):
            missing = True
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    if missing and drawn:
        warnings.warn(
            'no installed font has all characters of the class names, so that pictures show boxes '
            'for some; install one, such as Noto Sans CJK, and remove the cache folder that '
            '`python -c "import matplotlib; print(matplotlib.get_cachedir())"` names',
            stacklevel=3,
        )


def figure_pixels(figure: Figure) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a figure made by :func:`new_figure`."""
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    with any_script(figure):
        canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def to_numpy(array: object) -> np.ndarray:
    """A tensor of any device and precision, an array or a sequence, as an array."""
    if hasattr(array, 'detach'):
        tensor = array.detach().cpu()
        array = tensor.float() if tensor.is_floating_point() else tensor
    return np.asarray(array)


def style_axes(axes: Axes) -> None:
    """Small ticks, no frame above and at the right."""
    axes.tick_params(labelsize=FONT_SIZE - 1)
    axes.spines[['top', 'right']].set_visible(False)


def say(axes: Axes, text: str) -> None:
    """Text in the middle of axes that have nothing else to show."""
    axes.text(
        0.5, 0.5, text, ha='center', va='center', transform=axes.transAxes, fontsize=FONT_SIZE
    )


def check_lengths(owner: str, expected: int, **arrays: Sequence | np.ndarray) -> None:
    """Raise ValueError, naming the argument, unless every array has ``expected`` rows."""
    for name, array in arrays.items():
        if len(array) != expected:
            raise ValueError(f'{owner}: {name} has {len(array)} rows, expected {expected}.')


def save_figure(figure: Figure, path: str | os.PathLike) -> Path:
    """Write a figure in one step: a reader sees the old file or the new one, never a part.

    The same figure gives the same bytes (the file names no program version).

    Args:
        figure: The figure.
        path: File name; its suffix (``.png``, ``.pdf``, ...) names the format. Missing folders
            are made.

    Returns:
        The path written.

    Raises:
        ValueError: A suffix that matplotlib does not know.
    """
    path = Path(path)
    suffix = path.suffix.lstrip('.').lower()
    known = figure.canvas.get_supported_filetypes()
    if suffix not in known:
        raise ValueError(
            f'save_figure: {str(path)!r} must end in one of {", ".join(sorted(known))}.'
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {'Software': None} if suffix == 'png' else None
    with replaced_together(path) as (temporary,), any_script(figure):
        figure.savefig(temporary, format=suffix, metadata=metadata)
    return path
