"""What the arms' configs need and the package does not have."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope

from benchmarks.longtail import parts  # noqa: F401  (registers the models)
from tests.support import tiny

# A network that is not trained is sure of nothing.
GENEROUS = dict(
    sup_weight=1.0,
    unsup_weight=4.0,
    pseudo_label_initial_score_thr=0.15,
    rpn_pseudo_thr=0.15,
    cls_pseudo_thr=0.15,
    reg_pseudo_thr=100.0,
    jitter_times=2,
    jitter_scale=0.06,
    min_pseudo_bbox_wh=(0.01, 0.01),
)


def build(model: str, masks: bool) -> Any:
    init_default_scope('mmdet')
    torch.manual_seed(0)
    detector = tiny.detector_config('mask-rcnn')
    if not masks:
        del detector.roi_head['mask_head'], detector.roi_head['mask_roi_extractor']
    cfg = tiny.semi_config(detector, **GENEROUS)
    return MODELS.build(ConfigDict(cfg, type=model))


def losses_of(model: Any) -> dict[str, float]:
    inputs, samples = tiny.multi_batch()
    torch.manual_seed(1)
    losses = model.loss(inputs, copy.deepcopy(samples))
    return {
        name: float(sum(torch.as_tensor(part).detach() for part in value))
        if isinstance(value, list)
        else float(value.detach())
        for name, value in losses.items()
        if 'loss' in name
    }


def test_soft_teacher_beside_a_mask_head_is_soft_teacher_without_one() -> None:
    ours, host = build('BoxesSoftTeacher', True), build('SoftTeacher', False)
    result = host.load_state_dict(ours.state_dict(), strict=False)
    assert not result.missing_keys and all('mask' in key for key in result.unexpected_keys)
    found, expected = losses_of(ours), losses_of(host)
    assert found.pop('sup_loss_mask') > 0
    assert found == pytest.approx(expected)
    # The teacher labels something, or there would be nothing to compare.
    assert expected['unsup_loss_bbox'] > 0
    assert ours.student.roi_head.with_mask and ours.teacher.roi_head.with_mask

    ours.unsup_scale = 0.25
    for name, value in losses_of(ours).items():
        if name.startswith('unsup_'):
            assert value == pytest.approx(0.25 * expected[name])
