"""Settings of a tiny box head, RoIs for it, a step with it."""

from __future__ import annotations

import torch
from torch import Tensor

SHAPE = dict(in_channels=8, fc_out_channels=16, roi_feat_size=7)
COMMON = dict(
    **SHAPE,
    loss_cls=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False, loss_weight=1.5),
    loss_bbox=dict(type='mmdet.L1Loss', loss_weight=1.0),
    bbox_coder=dict(
        type='mmdet.DeltaXYWHBBoxCoder',
        target_means=[0.0, 0.0, 0.0, 0.0],
        target_stds=[0.1, 0.1, 0.2, 0.2],
    ),
)


def roi_batch(num_rois: int, num_classes: int, kind: str = 'mixed') -> dict[str, Tensor]:
    """What a head's ``loss`` takes beside its outputs; ``kind`` may be ``'background'``."""
    generator = torch.Generator().manual_seed(num_rois + num_classes)
    labels = torch.randint(0, num_classes + 1, (num_rois,), generator=generator)
    if kind == 'background':
        labels = torch.full((num_rois,), num_classes)
    positive = (labels < num_classes).float()
    return dict(
        rois=torch.cat([torch.zeros(num_rois, 1), torch.rand(num_rois, 4) * 10], 1),
        labels=labels,
        label_weights=torch.rand(num_rois, generator=generator),
        bbox_targets=torch.randn(num_rois, 4, generator=generator),
        bbox_weights=positive[:, None].expand(-1, 4).clone(),
    )


def head_step(
    head: torch.nn.Module, feats: Tensor, targets: dict[str, Tensor]
) -> tuple[dict, dict]:
    """Losses and gradients of one step."""
    head.zero_grad()
    losses = head.loss(*head(feats), **targets)
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    grads = {k: p.grad.clone() for k, p in head.named_parameters() if p.grad is not None}
    return {k: v.detach() for k, v in losses.items()}, grads
