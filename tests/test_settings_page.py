"""docs/settings.md lists every setting, with its default and what the shipped configs have."""

from __future__ import annotations

import ast
import inspect
import re
from typing import Any

import pytest
from mmengine.config import Config

from mmdet_softpl.datasets.rare_copy_paste_dataset import RareCopyPasteDataset
from mmdet_softpl.engine import BurnInMeanTeacherHook, RareBoostPseudoLabeler
from mmdet_softpl.models import SmoothedCEHead
from mmdet_softpl.models.semi_train_cfg import DEFAULTS
from tests.support.tiny import REPOSITORY

SHIPPED = 'calibrated-soft-teacher_mask-rcnn_r50_fpn_180k_semi-0.1-lvis-v1'
ROW = re.compile(r'^\| `(\w+)` \| (.+?) \| (.+?) \|', re.MULTILINE)


def defaults_of(cls: type) -> dict[str, Any]:
    parameters = inspect.signature(cls).parameters.values()
    return {
        p.name: p.default
        for p in parameters
        if p.kind.name in ('POSITIONAL_OR_KEYWORD', 'KEYWORD_ONLY')
    }


@pytest.fixture(scope='module')
def shipped() -> dict[str, Any]:
    cfg = Config.fromfile(REPOSITORY / 'configs' / 'calibrated_soft_teacher' / f'{SHIPPED}.py')
    hooks = {hook.type.split('.')[-1]: hook for hook in cfg.custom_hooks}
    return {
        'CalibratedSoftTeacher': cfg.model.semi_train_cfg,
        'SmoothedCEHead': cfg.model.detector.roi_head.bbox_head,
        'RareCopyPasteDataset': cfg.train_dataloader.dataset,
        **hooks,
    }


@pytest.mark.parametrize(
    ('name', 'defaults'),
    [
        ('CalibratedSoftTeacher', DEFAULTS),
        ('RareBoostPseudoLabeler', defaults_of(RareBoostPseudoLabeler)),
        ('BurnInMeanTeacherHook', defaults_of(BurnInMeanTeacherHook)),
        ('SmoothedCEHead', defaults_of(SmoothedCEHead)),
        ('RareCopyPasteDataset', defaults_of(RareCopyPasteDataset)),
    ],
)
def test_every_setting(name: str, defaults: dict[str, Any], shipped: dict[str, Any]) -> None:
    text = (REPOSITORY / 'docs' / 'settings.md').read_text(encoding='utf-8')
    assert SHIPPED in text
    (section,) = re.findall(rf'^## {name}\b.*?(?=^## |\Z)', text, re.MULTILINE | re.DOTALL)
    rows = {key: values for key, *values in ROW.findall(section)}
    assert rows.keys() == defaults.keys()
    for key, (default, value) in rows.items():
        if defaults[key] is inspect.Parameter.empty:
            assert default == 'needed'
            continue
        assert ast.literal_eval(default) == defaults[key], key
        used = shipped[name].get(key, defaults[key])
        used = tuple(used) if isinstance(used, list) else used
        assert ast.literal_eval(value) == used, key
