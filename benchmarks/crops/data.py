"""Objects of the detector benchmark's data, cut out: its class decision without the detector.

Shape letters: N objects, S side of a crop in pixels, C classes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from benchmarks.longtail.data import LONGTAIL_60, make_data
from mmdet_softpl.datasets.annotation_file import load_annotation_file
from mmdet_softpl.functional import frequency_groups

CROP_SIZE = 40
# Of the longer side of its box an object gets this much room.
MARGIN = 1.25
SPLITS = {
    'train': ('train', 'train'),
    'unlabeled': ('hidden_unlabeled', 'unlabeled'),
    'tune': ('tune', 'tune'),
}


@dataclass(frozen=True)
class Crops:
    """Crops of one split.

    Attributes:
        images: (N, 3, S, S) uint8, BGR.
        labels: (N,) long in [0, C).
    """

    images: Tensor
    labels: Tensor


def load_crops(root: Path) -> tuple[dict[str, Crops], Tensor]:
    """Crops of the splits and the group of every class, from a cache below ``root``.

    Args:
        root: Folder of the data of ``benchmarks/longtail``; made when missing (a minute).

    Returns:
        Split -> crops, for ``train``, ``unlabeled`` (with their hidden labels) and ``tune``;
        (C,) 0 rare, 1 common, 2 frequent, by labelled images.
    """
    make_data(root, LONGTAIL_60)
    cache = root / 'crops.npz'
    if not cache.is_file():
        arrays = {}
        for split, (name, folder) in SPLITS.items():
            images, labels = _cut(root, name, folder)
            arrays |= {f'{split}_images': images, f'{split}_labels': labels}
        temporary = cache.with_suffix('.tmp.npz')
        np.savez(temporary, **arrays)
        temporary.replace(cache)
    stored = np.load(cache)
    crops = {
        split: Crops(
            torch.from_numpy(stored[f'{split}_images']).permute(0, 3, 1, 2).contiguous(),
            torch.from_numpy(stored[f'{split}_labels']),
        )
        for split in SPLITS
    }
    return crops, _groups(root)


def _cut(root: Path, name: str, folder: str) -> tuple[np.ndarray, np.ndarray]:
    data = load_annotation_file(root / 'annotations' / f'{name}.json')
    label = {id_: i for i, id_ in enumerate(sorted(c['id'] for c in data['categories']))}
    by_image: dict[int, list[dict]] = {}
    for annotation in data['annotations']:
        by_image.setdefault(annotation['image_id'], []).append(annotation)
    crops, labels = [], []
    for image in track(data['images'], description=f'crops of {folder}'):
        picture = cv2.imread(str(root / folder / Path(image['file_name']).name))
        for annotation in by_image.get(image['id'], []):
            x, y, w, h = annotation['bbox']
            scale = CROP_SIZE / (max(w, h) * MARGIN)
            centre = CROP_SIZE / 2
            shift = (centre - (x + w / 2) * scale, centre - (y + h / 2) * scale)
            matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], dtype=np.float32)
            crops.append(
                cv2.warpAffine(
                    picture, matrix, (CROP_SIZE, CROP_SIZE), borderMode=cv2.BORDER_REFLECT
                )
            )
            labels.append(label[annotation['category_id']])
    return np.stack(crops), np.array(labels, dtype=np.int64)


def _groups(root: Path) -> Tensor:
    data = load_annotation_file(root / 'annotations' / 'train.json')
    pairs = {(a['category_id'], a['image_id']) for a in data['annotations']}
    counts = Counter(category for category, _ in pairs)
    images = torch.tensor([counts[i] for i in sorted(c['id'] for c in data['categories'])])
    return frequency_groups(images)
