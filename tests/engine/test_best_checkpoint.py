"""``save_best`` is compared with the metrics before training, not at the first validation."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mmdet.engine.runner import TeacherStudentValLoop
from mmdet.evaluation import CocoMetric
from mmdet.evaluation.evaluator import MultiDatasetsEvaluator
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook
from mmengine.runner import ValLoop

from mmdet_softpl.engine.best_checkpoint import check_best_checkpoint, configured_fault
from mmdet_softpl.evaluation.longtail_metric import LongTailMetric


@pytest.fixture
def tiny_truth(tmp_path: Path) -> str:
    path = tmp_path / 'val.json'
    box = dict(id=1, image_id=1, category_id=1, bbox=[1, 1, 4, 4], area=16, iscrowd=0)
    image = dict(id=1, file_name='a.jpg', height=9, width=9)
    categories = [dict(id=1, name='a', frequency='r')]
    path.write_text(json.dumps(dict(images=[image], annotations=[box], categories=categories)))
    return str(path)


def metric_of(cls: type, **attributes: Any) -> Any:
    metric = cls.__new__(cls)
    vars(metric).update(attributes)
    return metric


def runner_of(save_best: Any, *metrics: Any, loop_type: type = TeacherStudentValLoop) -> Any:
    loop = loop_type.__new__(loop_type)
    loop.evaluator = Evaluator(metrics)
    hook = CheckpointHook(save_best=save_best, rule=None if save_best is None else 'greater')
    return SimpleNamespace(_val_loop=loop, hooks=[hook])


OURS = metric_of(LongTailMetric, prefix='longtail', iou_types=['bbox', 'segm'])
BOXES = metric_of(LongTailMetric, prefix='longtail', iou_types=['bbox'])
HOST = metric_of(CocoMetric, prefix='coco')


@pytest.mark.parametrize(
    'runner',
    [
        runner_of('teacher/longtail/segm_AP', OURS),
        runner_of('student/longtail/bbox_AP', BOXES),
        runner_of('teacher/coco/segm_mAP', OURS, HOST),
        runner_of('longtail/segm_APr', OURS, loop_type=ValLoop),
        runner_of('teacher/longtail/cc_ece_r', BOXES),
        runner_of('auto', HOST),
        runner_of(None, HOST),
        SimpleNamespace(_val_loop=None, hooks=[CheckpointHook(save_best='x', rule='greater')]),
    ],
)
def test_figures_that_come(runner: Any) -> None:
    check_best_checkpoint(runner)


@pytest.mark.parametrize(
    'runner, beginning',
    [
        (runner_of('teacher/longtail/segm_AP', HOST), 'gives teacher/coco/... (and student/'),
        (runner_of('teacher/longtail/segm_AP', BOXES), 'gives teacher/longtail/bbox_AP, '),
        (runner_of('longtail/segm_AP', OURS), 'teacher/longtail/segm_AP, '),
        (runner_of('teacher/longtail/segm_AP', OURS, loop_type=ValLoop), 'gives longtail/bbox_AP,'),
        (runner_of('teacher/longtail/segm_mAP', OURS), 'teacher/longtail/segm_AP, '),
    ],
)
def test_figures_that_never_come_are_named(runner: Any, beginning: str) -> None:
    with pytest.raises(ValueError) as error:
        check_best_checkpoint(runner)
    assert 'save_best=' in str(error.value) and beginning in str(error.value)


def test_every_figure_of_our_metric_may_choose(tiny_truth: str) -> None:
    metric = LongTailMetric(tiny_truth, metric=['bbox'], ap_fixed=True)
    metric.dataset_meta = dict(classes=('a',))
    nothing = dict(bboxes=np.zeros((0, 4)), scores=np.zeros(0), labels=np.zeros(0))
    metric.process(None, [dict(img_id=1, pred_instances=nothing)])
    figures = metric.evaluate(1)
    assert {'longtail/bbox_APr_fixed', 'longtail/cc_ece'} <= set(figures)
    for figure in figures:
        check_best_checkpoint(runner_of(figure, metric, loop_type=ValLoop))


def test_evaluators_of_several_data_sets_are_left_alone() -> None:
    runner = runner_of('teacher/a/coco/segm_mAP', HOST)
    runner._val_loop.evaluator = MultiDatasetsEvaluator.__new__(MultiDatasetsEvaluator)
    check_best_checkpoint(runner)


EVALUATOR = dict(type='mmdet_softpl.LongTailMetric', metric='bbox')
COCO = dict(type='CocoMetric')


@pytest.mark.parametrize(
    'save_best, evaluator, loop, refused',
    [
        ('teacher/longtail/bbox_AP', EVALUATOR, 'TeacherStudentValLoop', False),
        ('teacher/longtail/segm_AP', EVALUATOR, 'TeacherStudentValLoop', True),
        ('teacher/longtail/bbox_AP', EVALUATOR, 'ValLoop', True),
        ('teacher/longtail/bbox_AP', COCO, 'TeacherStudentValLoop', True),
        ('teacher/coco/bbox_mAP', [EVALUATOR, COCO], 'TeacherStudentValLoop', False),
        (['coco/bbox_mAP', 'longtail/segm_AP'], [EVALUATOR, COCO], 'ValLoop', True),
        ('longtail/segm_AP', dict(type='Elsewhere'), 'ValLoop', False),
        ('longtail/segm_AP', None, 'ValLoop', False),
        (None, COCO, 'ValLoop', False),
    ],
)
def test_of_a_config(save_best: Any, evaluator: Any, loop: str, refused: bool) -> None:
    cfg = dict(
        default_hooks=dict(checkpoint=dict(save_best=save_best)),
        val_cfg=dict(type=loop),
        val_evaluator=evaluator,
    )
    fault = configured_fault(cfg)
    assert (fault is not None) == refused
