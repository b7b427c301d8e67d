"""Predictions: the teacher's own, kept in a file that stands for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycocotools.mask as mask_utils
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope

from mmdet_softpl.engine.run_predictions import predict_or_read
from mmdet_softpl.evaluation.longtail_metric import LongTailMetric
from tests.support import tiny_labelling


def test_predictions(tmp_path: Path) -> None:
    init_default_scope('mmdet')
    torch.manual_seed(0)
    ann_file = tiny_labelling.write_images(tmp_path, count=3)
    dataset = tiny_labelling.build_dataset(ann_file)
    detector = tiny_labelling.build_teacher()
    metric = LongTailMetric(str(ann_file), ['bbox', 'segm'], calibration=False)
    metric.dataset_meta = dataset.metainfo
    path = tmp_path / 'predictions' / 'a.json'
    reports: list[tuple[int, int]] = []
    found = predict_or_read(
        lambda: detector,
        dataset,
        metric,
        path,
        dict(a=1),
        batch_size=2,
        progress=lambda *done: reports.append(done),
    )
    assert reports == [(2, 3), (3, 3)]
    assert [record['img_id'] for record in found] == [10, 11, 12]
    with torch.no_grad():
        data = detector.teacher.data_preprocessor(pseudo_collate([dataset[1]]), False)
        (expected,) = detector.teacher.predict(data['inputs'], data['data_samples'])
    own = expected.pred_instances
    assert len(own) > 0
    np.testing.assert_allclose(found[1]['bboxes'], own.bboxes.numpy(), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found[1]['scores'], own.scores.numpy(), rtol=1e-4)
    masks = mask_utils.decode(list(found[1]['masks'])).transpose(2, 0, 1)
    assert (masks.astype(bool) == own.masks.numpy()).mean() > 0.999
    values = metric.compute_metrics(found)

    def never() -> None:
        pytest.fail('the file was there')

    again = predict_or_read(never, dataset, metric, path, dict(a=1))
    assert metric.compute_metrics(again) == values
    # Another checkpoint: the file is of no use.
    calls: list[int] = []
    predict_or_read(lambda: calls.append(1) or detector, dataset, metric, path, dict(a=2))
    assert calls == [1]
