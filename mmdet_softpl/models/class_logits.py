"""Logits of classes and background, whatever outputs a box head's loss asks for.

Shape legend: N RoIs, C foreground classes (background has index C).
"""

from __future__ import annotations

from mmdet.models.losses import SeesawLoss
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from torch import Tensor

from mmdet_softpl.functional import joint_logits


def has_objectness(bbox_head: BBoxHead) -> bool:
    """Whether a head has C class outputs and two of objectness: with mmdet's ``SeesawLoss``."""
    return isinstance(bbox_head.loss_cls, SeesawLoss)


def class_logits(bbox_head: BBoxHead, cls_score: Tensor) -> Tensor:
    """(N, C+1) float32 logits of a head's ``cls_score`` (N, C+1), or (N, C+2) with objectness."""
    return joint_logits(cls_score) if has_objectness(bbox_head) else cls_score.float()
