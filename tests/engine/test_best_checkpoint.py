"""``save_best`` is compared with the metrics before training, not at the first validation."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mmengine.config import ConfigDict
from mmengine.hooks import CheckpointHook

from mmdet_softpl.engine.best_checkpoint import check_best_checkpoint, configured_fault
from mmdet_softpl.evaluation.longtail_metric import LongTailMetric

OURS = dict(type='mmdet_softpl.LongTailMetric')
BOXES = dict(type='mmdet_softpl.LongTailMetric', metric='bbox')
COCO = dict(type='mmdet.CocoMetric')
SEMI = 'TeacherStudentValLoop'


def config_of(save_best: Any, evaluator: Any, loop: Any = SEMI, **rules: Any) -> ConfigDict:
    rules = rules or dict(rule='greater')
    return ConfigDict(
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', save_best=save_best, **rules)),
        val_cfg=None if loop is None else dict(type=loop),
        val_evaluator=evaluator,
    )


@pytest.mark.parametrize(
    'cfg',
    [
        config_of('teacher/longtail/segm_AP', OURS),
        config_of('student/longtail/bbox_AP', BOXES),
        config_of('teacher/coco/segm_mAP', [OURS, COCO]),
        config_of('longtail/segm_APr', OURS, 'ValLoop'),
        config_of('teacher/longtail/cc_ece_r', BOXES),
        config_of('mine/segm_AP', dict(OURS, prefix='mine'), 'ValLoop'),
        config_of('auto', COCO, rule=None),
        config_of('auto', OURS),
        config_of('teacher/coco/segm_mAP', COCO, rule=None),
        config_of('teacher/longtail/segm_AP', OURS, greater_keys=['segm_AP']),
        config_of(
            ['teacher/longtail/segm_AP', 'teacher/longtail/ece'], OURS, rule=['greater', 'less']
        ),
        config_of(None, COCO),
        config_of('x', None, None),
        config_of('longtail/segm_AP', dict(type='Elsewhere'), 'ValLoop'),
        config_of('a/coco/x', dict(type='MultiDatasetsEvaluator', metrics=[COCO]), 'ValLoop'),
        ConfigDict(),
    ],
)
def test_figures_that_may_come(cfg: ConfigDict) -> None:
    assert configured_fault(cfg) is None


@pytest.mark.parametrize(
    'cfg, beginning',
    [
        (config_of('teacher/longtail/segm_AP', COCO), 'gives teacher/coco/... (and student/'),
        (config_of('teacher/longtail/segm_AP', BOXES), 'gives teacher/longtail/bbox_AP, '),
        (config_of('longtail/segm_AP', OURS), 'teacher/longtail/segm_AP, '),
        (config_of('teacher/longtail/segm_AP', OURS, 'ValLoop'), 'gives longtail/bbox_AP,'),
        (config_of('teacher/longtail/segm_mAP', OURS), 'teacher/longtail/segm_AP, '),
        (config_of('teacher/longtail/segm_AP', dict(BOXES, type=LongTailMetric)), '/bbox_AP, '),
        (
            config_of(None, COCO)
            | dict(custom_hooks=[dict(type='CheckpointHook', save_best='longtail/x')]),
            'gives teacher/coco/...',
        ),
        (config_of(['coco/x', 'longtail/y'], [COCO, OURS], 'ValLoop'), "save_best='longtail/y'"),
    ],
)
def test_figures_that_never_come_stop_a_training(cfg: ConfigDict, beginning: str) -> None:
    with pytest.raises(ValueError) as error:
        check_best_checkpoint(SimpleNamespace(cfg=cfg))
    assert 'save_best=' in str(error.value) and beginning in str(error.value)


@pytest.mark.parametrize(
    'cfg, figure',
    [
        (config_of('auto', OURS, rule=None), 'teacher/longtail/bbox_AP'),
        (config_of('auto', OURS, 'ValLoop', rule=None), 'longtail/bbox_AP'),
        (config_of(['auto'], [BOXES, COCO], rule=None), 'teacher/longtail/bbox_AP'),
        (config_of('teacher/longtail/segm_AP', OURS, rule=None), 'teacher/longtail/segm_AP'),
    ],
)
def test_a_figure_without_a_rule_stops_a_training(cfg: ConfigDict, figure: str) -> None:
    """mmengine knows mAP; it would ask at the first validation, where it is 'auto'."""
    with pytest.raises(ValueError, match='Cannot infer the rule'):
        CheckpointHook(save_best=figure)
    fault = configured_fault(cfg)
    assert fault is not None and figure in fault and "rule='greater'" in fault


@pytest.mark.parametrize('rule', ['larger', ['greater', 'less', 'less']])
def test_a_wrong_rule_is_said(rule: Any) -> None:
    fault = configured_fault(config_of('teacher/longtail/segm_AP', OURS, rule=rule))
    assert fault is not None and f'rule={rule!r}' in fault


def test_every_figure_of_our_metric_may_choose(tmp_path: Path) -> None:
    path = tmp_path / 'val.json'
    box = dict(id=1, image_id=1, category_id=1, bbox=[1, 1, 4, 4], area=16, iscrowd=0)
    image = dict(id=1, file_name='a.jpg', height=9, width=9)
    categories = [dict(id=1, name='a', frequency='r')]
    path.write_text(json.dumps(dict(images=[image], annotations=[box], categories=categories)))
    metric = LongTailMetric(str(path), metric=['bbox'], ap_fixed=True)
    metric.dataset_meta = dict(classes=('a',))
    nothing = dict(bboxes=np.zeros((0, 4)), scores=np.zeros(0), labels=np.zeros(0))
    metric.process(None, [dict(img_id=1, pred_instances=nothing)])
    figures = metric.evaluate(1)
    assert {'longtail/bbox_APr_fixed', 'longtail/cc_ece'} <= set(figures)
    for figure in figures:
        assert configured_fault(config_of(figure, BOXES, 'ValLoop')) is None
