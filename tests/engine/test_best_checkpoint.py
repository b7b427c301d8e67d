"""``save_best`` is compared with the metrics before training, not at the first validation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from mmdet.engine.runner import TeacherStudentValLoop
from mmdet.evaluation import CocoMetric
from mmengine.hooks import CheckpointHook
from mmengine.runner import ValLoop

from mmdet_softpl.engine.best_checkpoint import check_best_checkpoint
from mmdet_softpl.evaluation.longtail_metric import LongTailMetric


def metric_of(cls: type, **attributes: Any) -> Any:
    metric = cls.__new__(cls)
    vars(metric).update(attributes)
    return metric


def runner_of(save_best: Any, *metrics: Any, loop_type: type = TeacherStudentValLoop) -> Any:
    loop = loop_type.__new__(loop_type)
    loop.evaluator = SimpleNamespace(metrics=metrics)
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
        (runner_of('teacher/longtail/segm_AP', HOST), 'student/coco/..., teacher/coco/...'),
        (runner_of('teacher/longtail/segm_AP', BOXES), 'teacher/longtail/...'),
        (runner_of('longtail/segm_AP', OURS), 'teacher/longtail/...'),
        (runner_of('teacher/longtail/segm_AP', OURS, loop_type=ValLoop), 'gives longtail/...'),
    ],
)
def test_figures_that_never_come_are_named(runner: Any, beginning: str) -> None:
    with pytest.raises(ValueError) as error:
        check_best_checkpoint(runner)
    assert "longtail/segm_AP'" in str(error.value) and beginning in str(error.value)
