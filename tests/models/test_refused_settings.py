"""Settings and detectors that CalibratedSoftTeacher refuses, by name."""

from __future__ import annotations

import pytest
from mmdet.registry import MODELS

from tests.support.tiny import (
    GENEROUS,
    NUM_CLASSES,
    detector_config,
    semi_config,
)


@pytest.mark.parametrize(
    ('augment', 'refused'),
    [
        (dict(type='BatchResize', scale=(64, 64)), True),
        (dict(type='BatchSyncRandomResize', random_size_range=(64, 128), size_divisor=32), True),
        (dict(type='BatchFixedSizePad', size=(128, 128)), False),
    ],
)
def test_augmentations_of_a_batch_that_resize_are_refused(augment: dict, refused: bool) -> None:
    cfg = semi_config(detector_config(), **GENEROUS)
    cfg['data_preprocessor']['data_preprocessor']['batch_augments'] = [augment]
    if refused:
        with pytest.raises(ValueError, match=f'{augment["type"]} of data_preprocessor'):
            MODELS.build(cfg)
    else:
        MODELS.build(cfg)


@pytest.mark.parametrize(
    'cfg, words',
    [
        (dict(label_mode='fuzzy'), ['fuzzy', "'soft'", "'hard'"]),
        (dict(label_mode='hard', student_correction=True), ['student_correction', "'hard'"]),
        (dict(calibration='platt'), ['platt', "'histogram'", "'group_temperature'"]),
        (dict(score_thr=1.2), ['score_thr', '1.2']),
        (dict(score_floor=-0.1), ['score_floor', '-0.1']),
        (dict(label_temperature=0.0), ['label_temperature', '0.0']),
        (dict(iou_thr=0.0), ['iou_thr', '0.0']),
        (dict(mirror='False'), ['mirror', "'False'"]),
        (dict(student_correction='False'), ['student_correction', "'False'"]),
        (dict(unsup_weight=-1), ['unsup_weight', '-1']),
        (dict(refresh_interval=0), ['refresh_interval', '0']),
        (dict(max_per_img=0), ['max_per_img']),
        (dict(max_per_img=50.0), ['max_per_img', '50.0', 'whole']),
        (dict(refresh_interval=2.5), ['refresh_interval', '2.5']),
        (dict(cls_pseudo_thr=0.9), ['cls_pseudo_thr', 'score_thr']),
    ],
)
def test_bad_settings_are_named_at_construction(cfg: dict, words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        MODELS.build(semi_config(detector_config(), **cfg))
    for word in words:
        assert word in str(error.value)


def test_an_unknown_key_of_the_test_settings_is_named() -> None:
    cfg = dict(semi_config(detector_config()), semi_test_cfg=dict(predict='student'))
    with pytest.raises(ValueError, match=r"semi_test_cfg='predict'.*'predict_on'"):
        MODELS.build(cfg)


def test_a_one_stage_detector_is_refused() -> None:
    from mmengine.config import Config

    base = Config.fromstring(
        "_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py']\n", file_format='.py'
    )
    base.model.backbone.init_cfg = None
    with pytest.raises(ValueError, match=r'two-stage.*RetinaNet'):
        MODELS.build(semi_config(base.model))


def test_heads_with_another_loss_are_refused() -> None:
    detector = detector_config()
    detector.roi_head.bbox_head.loss_cls = dict(type='FocalLoss', use_sigmoid=True)
    with pytest.raises(ValueError, match='FocalLoss'):
        MODELS.build(semi_config(detector))
    # Cross entropy on one output per RoI: there is nothing to be soft about.
    detector.roi_head.bbox_head.loss_cls = dict(type='CrossEntropyLoss', use_mask=True)
    with pytest.raises(ValueError, match='use_sigmoid=False'):
        MODELS.build(semi_config(detector))


def test_class_weights_and_a_thawed_teacher_are_refused() -> None:
    detector = detector_config()
    detector.roi_head.bbox_head.loss_cls.class_weight = [1.0] * (NUM_CLASSES + 1)
    with pytest.raises(ValueError, match='class_weight'):
        MODELS.build(semi_config(detector))
    with pytest.raises(ValueError, match='freeze_teacher=False'):
        MODELS.build(semi_config(detector_config(), freeze_teacher=False))


def test_ignored_labels_are_refused() -> None:
    detector = detector_config()
    detector.roi_head.bbox_head.loss_cls.ignore_index = 2
    with pytest.raises(ValueError, match='ignore_index=2'):
        MODELS.build(semi_config(detector))
