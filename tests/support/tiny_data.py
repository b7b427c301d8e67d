"""Folders named as COCO and LVIS name theirs, with a handful of small pictures inside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

# Landscape and portrait: the host's GroupMultiSourceSampler waits for ever on an empty group.
SHAPES = ((96, 128), (128, 96))


def _pictures(
    folder: Path, count: int, labels: Sequence[int], rng: np.random.Generator, first_id: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Draw ``count`` pictures of two filled octagons each; their colour tells the label."""
    folder.mkdir(parents=True)
    images, annotations = [], []
    for i in range(count):
        height, width = SHAPES[i % 2]
        picture = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
        image_id = first_id + i
        for j in range(2):
            label = labels[(2 * i + j) % len(labels)]
            radius = int(rng.integers(16, 24))
            centre = [width // 4 + j * width // 2, height // 4 + j * height // 2]
            angles = np.arange(8) * np.pi / 4
            points = np.stack([np.cos(angles), np.sin(angles)], 1) * radius + centre
            points = points.clip(0, [width - 1, height - 1]).round()
            colour = [int(c) for c in np.random.default_rng(label).integers(90, 255, 3)]
            cv2.fillPoly(picture, [points.astype(np.int32)], colour)
            low, high = points.min(0), points.max(0)
            annotations.append(
                dict(
                    id=2 * image_id + j,
                    image_id=image_id,
                    category_id=label + 1,
                    bbox=[*low.tolist(), *(high - low).tolist()],
                    area=float((high - low).prod()) * 0.83,
                    iscrowd=0,
                    segmentation=[points.ravel().tolist()],
                )
            )
        name = f'{image_id:012d}.jpg'
        cv2.imwrite(str(folder / name), picture)
        images.append(dict(id=image_id, file_name=name, height=height, width=width))
    return images, annotations


def write_data(root: Path, classes: Sequence[str], lvis: bool = False, num_train: int = 40) -> Path:
    """Write ``train2017``, ``val2017``, ``unlabeled2017`` and their annotations under ``root``.

    ``num_train`` pictures of the first four classes (all of them in every two pictures), 2 of
    validation, 4 unlabelled ones. All ``classes`` are declared, with the ids 1, 2, ... in order.

    Returns:
        ``root``.
    """
    rng = np.random.default_rng(0)
    (root / 'annotations').mkdir(parents=True)
    first_id = 1
    for split, count in (('train', num_train), ('val', 2), ('unlabeled', 4)):
        folder = f'{split}2017'
        images, annotations = _pictures(root / folder, count, range(4), rng, first_id)
        first_id += count
        if split == 'unlabeled':
            continue
        categories: list[dict[str, Any]] = [
            dict(id=i + 1, name=name) for i, name in enumerate(classes)
        ]
        if lvis:
            for image in images:
                name = image.pop('file_name')
                image.update(
                    coco_url=f'http://images.cocodataset.org/{folder}/{name}',
                    neg_category_ids=[9],
                    not_exhaustive_category_ids=[],
                )
            for category in categories:
                own = [a for a in annotations if a['category_id'] == category['id']]
                category.update(
                    frequency='rcf'[category['id'] % 3],
                    image_count=len({a['image_id'] for a in own}),
                    instance_count=len(own),
                )
        name = f'lvis_v1_{split}.json' if lvis else f'instances_{folder}.json'
        content = dict(images=images, categories=categories, annotations=annotations)
        (root / 'annotations' / name).write_text(json.dumps(content))
    return root
