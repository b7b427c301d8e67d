"""The class loss of a box head, softmax cross entropy or mmdet's Seesaw loss, and its logits.

Shape legend: N RoIs, C foreground classes (background has index C).
"""

from __future__ import annotations

import torch
from mmdet.models.losses import CrossEntropyLoss, SeesawLoss
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from torch import Tensor, nn

from mmdet_softpl.checks import UNUSED_INDEX
from mmdet_softpl.functional import joint_logits


def has_objectness(bbox_head: BBoxHead) -> bool:
    """Whether a head has C class outputs and two of objectness: with mmdet's ``SeesawLoss``."""
    return isinstance(bbox_head.loss_cls, SeesawLoss)


def class_logits(bbox_head: BBoxHead, cls_score: Tensor) -> Tensor:
    """(N, C+1) float32 logits of a head's ``cls_score`` (N, C+1), or (N, C+2) with objectness."""
    return joint_logits(cls_score) if has_objectness(bbox_head) else cls_score.float()


def check_cross_entropy(
    loss: nn.Module, owner: str, purpose: str, consequence: str, way_out: str = ''
) -> None:
    """Refuse a class loss that is no plain softmax cross entropy.

    Args:
        loss: Of a box head.
        owner: Begins each message.
        purpose: What needs the softmax, before "needs loss_cls=...".
        consequence: What weights or an ignored class would do, behind the name of the setting.
        way_out: What else the user can do, behind "remove it".

    Raises:
        ValueError: Names the setting and its value.
    """
    if not isinstance(loss, CrossEntropyLoss) or loss.use_sigmoid or loss.use_mask:
        raise ValueError(
            f"{owner}: {purpose} needs loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False) "
            f'or SeesawLoss, got {type(loss).__name__}; change loss_cls{way_out}.'
        )
    if loss.class_weight is not None:
        raise ValueError(
            f'{owner}: loss_cls.class_weight {consequence} (got {len(loss.class_weight)} weights); '
            f'remove it{way_out}.'
        )
    if loss.ignore_index not in (None, UNUSED_INDEX):
        raise ValueError(
            f'{owner}: loss_cls.ignore_index={loss.ignore_index} {consequence}; remove it{way_out}.'
        )


@torch.no_grad()
def objectness_accuracy(cls_score: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """``acc_objectness`` and, over objects, ``acc_classes`` in percent, (1,) each; 0 of nothing.

    The host's, whose masks make it wait for the device.

    Args:
        cls_score: (N, C+2).
        labels: (N,) int64 in [0, C].
    """
    is_object = labels < cls_score.shape[1] - 2
    right = (cls_score[:, -2] >= cls_score[:, -1]) == is_object
    named = is_object & (cls_score[:, :-2].argmax(dim=1) == labels)
    return {
        'acc_objectness': (100 * right.sum() / max(len(labels), 1)).reshape(1),
        'acc_classes': (100 * named.sum() / is_object.sum().clamp(min=1)).reshape(1),
    }
