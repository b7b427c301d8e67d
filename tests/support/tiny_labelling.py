"""A tiny trained-looking teacher and labelled images for it; and a dump made of nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmdet.registry import DATASETS, MODELS

from mmdet_softpl.datasets.class_statistics import ClassStatistics
from mmdet_softpl.evaluation.ground_truth import GroundTruth, ImageTruth
from mmdet_softpl.evaluation.teacher_dump import DumpedImage, TeacherDump
from mmdet_softpl.models import CalibratedSoftTeacher
from tests.support.tiny import NUM_CLASSES, detector_config, semi_config, use_smoothed_head

CLASSES = tuple(f'c{i}' for i in range(NUM_CLASSES))


def statistics(counts: tuple[int, ...] = (2, 8, 20, 60, 200), num_images: int = 250):
    """Class statistics with as many instances as images."""
    letters = tuple('r' if c <= 10 else 'c' if c <= 100 else 'f' for c in counts)
    values = np.array(counts)
    return ClassStatistics(
        CLASSES[: len(counts)], values, values, num_images, num_images, letters, 'counted'
    )


def build_teacher(name: str = 'mask-rcnn', **semi_train_cfg: Any) -> CalibratedSoftTeacher:
    """A detector whose scores differ between RoIs and classes and whose head keeps prototypes."""
    detector = use_smoothed_head(detector_config(name), smoothing=0.1)
    cfg = dict(score_floor=0.15, max_per_img=40, **semi_train_cfg)
    model = MODELS.build(semi_config(detector, **cfg)).eval()
    generator = torch.Generator().manual_seed(1)
    heads = model.teacher.roi_head.bbox_head
    for head in heads if isinstance(heads, torch.nn.ModuleList) else [heads]:
        # An untrained head says 1 / (C + 1) everywhere.
        head.fc_cls.weight.data.normal_(0, 2.0, generator=generator)
        head.fc_reg.weight.data.normal_(0, 0.3, generator=generator)
        head.prototypes.copy_(torch.randn(head.prototypes.shape, generator=generator).relu())
        head.prototype_counts.copy_(torch.tensor([5.0, 9, 30, 0, 80]))
    return model


def write_images(folder: Path, count: int = 6, size: tuple[int, int] = (48, 64)) -> Path:
    """Noise with two annotated boxes an image, and their json. Returns the json."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(count):
        picture = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f'{i}.png'), picture)
        images.append(dict(id=10 + i, file_name=f'{i}.png', height=size[0], width=size[1]))
        for j in range(2):
            x, y, w, h = (float(v) for v in rng.integers(5, 25, 4))
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=10 + i,
                    category_id=int(rng.integers(1, NUM_CLASSES + 1)),
                    bbox=[x, y, w, h],
                    area=w * h,
                    iscrowd=int(i == 0 and j == 0),
                    segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]],
                )
            )
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
    path = folder / 'held_out.json'
    path.write_text(json.dumps(dict(images=images, categories=categories, annotations=annotations)))
    return path


def build_dataset(ann_file: Path):
    """The images of ``write_images``, twice as large in the teacher's view."""
    meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    return DATASETS.build(
        dict(
            type='CocoDataset',
            ann_file=str(ann_file),
            data_prefix=dict(img=str(ann_file.parent)),
            metainfo=dict(classes=CLASSES),
            test_mode=True,
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='Resize', scale=(128, 96), keep_ratio=True),
                dict(type='PackDetInputs', meta_keys=meta_keys),
            ],
        )
    )


def ground_truth(ann_file: Path) -> GroundTruth:
    """The annotations of ``write_images``."""
    return GroundTruth(json.loads(ann_file.read_text()), CLASSES, str(ann_file))


def made_up_dump(num_images: int = 40, seed: int = 0, overconfident: float = 1.0) -> TeacherDump:
    """A dump with one RoI an object and as many on nothing.

    The RoI on an object has its class at a score around 0.5 and a confused one around 0.3; the
    others have little of everything. ``overconfident`` sharpens all scores.
    """
    generator = torch.Generator().manual_seed(seed)
    images = []
    for i in range(num_images):
        count = int(torch.randint(1, 5, (1,), generator=generator))
        labels = torch.randint(NUM_CLASSES, (count,), generator=generator)
        corners = torch.arange(count).float()[:, None] * 40 + torch.tensor([0.0, 0.0])
        boxes = torch.cat([corners, corners + 30], 1)
        false = torch.cat(
            [corners + torch.tensor([400.0, 0.0]), corners + torch.tensor([430.0, 30])], 1
        )
        logits = torch.randn(2 * count, NUM_CLASSES + 1, generator=generator)
        logits[torch.arange(count), labels] += 1.5
        logits[:count, -1] -= 1
        logits[count:, -1] += 1
        scores = (overconfident * logits).softmax(1)
        scores = torch.cat([scores[:, :-1], torch.zeros(2 * count, 1), scores[:, -1:]], 1)
        rois = torch.cat([boxes, false])
        images.append(
            DumpedImage(
                img_id=i,
                classes=torch.arange(NUM_CLASSES).expand(2 * count, -1),
                scores=scores,
                bboxes=rois[:, None],
                evidence=None,
                shifts=None,
                truth=ImageTruth(
                    boxes.double(),
                    labels,
                    torch.zeros(count, dtype=torch.bool),
                    torch.ones(NUM_CLASSES, dtype=torch.bool),
                    torch.zeros(NUM_CLASSES, dtype=torch.bool),
                ),
            )
        )
    return TeacherDump(CLASSES, (), tuple(images))
