"""Whoever shows images to a network prepares them as training and validation do.

The preprocessors of teacher and student are read by neither, and may say something else where a
config sets the detector's alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import init_default_scope
from torch import nn

from mmdet_softpl.engine import PseudoLabelVisualizationHook
from mmdet_softpl.engine.label_evidence import evidence_in_parts
from mmdet_softpl.engine.label_images import label_images
from mmdet_softpl.engine.pseudo_label_visualization_hook import (
    STUDENT_BRANCH,
    TEACHER_BRANCH,
    first_of_branches,
)
from mmdet_softpl.engine.review_labels import label_in_parts
from mmdet_softpl.engine.run_predictions import predict_or_read
from mmdet_softpl.evaluation.longtail_metric import LongTailMetric
from mmdet_softpl.evaluation.teacher_dump import dump_teacher
from tests.support import tiny_labelling
from tests.support.tiny import NUM_CLASSES, multi_batch

Use = Callable[[Any, Any, Path], object]


class OfNobody(nn.Module):
    """Stands for a preprocessor that nothing may use."""

    def forward(self, *args: Any) -> None:
        pytest.fail('this preprocessor is not that of the training')


def labels(detector: Any, dataset: Any, ann_file: Path) -> object:
    return [image.detections.scores for image in label_images(detector, dataset, [0, 1])]


def student_labels(detector: Any, dataset: Any, ann_file: Path) -> object:
    found = label_images(detector, dataset, [0, 1], network='student')
    return [image.detections.scores for image in found]


def evidence(detector: Any, dataset: Any, ann_file: Path) -> object:
    annotations: dict[int, list[dict]] = {}
    for annotation in json.loads(ann_file.read_text())['annotations']:
        annotations.setdefault(annotation['image_id'], []).append(annotation)
    classes = {i + 1: i for i in range(NUM_CLASSES)}
    return evidence_in_parts(
        detector, dataset, annotations, classes, ann_file.parent, with_masks=True
    )


def review(detector: Any, dataset: Any, ann_file: Path) -> object:
    return label_in_parts(detector, dataset, ann_file.parent, min_confidence=0.0)


def predictions(detector: Any, dataset: Any, ann_file: Path) -> object:
    metric = LongTailMetric(str(ann_file), ['bbox'], calibration=False)
    metric.dataset_meta = dataset.metainfo
    return predict_or_read(
        lambda: detector, dataset, metric, ann_file.parent / 'predictions.json', {}
    )


def dump(detector: Any, dataset: Any, ann_file: Path) -> object:
    truth = tiny_labelling.ground_truth(ann_file)
    return dump_teacher(detector, dataset, truth, ann_file.parent / 'dumps', {}).images


def picture(detector: Any, dataset: Any, ann_file: Path) -> object:
    _, samples = multi_batch(64)
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    batch = dict(
        inputs={TEACHER_BRANCH: [image], STUDENT_BRANCH: [image]},
        data_samples={name: samples[name][:1] for name in (TEACHER_BRANCH, STUDENT_BRANCH)},
    )
    first = first_of_branches(batch)
    assert first is not None
    return PseudoLabelVisualizationHook().draw(detector, first)


@pytest.mark.parametrize(
    'use', [labels, student_labels, evidence, review, predictions, dump, picture]
)
def test_the_preprocessor_of_the_training_is_used(use: Use, tmp_path: Path) -> None:
    init_default_scope('mmdet')
    torch.manual_seed(0)
    ann_file = tiny_labelling.write_images(tmp_path, count=2)
    dataset = tiny_labelling.build_dataset(ann_file)
    detector = tiny_labelling.build_teacher()
    calls: list[bool] = []
    detector.data_preprocessor.data_preprocessor.register_forward_hook(
        lambda *_: calls.append(True)
    )
    for network in (detector.teacher, detector.student):
        network.data_preprocessor = OfNobody()
    assert len(use(detector, dataset, ann_file)) > 0
    assert calls


def test_a_preprocessor_without_branches_is_its_own() -> None:
    init_default_scope('mmdet')
    detector = tiny_labelling.build_teacher()
    inner = detector.data_preprocessor.data_preprocessor
    assert detector.image_preprocessor is inner
    detector.data_preprocessor = inner
    assert detector.image_preprocessor is inner
