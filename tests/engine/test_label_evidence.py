"""Evidence on given labels against the box and mask heads themselves, one image at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmdet.structures.bbox import bbox_overlaps
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope

from mmdet_softpl.engine.label_evidence import evidence_in_parts
from mmdet_softpl.models import CalibratedSoftTeacher
from mmdet_softpl.models.teacher_labels import teacher_detect
from tests.support.tiny import NUM_CLASSES, detector_config, semi_config

LABELS = {10 * (i + 1): i for i in range(NUM_CLASSES)}
# Two labels, none, one.
BOXES = {10: [[4, 6, 20, 24], [30, 2, 24, 30]], 11: [], 12: [[8.5, 10, 30, 20]]}


@pytest.fixture(autouse=True)
def _scope() -> None:
    init_default_scope('mmdet')
    torch.manual_seed(0)


@pytest.fixture
def dataset(tmp_path: Path):
    """Three images of 64 x 48 pixels, doubled by the pipeline."""
    rng = np.random.default_rng(0)
    images = []
    for image_id in BOXES:
        name = f'{image_id}.png'
        cv2.imwrite(str(tmp_path / name), rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
        images.append(dict(id=image_id, file_name=name, height=48, width=64))
    content = dict(images=images, categories=[], annotations=[])
    (tmp_path / 'images.json').write_text(json.dumps(content))
    meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    return DATASETS.build(
        dict(
            type='mmdet_softpl.UnlabeledImageDataset',
            data_root=str(tmp_path),
            ann_file='images.json',
            test_mode=True,
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='Resize', scale=(128, 96), keep_ratio=True),
                dict(type='PackDetInputs', meta_keys=meta_keys),
            ],
        )
    )


def annotations() -> dict[int, list[dict[str, Any]]]:
    result: dict[int, list[dict[str, Any]]] = {}
    for image_id, boxes in BOXES.items():
        result[image_id] = [
            dict(
                category_id=10 * (j + 2),
                bbox=[x, y, w, h],
                segmentation=[[x, y, x + w, y, x + w, y + h / 2, x, y + h / 2]],
            )
            for j, (x, y, w, h) in enumerate(boxes)
        ]
    return result


def build(name: str = 'mask-rcnn') -> CalibratedSoftTeacher:
    return MODELS.build(semi_config(detector_config(name), score_floor=0.1)).eval()


def look(detector, dataset, folder: Path, **kwargs: Any) -> list[dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    return evidence_in_parts(
        detector, dataset, annotations(), LABELS, folder, **dict(dict(with_masks=True), **kwargs)
    )


def expected(detector, item: dict[str, Any], annotation: dict[str, Any]) -> list[float]:
    """The evidence on one label, from the host's own forward passes."""
    teacher, rows = detector.teacher, []
    x, y, w, h = (2 * value for value in annotation['bbox'])
    label = LABELS[annotation['category_id']]
    for mirrored in (False, True):
        image = item['inputs'].flip(2) if mirrored else item['inputs']
        data = teacher.data_preprocessor(
            pseudo_collate([dict(inputs=image, data_samples=item['data_samples'])]), False
        )
        feats = teacher.extract_feat(data['inputs'])
        left = 128 - x - w if mirrored else x
        roi = torch.tensor([[0, left, y, left + w, y + h]])
        result = teacher.roi_head._bbox_forward(feats, roi)
        scores = result['cls_score'].softmax(1)[0]
        others = [score for j, score in enumerate(scores[:-1]) if j != label]
        delta = result['bbox_pred'].reshape(1, -1, 4)[:, label]
        drawn = teacher.roi_head.bbox_head.bbox_coder.decode(roi[:, 1:], delta)
        row = [
            float(scores[label] / scores[:-1].sum()),
            float(scores[label] / (scores[label] + max(others))),
            float(scores[:-1].sum()),
            float(bbox_overlaps(roi[:, 1:], drawn)),
        ]
        if teacher.roi_head.with_mask:
            logits = teacher.roi_head._mask_forward(feats, roi)['mask_preds'][0, label]
            seen = (logits.sigmoid() > 0.5).numpy()
            # The upper half of the box is the given mask.
            given = np.arange(28)[:, None].repeat(28, 1) < 14
            row.append((seen & given).sum() / (seen | given).sum())
        rows.append(row)
    return np.mean(rows, 0).tolist()


