"""Pictures of pseudo-labels over their images.

Shape letters: **K** pseudo-instances of an image, **S** side of a RoI mask. Images are
(H, W, 3) uint8 RGB; boxes are (x1, y1, x2, y2) in pixels of their image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke

from mmdet_softpl.functional import paste_roi_masks
from mmdet_softpl.reporting.figure import (
    FONT_SIZE,
    GREY,
    PALETTE,
    SMALL_FONT_SIZE,
    WIDTH,
    check_lengths,
    new_figure,
    say,
    to_numpy,
)

Instances = Mapping[str, object]
DROPPED = '#E8E8E8'
CLOSE_UP_WIDTH = 3.6
# In inches; Agg cannot draw a picture of more than 2**16 pixels.
MAX_HEIGHT = 100


def draw_pseudo_labels(
    images: Sequence[np.ndarray],
    instances: Sequence[Instances],
    class_names: Sequence[str],
    columns: int = 3,
) -> Figure:
    """Pseudo-labels over their images: masks, boxes, class and confidence.

    A kept instance has a solid frame in the colour of its class, a dropped one a dashed grey
    frame.

    Args:
        images: (H, W, 3) uint8 RGB each.
        instances: For each image a dict of arrays or tensors: ``bboxes`` (K, 4), ``labels``
            (K,), ``confidences`` (K,) in [0, 1], ``kept`` (K,) bool, and, for a detector with
            masks, ``masks``: either (K, H, W) of the size of the image or (K, S, S) foreground
            probabilities inside the boxes. ``meant`` (K,) bool, if it is there, gets a white line
            around its frame.
        class_names: (C,).
        columns: Images in a row.

    Raises:
        ValueError: Numbers of images and dicts differ, or arrays of one dict.
    """
    check_lengths('draw_pseudo_labels', len(images), instances=instances)
    columns = max(1, min(columns, len(images)))
    aspects = [image.shape[0] / image.shape[1] for image in images] or [0.3]
    # A row is as high as its highest picture, so that wide and upright photos leave no gaps.
    ratios = [max(aspects[i : i + columns]) for i in range(0, len(aspects), columns)]
    figure = new_figure(height=min(WIDTH / columns * sum(ratios) + 0.4, MAX_HEIGHT))
    grid = figure.subplots(len(ratios), columns, squeeze=False, height_ratios=ratios).ravel()
    for axes in grid:
        axes.set_axis_off()
    if len(images) == 0:
        say(grid[0], 'no images')
    for axes, image, found in zip(grid, images, instances, strict=False):
        labels = to_numpy(found['labels'])
        colors = [PALETTE[int(label) % len(PALETTE)] for label in labels]
        _draw_instances(axes, image, found, class_names, colors)
    _legend(figure, 'class')
    return figure


def draw_view_pair(
    weak_image: np.ndarray,
    strong_image: np.ndarray,
    weak_instances: Instances,
    strong_instances: Instances,
    class_names: Sequence[str],
) -> Figure:
    """The same pseudo-instances over the teacher's (left) and the student's view (right).

    Row i of both dicts is one instance and has one colour, so that a mask that sits on another
    object in the second view is seen at a glance. Arguments as in :func:`draw_pseudo_labels`.
    """
    height = max(i.shape[0] / i.shape[1] for i in (weak_image, strong_image)) * WIDTH / 2 + 0.6
    figure = new_figure(height=height)
    for axes, title, image, found in zip(
        figure.subplots(1, 2),
        ('weak view (teacher)', 'strong view (student)'),
        (weak_image, strong_image),
        (weak_instances, strong_instances),
        strict=True,
    ):
        axes.set_axis_off()
        axes.set_title(title, fontsize=FONT_SIZE)
        colors = [PALETTE[i % len(PALETTE)] for i in range(len(to_numpy(found['labels'])))]
        _draw_instances(axes, image, found, class_names, colors)
    _legend(figure, 'instance')
    return figure


def draw_close_ups(
    titles: Sequence[str],
    images: Sequence[np.ndarray],
    instances: Sequence[Instances],
    class_names: Sequence[str],
) -> Figure:
    """Instances of one place, as several networks see it, without a legend.

    Arguments as in :func:`draw_pseudo_labels`; ``titles`` stand above the pictures where there are
    more than one.
    """
    check_lengths('draw_close_ups', len(titles), images=images, instances=instances)
    count = len(images)
    height = max(image.shape[0] / image.shape[1] for image in images) * CLOSE_UP_WIDTH
    figure = new_figure(
        height=min(height + (0.2 if count > 1 else 0), MAX_HEIGHT), width=CLOSE_UP_WIDTH * count
    )
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(w_pad=0.02, h_pad=0.02)
    grid = figure.subplots(1, count, squeeze=False)[0]
    for axes, title, image, found in zip(grid, titles, images, instances, strict=True):
        axes.set_axis_off()
        if count > 1:
            axes.set_title(title, fontsize=FONT_SIZE)
        colors = [PALETTE[int(label) % len(PALETTE)] for label in to_numpy(found['labels'])]
        _draw_instances(axes, image, found, class_names, colors)
    return figure


def _draw_instances(
    axes: Axes,
    image: np.ndarray,
    instances: Instances,
    class_names: Sequence[str],
    colors: Sequence[str],
) -> None:
    """Image, masks, frames and texts of one picture; the surest instances lie on top."""
    arrays = {key: to_numpy(instances[key]) for key in ('bboxes', 'labels', 'confidences', 'kept')}
    check_lengths('draw_pseudo_labels', len(arrays['labels']), **arrays)
    masks = None
    if instances.get('masks') is not None:
        masks = to_numpy(instances['masks'])
        check_lengths('draw_pseudo_labels', len(arrays['labels']), masks=masks)
        if masks.shape[1:] != image.shape[:2]:
            masks = _pasted(masks, arrays['bboxes'], image.shape[:2])
        masks = masks.astype(bool)

    meant = None if instances.get('meant') is None else to_numpy(instances['meant'])
    height, width = image.shape[:2]
    axes.imshow(image)
    kept = arrays['kept'].astype(bool)
    order = np.lexsort((arrays['confidences'], kept))
    overlay = np.zeros((height, width, 4), dtype=np.float32)
    for i in order:
        color = colors[i] if kept[i] else GREY
        if masks is not None:
            overlay[masks[i]] = to_rgba(color, 0.5 if kept[i] else 0.35)
            if kept[i] and masks[i].any() and not masks[i].all():
                axes.contour(masks[i], levels=[0.5], colors=[color], linewidths=1.2)
        x1, y1, x2, y2 = arrays['bboxes'][i].astype(float)
        frame = Rectangle(
            (x1 - 0.5, y1 - 0.5),
            x2 - x1,
            y2 - y1,
            fill=False,
            edgecolor=color if kept[i] else DROPPED,
            linewidth=1.6 if kept[i] else 1.1,
            linestyle='-' if kept[i] else '--',
        )
        if meant is not None and meant[i]:
            frame.set_path_effects(
                [
                    Stroke(linewidth=6, foreground='black'),
                    Stroke(linewidth=4.5, foreground='white'),
                    Normal(),
                ]
            )
        elif not kept[i]:
            # Light dashes on a dark line show on any photo.
            frame.set_path_effects([Stroke(linewidth=2.2, foreground='0.2', alpha=0.6), Normal()])
        axes.add_patch(frame)
        # Texts of instances at the right would run out of the picture.
        right = x1 > 0.65 * width
        axes.text(
            (min(x2, width) if right else max(x1, 0)) - 0.5,
            min(max(y1, height * 0.05), height),
            f'{class_names[int(arrays["labels"][i])]} {arrays["confidences"][i]:.2f}',
            fontsize=SMALL_FONT_SIZE,
            color='white' if kept[i] else '0.25',
            ha='right' if right else 'left',
            va='bottom',
            clip_on=True,
            parse_math=False,
            bbox={
                'facecolor': color if kept[i] else 'white',
                'alpha': 0.85 if kept[i] else 0.6,
                'edgecolor': 'none',
                'pad': 0.8,
            },
        )
    axes.imshow(overlay)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)


def _legend(figure: Figure, colored_by: str) -> None:
    figure.legend(
        handles=[
            Line2D([], [], color='black', linewidth=1.6, label=f'kept (colour: {colored_by})'),
            Line2D([], [], color=GREY, linewidth=1.1, linestyle='--', label='dropped'),
            Line2D([], [], linestyle='none', label='number: confidence'),
        ],
        loc='outside lower center',
        ncols=3,
        fontsize=FONT_SIZE,
        frameon=False,
    )


def _pasted(masks: np.ndarray, bboxes: np.ndarray, image_shape: tuple[int, int]) -> np.ndarray:
    return paste_roi_masks(
        torch.as_tensor(masks), torch.as_tensor(bboxes).reshape(-1, 4), image_shape
    ).numpy()
