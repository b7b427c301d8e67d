"""AP over drawn images: against the metric itself on a file of those images."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from mmdet_softpl.evaluation.longtail_metric import LongTailMetric
from mmdet_softpl.evaluation.resampled_ap import draw_aps
from tests.support import tiny_labelling


def predictions(data: dict, noise: float, seed: int = 0) -> list[dict]:
    """The ground truth, moved by ``noise`` pixels, at random scores."""
    rng = np.random.default_rng(seed)
    records = []
    for image in data['images']:
        own = [a for a in data['annotations'] if a['image_id'] == image['id']]
        boxes = np.array([a['bbox'] for a in own]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        records.append(
            dict(
                img_id=image['id'],
                bboxes=(boxes + rng.normal(0, noise, boxes.shape)).astype(np.float32),
                labels=np.array([a['category_id'] - 1 for a in own], dtype=np.int32),
                scores=rng.uniform(0.1, 1, len(own)).astype(np.float32),
            )
        )
    return records


def make(path: Path) -> LongTailMetric:
    metric = LongTailMetric(str(path), 'bbox', calibration=False)
    metric.dataset_meta = dict(classes=tiny_labelling.CLASSES)
    return metric


@pytest.fixture
def ann_file(tmp_path: Path) -> Path:
    return tiny_labelling.write_images(tmp_path, count=8)


def test_a_draw_is_a_file_of_the_drawn_images(ann_file: Path, tmp_path: Path) -> None:
    data = json.loads(ann_file.read_text())
    metric = make(ann_file)
    good, bad = predictions(data, 0.5), predictions(data, 4.0)
    whole = metric.compute_metrics(good)
    last = metric.evaluations, metric.reliability
    found = draw_aps(metric, copy.deepcopy(data), [good, bad], 5, seed=3)
    assert len(found) == 2 and found[0]['bbox_AP'].shape == (5,)
    rng = np.random.default_rng(3)
    for place in range(5):
        drawn = rng.choice(sorted(i['id'] for i in data['images']), 8).tolist()
        images, annotations = [], []
        for new, old in enumerate(drawn):
            images.append(dict(id=1000 + new, file_name=f'{new}.png', height=48, width=64))
            for annotation in data['annotations']:
                if annotation['image_id'] == old:
                    copied = dict(annotation, id=len(annotations) + 1, image_id=1000 + new)
                    annotations.append(copied)
        path = tmp_path / f'{place}.json'
        path.write_text(json.dumps(dict(data, images=images, annotations=annotations)))
        for records, values in zip((good, bad), found, strict=True):
            by_id = {record['img_id']: record for record in records}
            renamed = [dict(by_id[old], img_id=1000 + new) for new, old in enumerate(drawn)]
            expected = make(path).compute_metrics(renamed)['bbox_AP']
            assert values['bbox_AP'][place] == pytest.approx(expected)
    assert (found[0]['bbox_AP'] > found[1]['bbox_AP']).all()
    # The metric is as it was.
    assert metric.evaluations is last[0] and metric.reliability is last[1]
    assert metric.compute_metrics(good) == whole


def test_no_draws(ann_file: Path) -> None:
    data = json.loads(ann_file.read_text())
    metric = make(ann_file)
    metric.compute_metrics(predictions(data, 1.0))
    assert draw_aps(metric, data, [predictions(data, 1.0)], 0) == [{}]


def test_federated_files_need_no_letters(ann_file: Path) -> None:
    data = json.loads(ann_file.read_text())
    for image in data['images']:
        present = {a['category_id'] for a in data['annotations'] if a['image_id'] == image['id']}
        others = [c['id'] for c in data['categories'] if c['id'] not in present]
        image.update(neg_category_ids=others, not_exhaustive_category_ids=[])
    assert not any('frequency' in category for category in data['categories'])
    ann_file.write_text(json.dumps(data))
    metric = make(ann_file)
    whole = metric.compute_metrics(predictions(data, 0.5))
    (found,) = draw_aps(metric, data, [predictions(data, 0.5)], 3)
    assert set(whole) == set(found) and (found['bbox_AP'] > 0).all()
