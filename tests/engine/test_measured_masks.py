"""A validation of masks needs a detector that predicts them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from mmengine.config import Config

from mmdet_softpl.engine.measured_masks import check_measured_masks, mask_fault
from mmdet_softpl.shipped_configs import config_path

DEMO = 'calibrated-soft-teacher_mask-rcnn_r18_longtail-shapes'


@pytest.mark.parametrize(
    ('metric', 'refused'),
    [
        (dict(type='LongTailMetric'), True),
        (dict(type='mmdet_softpl.LongTailMetric', metric='bbox'), False),
        (dict(type='CocoMetric'), False),
        (dict(type='CocoMetric', metric=['bbox', 'segm']), True),
        (dict(type='LVISMetric', metric='segm'), True),
        (dict(type='VOCMetric', metric='segm'), False),
        ([dict(type='CocoMetric'), dict(type='LongTailMetric')], True),
        (None, False),
    ],
)
def test_metrics(metric: Any, refused: bool) -> None:
    for wrap in (lambda detector: detector, lambda detector: dict(detector=detector)):
        cfg = dict(model=wrap(dict(roi_head=dict(mask_head=None))), val_evaluator=metric)
        assert bool(mask_fault(cfg)) is refused
        cfg['model'] = wrap(dict(roi_head=dict(mask_head=dict(num_classes=3))))
        assert mask_fault(cfg) is None
        # Of another kind: nothing is known.
        cfg['model'] = wrap(dict(mask_head=dict(num_classes=3)))
        assert mask_fault(cfg) is None


def test_the_shipped_config_without_its_mask_head() -> None:
    cfg = Config.fromfile(str(config_path(DEMO)))
    check_measured_masks(SimpleNamespace(cfg=cfg))
    cfg.merge_from_dict(dict(model=dict(detector=dict(roi_head=dict(mask_head=None)))))
    with pytest.raises(ValueError, match=r"LongTailMetric: .*set metric='bbox'"):
        check_measured_masks(SimpleNamespace(cfg=cfg))
