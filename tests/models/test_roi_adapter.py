"""One and several stages of an RoI head, against the host's own passes; half precision."""

from __future__ import annotations

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox2roi
from torch import nn

from mmdet_softpl.models.roi_adapter import (
    keep_proposal_precision,
    keep_roi_precision,
    roi_mask_probabilities,
    stages_of,
)
from tests.support.tiny import detector_config

BOXES = torch.tensor([[4.0, 6.0, 30.0, 40.0], [50.0, 8.0, 90.0, 60.0]])


def roi_head_of(name: str) -> nn.Module:
    head = MODELS.build(detector_config(name)).roi_head.eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return head


def test_losses_of_a_cascade_have_the_weight_of_their_stage() -> None:
    head = roi_head_of('cascade-mask-rcnn')
    weights = head.stage_loss_weights
    assert len(set(weights)) == 3
    for i, (stage, weight) in enumerate(zip(stages_of(head), weights, strict=True)):
        renamed = stage.rename({'loss_cls': torch.tensor(3.0), 'acc': torch.tensor(7.0)})
        assert renamed == {f's{i}.loss_cls': 3.0 * weight, f's{i}.acc': 7.0}
    (only,) = stages_of(roi_head_of('mask-rcnn'))
    assert only.rename({'loss_cls': torch.tensor(3.0)}) == {'loss_cls': 3.0}


@torch.no_grad()
@pytest.mark.parametrize('name', ['mask-rcnn', 'cascade-mask-rcnn'])
def test_masks_are_the_mean_of_the_stages(name: str) -> None:
    head = roi_head_of(name)
    channels = stages_of(head)[0].bbox_head.in_channels
    levels = tuple(torch.randn(1, channels, 32 >> i, 48 >> i) for i in range(4))
    labels, rois = torch.tensor([2, 0]), bbox2roi([BOXES])
    passes = (
        [head._mask_forward(i, levels, rois) for i in range(head.num_stages)]
        if name.startswith('cascade')
        else [head._mask_forward(levels, rois)]
    )
    logits = torch.stack([found['mask_preds'][[0, 1], labels] for found in passes])
    expected = logits.sigmoid().mean(0)
    found = roi_mask_probabilities(head, levels, rois, labels)
    assert torch.allclose(found, expected, atol=1e-6)
    if len(passes) > 1:
        assert not torch.allclose(found, logits[-1].sigmoid(), atol=1e-4)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_becomes_single(dtype: torch.dtype) -> None:
    feats = (torch.ones(1, 2, 3, 3, dtype=dtype), torch.ones(1, 2, 2, 2, dtype=dtype))
    found, rois = keep_roi_precision(nn.Identity(), (feats, BOXES))
    assert [level.dtype for level in found] == [torch.float32] * 2 and rois is BOXES
    scores, deltas = keep_proposal_precision(nn.Identity(), (), (list(feats), list(feats)))
    assert {level.dtype for level in [*scores, *deltas]} == {torch.float32}
    # Others stay as they are.
    double = (feats[0].double(),)
    assert keep_roi_precision(nn.Identity(), (double, BOXES))[0][0] is double[0]
    assert keep_proposal_precision(nn.Identity(), (), (list(double),))[0][0] is double[0]
