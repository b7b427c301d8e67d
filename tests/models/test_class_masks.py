"""Masks of one class against the host's head, which predicts all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.registry import MODELS
from torch import nn

from mmdet_softpl.models.class_masks import class_mask_logits, predicts_one_class
from mmdet_softpl.models.roi_adapter import select_class_masks, stages_of
from tests.support.tiny import detector_config


def mask_head(num_classes: int = 5, **kwargs: Any) -> FCNMaskHead:
    torch.manual_seed(0)
    return FCNMaskHead(
        num_convs=1, in_channels=4, conv_out_channels=6, num_classes=num_classes, **kwargs
    )


@pytest.mark.parametrize('upsample', ['deconv', 'bilinear', None])
@pytest.mark.parametrize('num_rois', [7, 1, 0])
def test_logits_and_gradients_are_those_of_the_host(num_rois: int, upsample: str | None) -> None:
    head = mask_head(upsample_cfg=dict(type=upsample, scale_factor=2))
    assert predicts_one_class(head)
    feats = torch.randn(num_rois, 4, 3, 3, requires_grad=True)
    labels = torch.arange(num_rois) * 3 % 5
    leaves = [feats, *head.parameters()]
    results = []
    for logits in (
        select_class_masks(head(feats), labels),
        class_mask_logits(head, feats, labels),
    ):
        results.append([logits, *torch.autograd.grad((logits**2).sum(), leaves)])
    for host, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, host)


def test_heads_that_do_something_else_are_left_alone() -> None:
    class Other(FCNMaskHead):
        def forward(self, x):
            return super().forward(x) * 2

    assert not predicts_one_class(mask_head(class_agnostic=True))
    assert not predicts_one_class(mask_head(num_classes=1))
    wide = mask_head()
    wide.conv_logits = nn.Conv2d(6, 5, 3, padding=1)
    assert not predicts_one_class(wide)
    other = mask_head()
    other.__class__ = Other
    assert not predicts_one_class(other)


@pytest.mark.parametrize('name', ['mask-rcnn', 'cascade-mask-rcnn'])
@pytest.mark.parametrize('agnostic', [False, True])
def test_stages_give_what_the_host_gives(name: str, agnostic: bool) -> None:
    cfg = detector_config(name)
    cfg.roi_head.mask_head.class_agnostic = agnostic
    torch.manual_seed(0)
    roi_head = MODELS.build(cfg).roi_head
    feats = tuple(torch.randn(1, 16, 24 // 2**i, 24 // 2**i) for i in range(5))
    corners = 40 * torch.rand(6, 2)
    rois = torch.cat([torch.zeros(6, 1), corners, corners + 20], dim=1)
    inds, labels = torch.tensor([4, 0, 2]), torch.tensor([1, 0, 4])
    for stage in stages_of(roi_head):
        host = select_class_masks(stage.mask_forward(feats, rois, inds, rois), labels)
        ours = stage.class_mask_forward(feats, rois, inds, rois, labels)
        torch.testing.assert_close(ours, host)
