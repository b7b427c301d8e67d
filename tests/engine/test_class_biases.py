"""Shifted class biases against the scores that they should give."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope

from mmdet_softpl.engine.class_biases import (
    ClassBiasError,
    ShiftedBiases,
    check_softmax,
    class_bias_key,
    class_bias_names,
    shifted,
)
from tests.support.tiny import detector_config, semi_config, use_smoothed_head

SHIFTS = torch.tensor([1.0, 0.0, -0.5, 2.0])


def build(name: str = 'mask-rcnn', **head: Any) -> torch.nn.Module:
    with DefaultScope.overwrite_default_scope('mmdet'):
        config = use_smoothed_head(detector_config(name, 4), **head)
        return MODELS.build(config)


@pytest.mark.parametrize(('name', 'stages'), [('mask-rcnn', 1), ('cascade-mask-rcnn', 3)])
def test_every_stage_is_shifted_and_nothing_else(name: str, stages: int) -> None:
    before = build(name).state_dict()
    after = shifted(before, SHIFTS)
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert changed == class_bias_names(before) and len(changed) == stages
    for key in changed:
        torch.testing.assert_close(after[key] - before[key], torch.cat([SHIFTS, torch.zeros(1)]))


def test_two_trainings_have_different_keys() -> None:
    detector, other = build('cascade-mask-rcnn'), build('cascade-mask-rcnn')
    other.load_state_dict(detector.state_dict())
    assert class_bias_key(detector.state_dict()) == class_bias_key(other.state_dict())
    other.roi_head.bbox_head[1].fc_cls.bias.data[2] += 1e-3
    assert class_bias_key(detector.state_dict()) != class_bias_key(other.state_dict())
    with pytest.raises(ClassBiasError, match='fc_cls'):
        class_bias_key({})


def test_both_networks_of_a_semi_supervised_checkpoint() -> None:
    with DefaultScope.overwrite_default_scope('mmdet'):
        plain = use_smoothed_head(detector_config('mask-rcnn', 4))
        state_dict = MODELS.build(semi_config(plain)).state_dict()
    assert class_bias_names(state_dict) == [
        f'{network}.roi_head.bbox_head.fc_cls.bias' for network in ('student', 'teacher')
    ]


@pytest.mark.parametrize('normed', [False, True])
def test_scores_of_a_shifted_detector(normed: bool) -> None:
    head = dict(cls_predictor_cfg=dict(type='NormedLinear')) if normed else {}
    detector = build(**head).eval()
    classify = detector.roi_head.bbox_head.fc_cls
    features = torch.randn(3, classify.in_features)
    plain = classify(features)
    biases = ShiftedBiases(detector)
    for factor in (1.0, 3.0, 0.0):
        biases.set(factor * SHIFTS)
        expected = plain + factor * torch.cat([SHIFTS, torch.zeros(1)])
        torch.testing.assert_close(classify(features), expected)


def test_objectness_of_seesaw_loss_stays() -> None:
    loss = dict(type='SeesawLoss', num_classes=4)
    detector = build(loss_cls=loss)
    before = detector.state_dict()
    key = 'roi_head.bbox_head.fc_cls.bias'
    assert (shifted(before, SHIFTS)[key] - before[key])[4:].tolist() == [0.0, 0.0]


def test_what_cannot_be_shifted() -> None:
    with pytest.raises(ClassBiasError, match='fc_cls with a bias'):
        shifted({'bbox_head.conv_cls.bias': torch.zeros(5)}, SHIFTS)
    state_dict = build().state_dict()
    with pytest.raises(ClassBiasError, match='has 5 outputs, which are not those of 7 classes'):
        shifted(state_dict, torch.zeros(7))
    with pytest.raises(ClassBiasError, match='has 5 outputs, which are not those of 5 classes'):
        ShiftedBiases(build()).set(torch.zeros(5))
    with pytest.raises(ClassBiasError, match='no two-stage detector'):
        check_softmax(torch.nn.Linear(1, 1))
    detector = build()
    detector.roi_head.bbox_head.loss_cls.use_sigmoid = True
    with pytest.raises(ClassBiasError, match='sigmoid scores'):
        ShiftedBiases(detector)
