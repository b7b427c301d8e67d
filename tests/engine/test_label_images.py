"""label_images against the teacher itself and against the geometry of the test pipeline."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.registry import init_default_scope

from mmdet_softpl.engine.label_images import label_images
from mmdet_softpl.models import CalibratedSoftTeacher
from tests.support.tiny import detector_config, semi_config

NUM_IMAGES = 5


@pytest.fixture(autouse=True)
def _scope() -> None:
    init_default_scope('mmdet')
    torch.manual_seed(0)


@pytest.fixture
def dataset(tmp_path: Path):
    """Five images of 64 x 48 pixels, doubled by the pipeline."""
    rng = np.random.default_rng(0)
    images = []
    for i in range(NUM_IMAGES):
        cv2.imwrite(str(tmp_path / f'{i}.png'), rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
        images.append(dict(id=10 + i, file_name=f'{i}.png', height=48, width=64))
    content = dict(images=images, categories=[dict(id=1, name='a')], annotations=[])
    (tmp_path / 'images.json').write_text(json.dumps(content))
    meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    return DATASETS.build(
        dict(
            type='mmdet_softpl.UnlabeledImageDataset',
            data_root=str(tmp_path),
            ann_file='images.json',
            data_prefix=dict(img=''),
            test_mode=True,
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='Resize', scale=(128, 96), keep_ratio=True),
                dict(type='PackDetInputs', meta_keys=meta_keys),
            ],
        )
    )


def build(name: str = 'mask-rcnn') -> CalibratedSoftTeacher:
    # Every detection of an untrained network counts.
    return MODELS.build(semi_config(detector_config(name), score_thr=0.17, score_floor=0.1))


def test_equals_the_detectors_own_labels(dataset) -> None:
    detector = build()
    labelled = list(label_images(detector, dataset, range(NUM_IMAGES), masks_above=0.0))
    assert [image.img_id for image in labelled] == [10, 11, 12, 13, 14]
    for i, image in enumerate(labelled):
        item = dataset[i]
        data = detector.teacher.data_preprocessor(
            dict(inputs=[item['inputs']], data_samples=[item['data_samples']]), False
        )
        view = detector.label(data['inputs'], data['data_samples'], record=False)
        expected, found = view.detections[0], image.detections[image.detections.is_object]
        assert len(found) > 0
        for key in ('bboxes', 'scores', 'labels', 'confidences', 'kept', 'mask_probs'):
            torch.testing.assert_close(found[key], expected[key], atol=1e-4, rtol=1e-4)
        # The picture is what the file holds, in RGB and at twice the size.
        read = np.asarray(cv2.imread(item['data_samples'].img_path))[..., ::-1]
        doubled = cv2.resize(read, (128, 96), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_array_equal(image.image, doubled)
        torch.testing.assert_close(image.original_bboxes * 2, image.detections.bboxes)


def test_batches_do_not_matter_and_order_is_kept(dataset) -> None:
    detector = build()
    indices = [3, 0, 4]
    single = list(label_images(detector, dataset, indices, batch_size=1))
    joined = list(label_images(detector, dataset, indices, batch_size=2))
    assert [image.img_id for image in joined] == [13, 10, 14]
    for a, b in zip(single, joined, strict=True):
        torch.testing.assert_close(a.detections.scores, b.detections.scores)
        assert 'mask_probs' not in a.detections


def test_masks_only_where_asked_for(dataset) -> None:
    detector = build()
    scores = torch.cat([i.detections.scores for i in label_images(detector, dataset, range(2))])
    # In the widest gap, where the last digit of a score decides nothing.
    ordered = scores.sort().values
    widest = int(ordered.diff().argmax())
    middle = float(ordered[widest : widest + 2].mean())
    images = list(label_images(detector, dataset, range(2), masks_above=middle))
    kept = torch.cat([image.detections.scores for image in images])
    assert 0 < len(kept) < len(scores)
    torch.testing.assert_close(kept, scores[scores > middle])
    (nothing,) = label_images(detector, dataset, [0], masks_above=1.0)
    assert len(nothing.detections) == 0
    assert nothing.detections.mask_probs.shape == (0, 28, 28)


def test_no_image_and_no_mask_head(dataset) -> None:
    detector = build('faster-rcnn')
    assert list(label_images(detector, dataset, [])) == []
    (image,) = label_images(detector, dataset, [0], masks_above=0.0)
    assert 'mask_probs' not in image.detections


def test_leaves_the_statistics_of_training_alone(dataset) -> None:
    detector = build().train()
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    list(label_images(detector, dataset, range(NUM_IMAGES)))
    for key, value in detector.state_dict().items():
        torch.testing.assert_close(value, before[key])
