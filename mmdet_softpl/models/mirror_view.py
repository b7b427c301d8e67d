"""A second look of the teacher at the same images: the mirror image of a weak view.

Shape legend: B images, N RoIs, C foreground classes (background has index C), K boxes, S mask size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmdet.models.detectors import TwoStageDetector
from mmdet.structures.bbox import bbox2roi, bbox_flip
from torch import Tensor

from mmdet_softpl.models.roi_adapter import roi_mask_probabilities, score_rois


@dataclass(frozen=True)
class MirrorView:
    """Mirror image of a batch of views, through the backbone.

    Attributes:
        feats: Feature levels.
        shape: Height and width, in pixels.
    """

    feats: tuple[Tensor, ...]
    shape: tuple[int, int]

    def boxes(self, bboxes: Tensor) -> Tensor:
        """Where boxes (K, 4) of the view lie in the mirror image."""
        return bbox_flip(bboxes, self.shape)

    def scores(
        self, teacher: TwoStageDetector, boxes: Sequence[Tensor], metas: Sequence[dict]
    ) -> Tensor:
        """Class scores (N, C+1) of boxes (n_i, 4) of the view, through all stages."""
        # A cascade clips to the image, which begins right of the padding in a mirror.
        metas = [dict(meta, img_shape=self.shape) for meta in metas]
        parts = [self.boxes(part) for part in boxes]
        return score_rois(teacher.roi_head, self.feats, parts, metas)[1]

    def masks(self, teacher: TwoStageDetector, boxes: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Mask probabilities (K, S, S) of boxes of the view in their classes (K,), turned back."""
        rois = bbox2roi([self.boxes(part) for part in boxes])
        return roi_mask_probabilities(teacher.roi_head, self.feats, rois, labels).flip(-1)


def mirror_view(teacher: TwoStageDetector, batch_inputs: Tensor) -> MirrorView:
    """The mirror image of views (B, 3, H, W), seen by a two-stage detector in eval mode."""
    height, width = batch_inputs.shape[-2:]
    return MirrorView(teacher.extract_feat(batch_inputs.flip(-1)), (height, width))