@pytest.mark.parametrize('name', ['mask-rcnn', 'faster-rcnn'])
@torch.no_grad()
def test_equals_the_heads_own_outputs(dataset, tmp_path: Path, name: str) -> None:
    detector = build(name)
    with_masks = name == 'mask-rcnn'
    records = look(detector, dataset, tmp_path / 'parts', with_masks=with_masks, batch_size=3)
    assert [record['img_id'] for record in records] == list(BOXES)
    for i, record in enumerate(records):
        given = annotations()[record['img_id']]
        assert len(record['evidence']) == len(given)
        for row, annotation in zip(record['evidence'], given, strict=True):
            wanted = expected(detector, dataset[i], annotation)
            np.testing.assert_allclose(row[:4], wanted[:4], atol=2e-4)
            # A row of mask pixels may round to either side of an edge.
            np.testing.assert_allclose(row[4:], wanted[4:], atol=0.05)
            assert len(row) == 4 + with_masks and all(0 <= value <= 1 for value in row)


@torch.no_grad()
def test_objects_are_the_teachers_in_original_pixels(dataset, tmp_path: Path) -> None:
    detector = build()
    (record, *_) = look(detector, dataset, tmp_path / 'parts')
    data = detector.teacher.data_preprocessor(pseudo_collate([dataset[0]]), False)
    (seen,) = teacher_detect(
        detector.teacher,
        data['inputs'],
        data['data_samples'],
        detector.class_state,
        detector.labeling_cfg,
    ).detections
    seen = seen[seen.is_object]
    assert len(record['objects']) == len(seen) > 0
    boxes = torch.tensor([o['bbox'] for o in record['objects']])
    boxes[:, 2:] += boxes[:, :2]
    torch.testing.assert_close(boxes * 2, seen.bboxes, atol=0.05, rtol=0)
    assert [o['label'] for o in record['objects']] == seen.labels.tolist()


def test_boosts_move_what_is_said_of_the_class_alone(dataset, tmp_path: Path) -> None:
    detector = build()
    before = look(detector, dataset, tmp_path / 'a')
    detector.class_state.boosts[1] = 4.0
    after = look(detector, dataset, tmp_path / 'b')
    old, new = before[0]['evidence'][0], after[0]['evidence'][0]
    # p_c a_c / sum p_j a_j, of two views alike: between the two, at least nearly.
    assert new[0] == pytest.approx(4 * old[0] / (1 + 3 * old[0]), abs=5e-3)
    # p_c a_c against the largest other p_j.
    assert new[1] == pytest.approx(4 * old[1] / (1 + 3 * old[1]), abs=5e-3)
    np.testing.assert_allclose(new[2:], old[2:], atol=1e-4)
    assert after[0]['evidence'][1][0] < before[0]['evidence'][1][0]


def test_parts_are_reused_and_an_interrupted_one_is_not_there(dataset, tmp_path: Path) -> None:
    detector, folder, seen = build(), tmp_path / 'parts', []

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        look(detector, dataset, folder, progress=stop, batch_size=1)
    assert list(folder.iterdir()) == []
    first = look(detector, dataset, folder, progress=seen.append, batch_size=1)
    assert seen == [1, 2, 3, 3]
    assert [path.name for path in folder.iterdir()] == ['part-0000000.json']
    # Any other detector would answer otherwise.
    torch.manual_seed(1)
    assert look(build(), dataset, folder) == first
