"""More looks of the teacher at the same images: mirrored and enlarged copies of a weak view.

Shape legend: B images, N RoIs, C foreground classes (background has index C), K boxes, S mask size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmdet.models.detectors import TwoStageDetector
from mmdet.structures.bbox import bbox2roi
from torch import Tensor

from mmdet_softpl.models.roi_adapter import roi_mask_probabilities, score_rois

# Sides of batches are multiples of it in the host's configs, which feature pyramids rely on.
SIZE_DIVISOR = 32


@dataclass(frozen=True)
class ExtraView:
    """A copy of a batch of views, through the backbone.

    Attributes:
        feats: Feature levels.
        shape: Height and width of the copies, in pixels.
        scale: (4,) factors of x1, y1, x2, y2 from the view to the copy.
        mirrored: Left is right.
    """

    feats: tuple[Tensor, ...]
    shape: tuple[int, int]
    scale: Tensor
    mirrored: bool

    def boxes(self, bboxes: Tensor) -> Tensor:
        """Where boxes (K, 4) of the view lie in the copy."""
        x1, y1, x2, y2 = (bboxes * self.scale).unbind(1)
        if self.mirrored:
            x1, x2 = self.shape[1] - x2, self.shape[1] - x1
        return torch.stack([x1, y1, x2, y2], dim=1)

    def scores(
        self, teacher: TwoStageDetector, boxes: Sequence[Tensor], metas: Sequence[dict]
    ) -> Tensor:
        """Class scores (N, C+1) of boxes (n_i, 4) of the view, through all stages."""
        # A cascade clips to the image, which begins right of the padding in a mirror.
        metas = [dict(meta, img_shape=self.shape) for meta in metas]
        parts = [self.boxes(part) for part in boxes]
        return score_rois(teacher.roi_head, self.feats, parts, metas)[1]

    def masks(self, teacher: TwoStageDetector, boxes: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Mask probabilities (K, S, S) of boxes of the view in their classes (K,)."""
        rois = bbox2roi([self.boxes(part) for part in boxes])
        masks = roi_mask_probabilities(teacher.roi_head, self.feats, rois, labels)
        return masks.flip(-1) if self.mirrored else masks


def extra_views(
    teacher: TwoStageDetector, batch_inputs: Tensor, mirror: bool, zooms: Sequence[float]
) -> list[ExtraView]:
    """The copies: each zoom, and with ``mirror`` a mirror image of each and of the view itself.

    Args:
        teacher: A two-stage detector in eval mode.
        batch_inputs: (B, 3, H, W).
        mirror: Whether there are mirror images.
        zooms: Factors of height and width, > 0; sides are rounded up to multiples of 32.
    """
    height, width = batch_inputs.shape[-2:]
    views = []
    for zoom in (1.0, *zooms):
        shape, images = (height, width), batch_inputs
        if zoom != 1.0:
            shape = (_rounded_up(height * zoom), _rounded_up(width * zoom))
            images = F.interpolate(batch_inputs, size=shape, mode='bilinear', align_corners=False)
        factors = [shape[1] / width, shape[0] / height] * 2
        scale = batch_inputs.new_tensor(factors, dtype=torch.float32)
        if zoom != 1.0:
            views.append(ExtraView(teacher.extract_feat(images), shape, scale, False))
        if mirror:
            views.append(ExtraView(teacher.extract_feat(images.flip(-1)), shape, scale, True))
    return views


def mean_scores(
    teacher: TwoStageDetector,
    scores: Tensor,
    boxes: Sequence[Tensor],
    metas: Sequence[dict],
    extra: Sequence[ExtraView],
) -> Tensor:
    """Mean class scores (N, C+1) of boxes over a view and its copies.

    Args:
        teacher: A two-stage detector in eval mode.
        scores: (N, C+1) in the view itself.
        boxes: Of each image (n_i, 4), in the view.
        metas: ``metainfo`` of each image.
        extra: The copies.
    """
    others = [view.scores(teacher, boxes, metas) for view in extra]
    return torch.stack([scores, *others]).mean(0) if others else scores


def _rounded_up(side: float) -> int:
    return math.ceil(side / SIZE_DIVISOR) * SIZE_DIVISOR
