"""The written config does what setting the values does."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from mmengine.config import Config

from mmdet_softpl.engine.config_parts import ConfigPartError, labeller_of
from mmdet_softpl.engine.tuned_config import apply_settings, labeller_arguments, tuned_config_text
from mmdet_softpl.evaluation.label_replay import LabelSettings
from mmdet_softpl.shipped_configs import config_path

NAMES = (
    'calibrated-soft-teacher_mask-rcnn_r18_longtail-shapes',
    'calibrated-soft-teacher_mask-rcnn_r50_fpn_180k_semi-0.1-lvis-v1',
    'calibrated-soft-teacher_cascade-mask-rcnn_r50_fpn_180k_semi-0.1-coco',
)
SETTINGS = LabelSettings(
    threshold_mode='quantile',
    quantile=0.81234567,
    thr_range=(0.123456, 0.9),
    boost_gamma=0.3,
    prototype_weight=(0.5, 0.25, 0.0),
    temperature=0.05,
    calibration='group_temperature',
    label_temperature=0.61234567,
)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('temperatures', [(0.1, 0.05), ()])
def test_text_and_values_agree(name: str, temperatures: tuple[float, ...], tmp_path: Path) -> None:
    base = config_path(name)
    cfg = Config.fromfile(base)
    path = tmp_path / 'tuned.py'
    text = tuned_config_text(cfg, str(base), SETTINGS, temperatures, 'One line.\nAnother.')
    assert text.startswith('# One line.\n# Another.\n')
    path.write_text(text)
    expected = Config(copy.deepcopy(cfg.to_dict()))
    apply_settings(expected, SETTINGS, temperatures)
    found = Config.fromfile(path)
    for key in ('model', 'custom_hooks', 'train_dataloader'):
        assert found[key] == expected[key], key
    assert labeller_of(found)[1].quantile == 0.8123
    heads = found.model.detector.roi_head.bbox_head
    last = heads[-1] if isinstance(heads, list) else heads
    own = cfg.model.detector.roi_head.bbox_head
    own = own[-1] if isinstance(own, list) else own
    assert last.get('temperature') == (0.05 if temperatures else own.get('temperature'))
    assert found.model.semi_train_cfg.label_temperature == 0.6123
    # The new values are arguments of the hook.
    assert labeller_of(found)[1].threshold_mode == 'quantile'


def test_arguments_of_other_modes_are_left_out() -> None:
    found = labeller_arguments(LabelSettings(threshold_mode='fixed', fixed_thr=0.123456), False)
    assert found['fixed_thr'] == 0.1235
    assert not {'alpha', 'quantile', 'prototype_weight'} & set(found)
    assert 'alpha' in labeller_arguments(LabelSettings(threshold_mode='prior'), True)


def test_hard_labels_have_no_temperature() -> None:
    cfg = Config.fromfile(config_path(NAMES[0]))
    apply_settings(cfg, LabelSettings(label_mode='hard', label_temperature=0.5), ())
    assert 'label_temperature' not in cfg.model.semi_train_cfg


def test_needs_a_labeller() -> None:
    with pytest.raises(ConfigPartError):
        tuned_config_text(Config(dict(custom_hooks=[])), 'a.py', SETTINGS, (), '')
