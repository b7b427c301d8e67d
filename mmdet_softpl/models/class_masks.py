"""Mask logits of one class a RoI, without those of all the others.

mmdet's FCN mask head predicts a mask for every class and throws all but one away: with 1,203
classes the last layer is a third of the head's work, and its output takes 3.6 MB a RoI.

Shape legend: P RoIs, C foreground classes, F channels of the last layer's input, S mask size.
"""

from __future__ import annotations

import torch
from mmcv.cnn.bricks.wrappers import Conv2d
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from torch import Tensor, nn


def predicts_one_class(head: FCNMaskHead) -> bool:
    """Whether `class_mask_logits` can stand in for the head: the host's own forward, whose last
    layer is a plain 1 x 1 convolution to several classes."""
    last = head.conv_logits
    return (
        type(head).forward is FCNMaskHead.forward
        and type(last) in (nn.Conv2d, Conv2d)
        and last.kernel_size == (1, 1)
        and last.groups == 1
        and last.out_channels > 1
    )


def class_mask_logits(head: FCNMaskHead, feats: Tensor, labels: Tensor) -> Tensor:
    """The host's forward, its last layer for the class of each RoI alone.

    Equal to ``head(feats)[arange(P), labels]``.

    Args:
        head: One for which `predicts_one_class` holds.
        feats: (P, F', s, s) RoI features.
        labels: (P,) in [0, C).

    Returns:
        (P, S, S), differentiable in ``feats`` and in all parameters of the head.
    """
    for conv in head.convs:
        feats = conv(feats)
    if head.upsample is not None:
        feats = head.upsample(feats)
        if head.upsample_method == 'deconv':
            feats = head.relu(feats)
    last = head.conv_logits
    weight = last.weight[:, :, 0, 0][labels].unsqueeze(1)
    logits = torch.bmm(weight, feats.flatten(2)).view(len(feats), *feats.shape[2:])
    return logits if last.bias is None else logits + last.bias[labels][:, None, None]
