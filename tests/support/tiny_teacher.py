"""A tiny CalibratedSoftTeacher around each detector that it supports."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.registry import MODELS

from mmdet_softpl.models import CalibratedSoftTeacher
from tests.support.tiny import GENEROUS, detector_config, lively, semi_config, use_smoothed_head

DETECTORS = ('faster-rcnn', 'mask-rcnn', 'cascade-mask-rcnn')


def tiny_teacher(
    name: str = 'mask-rcnn', smoothed: bool = True, **cfg: Any
) -> CalibratedSoftTeacher:
    """In training mode, with ``GENEROUS`` settings; ``cfg`` goes into ``semi_train_cfg``."""
    detector = detector_config(name)
    if smoothed:
        use_smoothed_head(detector, warmup_iters=0, refresh_interval=1)
    return lively(MODELS.build(semi_config(detector, **{**GENEROUS, **cfg})))


def total(losses: dict) -> torch.Tensor:
    """What mmengine would backpropagate."""
    parts = [v if torch.is_tensor(v) else sum(v) for k, v in losses.items() if 'loss' in k]
    return torch.stack([part.mean() for part in parts]).sum()
