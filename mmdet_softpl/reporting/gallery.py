"""Close-ups of pseudo-labels as data of a page.

Shape letters: **K** objects of an image. Boxes are (x1, y1, x2, y2) in pixels.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from mmengine.structures import InstanceData
from PIL import Image

from mmdet_softpl.functional import paste_roi_masks
from mmdet_softpl.reporting.figure import figure_pixels
from mmdet_softpl.reporting.pseudo_labels import draw_close_ups

if TYPE_CHECKING:
    from mmdet_softpl.engine.label_examples import Example

# Side of a close-up: this many times the object, and at least so many pixels.
CONTEXT = 2.5
MIN_SIDE = 96
QUALITY = 80


@dataclass(frozen=True)
class Tile:
    """A picture of a gallery.

    Attributes:
        source: ``data:`` address.
        width, height: In pixels.
        caption: What is seen, in words; also the alternative text.
    """

    source: str
    width: int
    height: int
    caption: str


def close_up_window(
    bbox: Sequence[float], image_shape: tuple[int, int]
) -> tuple[int, int, int, int]:
    """The part of an image around a box: a square, moved and cut to lie in the image.

    Args:
        bbox: (4,).
        image_shape: Height and width.

    Returns:
        x1, y1, x2, y2, integers, x2 and y2 exclusive.
    """
    x1, y1, x2, y2 = (float(value) for value in bbox)
    side = max(CONTEXT * max(x2 - x1, y2 - y1), MIN_SIDE)
    window = []
    for low, high, size in ((x1, x2, image_shape[1]), (y1, y2, image_shape[0])):
        length = min(round(side), size)
        start = round((low + high) / 2 - length / 2)
        start = min(max(start, 0), size - length)
        window.append((start, start + length))
    (left, right), (top, bottom) = window
    return left, top, right, bottom


def example_tile(example: Example, class_names: Sequence[str]) -> Tile:
    """The close-up of an example: the teacher's view of it, beside the student's if it has one.

    The object and everything that is kept around it are drawn.

    Args:
        example: To draw.
        class_names: (C,).
    """
    seen = example.teacher
    window = close_up_window(seen.bboxes[example.chosen].tolist(), example.image.shape[:2])
    left, top, right, bottom = window
    image = example.image[top:bottom, left:right]
    titles, parts = ['teacher'], [_in_window(seen, window, example.chosen)]
    if example.student is not None:
        titles.append('student')
        parts.append(_in_window(example.student, window, None))
    figure = draw_close_ups(titles, [image] * len(parts), parts, class_names)
    pixels = figure_pixels(figure)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format='WEBP', quality=QUALITY, method=6)
    return Tile(
        source='data:image/webp;base64,' + base64.b64encode(buffer.getvalue()).decode(),
        width=pixels.shape[1],
        height=pixels.shape[0],
        caption=_caption(example, class_names),
    )


def _in_window(
    seen: InstanceData, window: tuple[int, int, int, int], chosen: int | None
) -> dict[str, object]:
    """The instances to draw, in coordinates of the window."""
    left, top, right, bottom = window
    boxes = seen.bboxes.numpy() - np.array([left, top, left, top], dtype=np.float32)
    visible = (
        (boxes[:, 2:] > 0).all(1) & (boxes[:, 0] < right - left) & (boxes[:, 1] < bottom - top)
    )
    wanted = seen.kept.numpy().copy()
    if chosen is not None:
        wanted[chosen] = True
    rows = np.flatnonzero(visible & wanted)
    found: dict[str, object] = dict(
        bboxes=boxes[rows],
        labels=seen.labels.numpy()[rows],
        confidences=seen.confidences.numpy()[rows],
        kept=seen.kept.numpy()[rows],
        meant=rows == chosen,
    )
    if 'mask_probs' in seen:
        size = (bottom - top, right - left)
        found['masks'] = paste_roi_masks(
            seen.mask_probs[rows], torch.from_numpy(boxes[rows]), size
        ).numpy()
    return found


def _caption(example: Example, class_names: Sequence[str]) -> str:
    seen, row = example.teacher, example.chosen
    name = class_names[int(seen.labels[row])]
    state = 'kept' if bool(seen.kept[row]) else 'dropped'
    text = (
        f'{name}, {state}: confidence {float(seen.confidences[row]):.2f}, score '
        f'{float(seen.scores[row]):.2f}, threshold {example.threshold:.2f}'
    )
    if example.student is not None:
        confirmed = 1 - example.disagreement / max(float(seen.confidences[row]), 1e-6)
        text += f', student {max(confirmed, 0.0):.2f}'
    return f'{text} ({example.name})'
