"""ValidationRecordHook: teacher's and student's classes, and nothing outside a training."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mmdet_softpl.engine import BurnInMeanTeacherHook, ValidationRecordHook
from mmdet_softpl.evaluation.longtail_metric import LongTailMetric
from mmdet_softpl.run_records import VALIDATIONS_FILE, read_records

NAMES = ('ant', 'bee', 'cat')


def make_runner(tmp_path: Path, metric: Any, model: Any = None) -> Any:
    return SimpleNamespace(
        iter=20,
        log_dir=str(tmp_path),
        hooks=[BurnInMeanTeacherHook(supervised_iters=7)],
        model=torch.nn.Identity() if model is None else model,
        val_loop=SimpleNamespace(evaluator=SimpleNamespace(metrics=[metric])),
    )


def make_metric(*aps: list[float]) -> LongTailMetric:
    metric = LongTailMetric.__new__(LongTailMetric)
    metric.dataset_meta = dict(classes=NAMES)
    metric.groups = torch.tensor([0, 2, 2])
    reliability = torch.arange(3 * 3 * 15).reshape(3, 3, 15).float()
    metric.evaluations = deque(
        (dict(class_AP=dict(segm=np.array(ap)), reliability=reliability) for ap in aps), maxlen=2
    )
    return metric


def test_teacher_and_student(tmp_path: Path) -> None:
    metric = make_metric([0.1, 0.2, -1], [0.3, 0.4, -1])
    hook, runner = ValidationRecordHook(), make_runner(tmp_path, metric)
    hook.before_train(runner)
    runner.iter = 40
    metrics = {'teacher/longtail/segm_AP': 0.15, 'student/longtail/segm_AP': float('nan')}
    hook.after_val_epoch(runner, metrics)
    head, record = read_records(tmp_path / VALIDATIONS_FILE)
    assert head == dict(start_iter=20, classes=list(NAMES), groups=[0, 2, 2], supervised_iters=7)
    assert record['iter'] == 40
    teacher, student = record['parts']['teacher'], record['parts']['student']
    assert teacher['metrics'] == {'longtail/segm_AP': 0.15}
    assert student['metrics'] == {'longtail/segm_AP': None}
    assert teacher['class_AP'] == dict(segm=[0.1, 0.2, -1])
    assert student['class_AP'] == dict(segm=[0.3, 0.4, -1])
    reliability = np.array(teacher['reliability'])
    assert reliability.shape == (3, 3, 15)
    whole = np.arange(3 * 3 * 15).reshape(3, 3, 15)
    np.testing.assert_array_equal(reliability[:, 0], whole[:, 0])
    np.testing.assert_array_equal(reliability[:, 1], 0)
    np.testing.assert_array_equal(reliability[:, 2], whole[:, 1] + whole[:, 2])
    # The next validation starts without what this one left.
    hook.before_val_epoch(runner)
    assert len(metric.evaluations) == 0


@pytest.mark.parametrize('predict_on', [None, 'student'])
def test_a_plain_loop_asks_one_network(tmp_path: Path, predict_on: str | None) -> None:
    model = torch.nn.Identity()
    if predict_on:
        model.semi_test_cfg = dict(predict_on=predict_on)
    hook, runner = ValidationRecordHook(), make_runner(tmp_path, make_metric([0, 0, 0]), model)
    hook.before_train(runner)
    hook.after_val_epoch(runner, {'longtail/segm_AP': 0.5})
    _, record = read_records(tmp_path / VALIDATIONS_FILE)
    assert list(record['parts']) == [predict_on or 'model']
    assert 'class_AP' in record['parts'][predict_on or 'model']


def test_another_metric_has_no_classes(tmp_path: Path) -> None:
    hook, runner = ValidationRecordHook(), make_runner(tmp_path, SimpleNamespace())
    hook.before_train(runner)
    hook.before_val_epoch(runner)
    hook.after_val_epoch(runner, {'coco/bbox_mAP': 0.5})
    head, record = read_records(tmp_path / VALIDATIONS_FILE)
    assert head['classes'] == [] and head['groups'] is None
    assert record['parts'] == dict(model=dict(metrics={'coco/bbox_mAP': 0.5}))


def test_nothing_outside_a_training(tmp_path: Path) -> None:
    hook, runner = ValidationRecordHook(), make_runner(tmp_path, make_metric([0, 0, 0]))
    hook.after_val_epoch(runner, {'longtail/segm_AP': 0.5})
    assert not (tmp_path / VALIDATIONS_FILE).exists()
