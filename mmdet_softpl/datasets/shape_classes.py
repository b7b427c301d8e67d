"""Classes of the long-tail shapes and the templates that their objects are drawn from.

A class is an outline (its family) with a texture, a part and a size. Members of a family share
the outline and pairwise share some of the other factors, so similarity is graded: a striped disc
with a stem is closer to a striped disc than to a plain one, and far from any star.

Shape letters: C classes, T side of a template in pixels, P points of a polygon.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

# A template covers [-EXTENT, EXTENT] in units of the outline's radius, so that stems fit in.
EXTENT = 1.7
TEMPLATE_SIDES = (128, 64, 32)
VARIANTS = 8

_CANVAS = 2 * TEMPLATE_SIDES[0]
_SHIFT = 4


@dataclass(frozen=True)
class ShapeClass:
    """One class: ``outline``, ``texture`` and ``part`` by name, ``size`` relative to 1."""

    outline: str
    texture: str
    part: str
    size: float

    @property
    def name(self) -> str:
        """Name of the class, unique among all classes."""
        mini = 'mini' if self.size < 0.7 else ''
        return '_'.join(word for word in (mini, self.outline, self.texture, self.part) if word)


def _polar(radii: np.ndarray, start: float = -np.pi / 2) -> np.ndarray:
    angles = start + 2 * np.pi * np.arange(len(radii)) / len(radii)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _disc(rng: np.random.Generator) -> list[np.ndarray]:
    return [_polar(np.full(48, 0.95))]


def _square(rng: np.random.Generator) -> list[np.ndarray]:
    angles = 2 * np.pi * np.arange(64) / 64
    power = 2 / rng.uniform(5, 9)
    x, y = np.cos(angles), np.sin(angles)
    superellipse = np.stack([np.sign(x) * abs(x) ** power, np.sign(y) * abs(y) ** power], axis=1)
    return [superellipse * 0.85]


def _triangle(rng: np.random.Generator) -> list[np.ndarray]:
    return [np.array([[rng.uniform(-0.15, 0.15), -1.0], [0.95, 0.8], [-0.95, 0.8]])]


def _star(rng: np.random.Generator) -> list[np.ndarray]:
    return [_polar(np.tile([1.1, rng.uniform(0.42, 0.55)], 5))]


def _cross(rng: np.random.Generator) -> list[np.ndarray]:
    a, b = rng.uniform(0.28, 0.4), 1.0
    corners = [(a, b), (a, a), (b, a), (b, -a), (a, -a), (a, -b)]
    return [np.array(corners + [(-x, -y) for x, y in corners])]


def _ring(rng: np.random.Generator) -> list[np.ndarray]:
    return [_polar(np.full(48, 1.0)), _polar(np.full(48, rng.uniform(0.42, 0.55)))]


def _crescent(rng: np.random.Generator) -> list[np.ndarray]:
    bite = _polar(np.full(48, 0.8))
    bite[:, 0] += rng.uniform(0.5, 0.65)
    return [_polar(np.full(48, 1.0)), bite]


def _heart(rng: np.random.Generator) -> list[np.ndarray]:
    t = 2 * np.pi * np.arange(64) / 64
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return [np.stack([x, y + 2], axis=1) / rng.uniform(15, 17)]


def _hexagon(rng: np.random.Generator) -> list[np.ndarray]:
    return [_polar(np.full(6, 1.0), start=0.0)]


def _arrow(rng: np.random.Generator) -> list[np.ndarray]:
    w = rng.uniform(0.25, 0.38)
    half = [(0.0, -1.1), (0.95, -0.1), (w, -0.1), (w, 1.0)]
    return [np.array(half + [(-x, y) for x, y in reversed(half[1:])])]


def _drop(rng: np.random.Generator) -> list[np.ndarray]:
    t = 2 * np.pi * np.arange(64) / 64
    narrow = rng.uniform(1.3, 1.8)
    x = 0.85 * np.sin(t) * np.sin(t / 2) ** narrow
    return [np.stack([x * 1.15, -np.cos(t)], axis=1)]


def _gear(rng: np.random.Generator) -> list[np.ndarray]:
    tooth = np.repeat([1.05, rng.uniform(0.72, 0.8)], 3)
    return [_polar(np.tile(tooth, 8))]


# The first polygon is filled, further ones are cut out.
_OUTLINES: dict[str, Callable[[np.random.Generator], list[np.ndarray]]] = {
    'disc': _disc,
    'star': _star,
    'square': _square,
    'cross': _cross,
    'triangle': _triangle,
    'ring': _ring,
    'heart': _heart,
    'arrow': _arrow,
    'crescent': _crescent,
    'hexagon': _hexagon,
    'drop': _drop,
    'gear': _gear,
}

# (texture, part, size): four members form a 2 x 2 design of texture and part, the rest add a
# third texture, a second part and a pair that differs in size alone.
_MEMBERS = (
    ('plain', '', 1.0),
    ('striped', '', 1.0),
    ('plain', 'stem', 1.0),
    ('striped', 'stem', 1.0),
    ('dotted', '', 1.0),
    ('plain', 'band', 1.0),
    ('plain', '', 0.6),
    ('dotted', 'stem', 1.0),
)
MAX_CLASSES = len(_OUTLINES) * len(_MEMBERS)


def shape_classes(num_classes: int) -> list[ShapeClass]:
    """The classes of a data set of C classes, in label order.

    Args:
        num_classes: C in [2, 96]. Families have four members as long as the twelve outlines
            suffice (24 classes: 6 x 4; 60 classes: 12 x 5).

    Returns:
        C classes, grouped by family.

    Raises:
        ValueError: C is out of range.
    """
    if not 2 <= num_classes <= MAX_CLASSES:
        raise ValueError(f'num_classes={num_classes} is outside [2, {MAX_CLASSES}]')
    num_families = min(len(_OUTLINES), max(1, -(-num_classes // 4)))
    classes = []
    for family, outline in enumerate(list(_OUTLINES)[:num_families]):
        size = num_classes // num_families + (family < num_classes % num_families)
        classes += [ShapeClass(outline, *member) for member in _MEMBERS[:size]]
    return classes


def draw_template(shape: ShapeClass, rng: np.random.Generator) -> list[np.ndarray]:
    """Draw one template of a class.

    Args:
        shape: the class.
        rng: varies the outline, the texture's phase and the part.

    Returns:
        For each of ``TEMPLATE_SIDES`` a (T, T, 3) uint8 image; channels are coverage (255
        inside), tone (0 base colour, 255 second colour) and accent (255 accent colour).
    """
    coverage = np.zeros((_CANVAS, _CANVAS), np.uint8)
    accent = np.zeros_like(coverage)
    filled, *cut = _OUTLINES[shape.outline](rng)
    if shape.part == 'stem':
        # Starts inside every outline; drawn first, so that it comes out from behind.
        width, lean = rng.uniform(0.14, 0.2), rng.uniform(-0.25, 0.25)
        stem = np.array([[0, -0.3], [lean, -1.6], [lean + 2 * width, -1.6], [2 * width, -0.3]])
        stem -= [width, 0]
        _fill(coverage, stem, 255)
        _fill(accent, stem, 255)
    _fill(accent, filled, 0)
    _fill(coverage, filled, 255)
    for polygon in cut:
        _fill(coverage, polygon, 0)
        # Where a stem crosses the hole it stays outside the object.
        _fill(accent, polygon, 0)
    if shape.part == 'band':
        y, half = rng.uniform(-0.1, 0.3), 0.2
        band = np.zeros_like(coverage)
        _fill(band, np.array([[-2, y - half], [2, y - half], [2, y + half], [-2, y + half]]), 255)
        accent = np.maximum(accent, cv2.bitwise_and(band, coverage))
    tone = _texture(shape.texture, rng)
    canvas = np.dstack([coverage, tone, accent])
    return [cv2.resize(canvas, (t, t), interpolation=cv2.INTER_AREA) for t in TEMPLATE_SIDES]


def _fill(canvas: np.ndarray, polygon: np.ndarray, value: int) -> None:
    """Fill a (P, 2) polygon, given in units of the radius."""
    pixels = ((polygon / EXTENT + 1) * (_CANVAS / 2) - 0.5) * 2**_SHIFT
    cv2.fillPoly(canvas, [np.round(pixels).astype(np.int32)], value, shift=_SHIFT)


def _texture(name: str, rng: np.random.Generator) -> np.ndarray:
    axis = (np.arange(_CANVAS, dtype=np.float32) + 0.5) / _CANVAS * (2 * EXTENT) - EXTENT
    x, y = np.meshgrid(axis, axis)
    phase = rng.uniform(0, 1, 2)
    if name == 'striped':
        second = np.mod(x * rng.uniform(1.7, 2.1) + phase[0], 1) < 0.5
    elif name == 'dotted':
        pitch = rng.uniform(1.7, 2.1)
        u = np.mod(x * pitch + phase[0], 1) - 0.5
        v = np.mod(y * pitch + phase[1], 1) - 0.5
        second = u**2 + v**2 < 0.1
    else:
        second = np.zeros_like(x, dtype=bool)
    return second.astype(np.uint8) * 255
