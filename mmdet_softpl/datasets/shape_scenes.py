"""Pictures of the long-tail shapes: background, clutter, objects that hide each other.

Shape letters: H, W image size, h, w size of a patch, K objects, T side of a template.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import cv2
import numpy as np

from .shape_classes import (
    EXTENT,
    VARIANTS,
    ShapeClass,
    draw_template,
)

# An object keeps at least this share of its pixels in sight, in whatever order it is hidden.
MIN_VISIBLE = 0.35
MIN_RADIUS = 5.0
RADIUS_RANGE = (0.075, 0.165)

_TRIES = 12
_SHRINKS = 4
_NOISE_SIDE = 256


@dataclass(frozen=True)
class Scene:
    """A rendered image and its objects.

    Attributes:
        image: (H, W, 3) uint8, BGR.
        labels: K class indices.
        masks: (H, W, K) uint8, visible pixels, disjoint.
    """

    image: np.ndarray
    labels: list[int]
    masks: np.ndarray


def render_scene(
    classes: Sequence[ShapeClass], labels: Sequence[int], image_size: int, rng: np.random.Generator
) -> Scene:
    """Render one image.

    Args:
        classes: of the data set.
        labels: class index of every object to place. One that finds no room in any try, though
            it shrinks, is left out.
        image_size: H = W in pixels.
        rng: the only source of chance.

    Returns:
        The scene. Each object shows at least ``MIN_VISIBLE`` of its pixels.
    """
    image = _background(image_size, rng)
    owner = np.zeros((image_size, image_size), np.int16)
    # Index 0 is the background; visible and full areas tell how far an object is hidden.
    visible, full = [0], [0]
    placed: list[int] = []
    families = {shape.outline: i for i, shape in enumerate(dict.fromkeys(_families(classes)))}
    for label in rng.permutation(np.asarray(labels, dtype=np.int64)).tolist():
        shape = classes[label]
        hue = families[shape.outline] / len(families) + rng.normal(0, 0.1)
        colours = _colours(hue if rng.random() < 0.5 else rng.random(), rng)
        variant = int(rng.integers(VARIANTS))
        radius = image_size * rng.uniform(*RADIUS_RANGE) * shape.size
        if _place(image, owner, visible, full, shape, variant, radius, colours, rng):
            placed.append(label)
    for _ in range(rng.integers(0, 3)):
        _occlude(image, owner, visible, full, rng)
    image = _finish(image, rng)
    masks = np.empty((image_size, image_size, len(placed)), np.uint8, order='F')
    for index in range(len(placed)):
        masks[:, :, index] = owner == index + 1
    return Scene(image, placed, masks)


def _families(classes: Sequence[ShapeClass]) -> list[ShapeClass]:
    return [ShapeClass(shape.outline, 'plain', '', 1.0) for shape in classes]


@cache
def _template(shape: ShapeClass, variant: int) -> list[np.ndarray]:
    # Seeded by what it shows, so that every worker and every data set draws the same.
    seed = [variant, *shape.name.encode()]
    return draw_template(shape, np.random.default_rng(seed))


def _place(
    image: np.ndarray,
    owner: np.ndarray,
    visible: list[int],
    full: list[int],
    shape: ShapeClass,
    variant: int,
    radius: float,
    colours: np.ndarray,
    rng: np.random.Generator,
) -> bool:
    """Draw one object on top where it hides nothing too far; False when it finds no room."""
    size = image.shape[0]
    for _ in range(_SHRINKS):
        radius = max(radius, MIN_RADIUS)
        patch = _warp(_template(shape, variant), radius, rng)
        mask = patch[:, :, 0] > 127
        (h, w), area = mask.shape, int(mask.sum())
        for _ in range(_TRIES):
            margin = 0.5 * radius
            x, y = (rng.uniform(margin, size - margin, 2) - (w / 2, h / 2)).astype(int).tolist()
            inside = (slice(max(0, -y), min(h, size - y)), slice(max(0, -x), min(w, size - x)))
            here = (slice(max(0, y), min(size, y + h)), slice(max(0, x), min(size, x + w)))
            shown = mask[inside]
            if not _may_cover(owner[here], shown, visible, full):
                continue
            if shown.sum() < MIN_VISIBLE * area:
                continue
            _cover(owner[here], shown, visible, len(full))
            visible.append(int(shown.sum()))
            full.append(area)
            _paint(image[here], patch[inside], colours)
            return True
        radius *= 0.8
    return False


def _may_cover(owner: np.ndarray, mask: np.ndarray, visible: list[int], full: list[int]) -> bool:
    """Whether covering ``mask`` (h, w) leaves every object enough of its pixels."""
    hidden = np.bincount(owner[mask], minlength=len(full)).tolist()
    return all(
        not lost or seen - lost >= MIN_VISIBLE * area
        for lost, seen, area in zip(hidden[1:], visible[1:], full[1:], strict=True)
    )


def _cover(owner: np.ndarray, mask: np.ndarray, visible: list[int], index: int) -> None:
    for i, lost in enumerate(np.bincount(owner[mask], minlength=len(visible)).tolist()):
        visible[i] -= lost
    owner[mask] = index


def _warp(template: list[np.ndarray], radius: float, rng: np.random.Generator) -> np.ndarray:
    """Turned, stretched and scaled copy of a template, cropped, (h, w, 3) uint8."""
    angle = rng.uniform(-1.0, 1.0)
    stretch = np.exp(rng.uniform(-0.18, 0.18, 2))
    shear = rng.uniform(-0.15, 0.15)
    target = 2 * EXTENT * radius
    # The smallest template that is not enlarged much: shrinking a large one would alias.
    source = template[0]
    for smaller in template[1:]:
        if len(smaller) >= target * 0.9:
            source = smaller
    side = len(source)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.array([[1, shear], [0, 1]]) @ np.diag(stretch) * (target / side)
    corners = np.abs(matrix) @ np.array([side / 2, side / 2])
    half = int(np.ceil(corners.max()))
    shift = half - matrix @ np.array([side / 2, side / 2])
    patch = cv2.warpAffine(source, np.hstack([matrix, shift[:, None]]), (2 * half, 2 * half))
    x, y, w, h = cv2.boundingRect(patch[:, :, 0])
    return patch[y : y + h, x : x + w]


def _colours(hue: float, rng: np.random.Generator) -> np.ndarray:
    """(3, 3) float32 BGR: base, second and accent colour, told apart by value or hue."""
    saturation, value = rng.uniform(0.4, 0.9), rng.uniform(0.55, 0.95)
    second_value = value - rng.uniform(0.3, 0.45)
    hsv = [
        (hue, saturation, value),
        (hue + rng.normal(0, 0.05), saturation, second_value),
        (hue + rng.uniform(0.35, 0.65), rng.uniform(0.4, 0.9), rng.uniform(0.3, 0.9)),
    ]
    rgb = np.array([colorsys.hsv_to_rgb(h % 1, s, v) for h, s, v in hsv], dtype=np.float32)
    return rgb[:, ::-1] * 255


def _paint(image: np.ndarray, patch: np.ndarray, colours: np.ndarray) -> None:
    """Blend a patch (h, w, 3) into the image patch (h, w, 3) float32, in place."""
    weights = patch.astype(np.float32) * np.float32(1 / 255)
    alpha, tone, accent = weights[:, :, :1], weights[:, :, 1:2], weights[:, :, 2:]
    base, second, third = colours
    colour = base + tone * (second - base)
    colour += accent * (third - colour)
    # Darker towards the lower right, so that plain objects are not flat.
    h, w = alpha.shape[:2]
    light = np.linspace(1.08, 0.92, h, dtype=np.float32)[:, None] * np.linspace(
        1.08, 0.92, w, dtype=np.float32
    )
    colour *= light[:, :, None]
    image += alpha * (colour - image)


def _background(size: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth colours with lines, blobs and corners that belong to no class, (H, W, 3)."""
    grid = int(rng.integers(2, 7))
    base = rng.uniform(60, 170, 3)
    coarse = np.clip(base + rng.normal(0, 22, (grid, grid, 3)), 0, 255).astype(np.float32)
    image = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR)
    for _ in range(rng.integers(4, 11)):
        colour = np.clip(base + rng.normal(0, 38, 3), 0, 255).tolist()
        points = rng.integers(0, size, (2, 2))
        kind = rng.integers(3)
        if kind == 0:
            thickness = int(rng.integers(1, max(2, size // 40)))
            ends = points[0].tolist(), points[1].tolist()
            cv2.line(image, *ends, colour, thickness, cv2.LINE_AA)
        elif kind == 1:
            # A quarter to a half of an ellipse's outline, which no class looks like.
            axes = rng.integers(size // 20, size // 4, 2).tolist()
            start = int(rng.integers(360))
            cv2.ellipse(
                image, points[0].tolist(), axes, start, 0, int(rng.integers(90, 180)), colour, 2
            )
        else:
            # Four random corners: a shard, often folded. Three would be a plain triangle.
            offsets = rng.integers(-size // 6, size // 6 + 1, (4, 2))
            cv2.fillPoly(image, [(points[:1] + offsets).astype(np.int32)], colour)
    return image


def _occlude(
    image: np.ndarray,
    owner: np.ndarray,
    visible: list[int],
    full: list[int],
    rng: np.random.Generator,
) -> None:
    """Draw a bar of no class over the objects, unless it would hide one too far."""
    size = image.shape[0]
    bar = np.zeros(owner.shape, np.uint8)
    start = rng.integers(0, size, 2)
    end = start + rng.integers(-size // 2, size // 2 + 1, 2)
    cv2.line(bar, start.tolist(), end.tolist(), 255, int(rng.integers(2, max(3, size // 20))))
    mask = bar > 0
    if _may_cover(owner, mask, visible, full):
        _cover(owner, mask, visible, 0)
        image[mask] = rng.uniform(30, 200, 3)


@lru_cache(maxsize=1)
def _noise() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(0, 1, (2 * _NOISE_SIDE, 2 * _NOISE_SIDE, 3)).astype(np.float32)


def _finish(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast and sensor noise; uint8."""
    size = image.shape[0]
    tile = _noise()
    repeats = -(-size // _NOISE_SIDE)
    if repeats > 1:
        tile = np.tile(tile, (repeats, repeats, 1))
    x, y = rng.integers(0, _NOISE_SIDE, 2)
    contrast, offset = rng.uniform(0.85, 1.1), rng.uniform(-12, 12)
    image = image * np.float32(contrast) + np.float32(offset)
    image += tile[y : y + size, x : x + size] * np.float32(rng.uniform(2, 7))
    return np.clip(image, 0, 255).astype(np.uint8)
