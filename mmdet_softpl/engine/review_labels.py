"""What a teacher would have people review: its labels on both mirror images of a picture.

Shape legend: K shown labels of an image, J detections in the mirrored one, C foreground classes,
D feature size, P = 32 numbers that are kept of a feature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.structures.bbox import bbox2roi, bbox_flip, bbox_overlaps
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_softpl.datasets.load_items import load_items, scale_of
from mmdet_softpl.datasets.review_masks import encode_mask
from mmdet_softpl.engine.part_folder import in_parts
from mmdet_softpl.evaluation.review_choice import view_disagreement
from mmdet_softpl.functional import paste_roi_masks
from mmdet_softpl.models import CalibratedSoftTeacher
from mmdet_softpl.models.roi_adapter import stages_of
from mmdet_softpl.models.teacher_labels import TeacherView, add_masks, teacher_detect

PROJECTED_SIZE = 32
LIKELY_CLASSES = 5


def label_in_parts(
    detector: CalibratedSoftTeacher,
    dataset: BaseDataset,
    folder: Path,
    *,
    min_confidence: float,
    batch_size: int = 8,
    progress: Callable[[int], None] = lambda done: None,
) -> list[dict[str, Any]]:
    """Label every image of a data set, keeping parts of 64 images that a later call reuses.

    The caller sees to it that ``folder`` belongs to this detector, data set and threshold.

    Args:
        detector: in any mode; put into evaluation mode.
        dataset: with a test pipeline that ends in ``PackDetInputs``.
        folder: of the parts; must exist.
        min_confidence: labels of at least this calibrated confidence are shown, in [0, 1], beside
            those that are kept for training.
        batch_size: images in a forward pass.
        progress: called with the number of images done, those of earlier calls included.

    Returns:
        For each image ``image`` (its index), ``img_id``, ``path``, ``height``, ``width`` and
        ``objects``, a list of dicts: ``bbox`` [x, y, width, height] in pixels of the original
        image, ``label``, ``score``, ``confidence``, ``kept``, ``disagreement`` in [0, 1],
        ``classes`` and ``shares``, the likeliest 5 classes and their probabilities given that
        there is an object, ``feature`` (P numbers) and, for a detector with masks, ``rle``.
    """
    detector.eval()

    def look(batch: range) -> list[dict[str, Any]]:
        return _label_batch(detector, dataset, batch, min_confidence)

    parts = in_parts(len(dataset), folder, look, batch_size=batch_size, progress=progress)
    return [record for part in parts for record in part]


@torch.no_grad()
def _label_batch(
    detector: CalibratedSoftTeacher, dataset: BaseDataset, indices: range, min_confidence: float
) -> list[dict[str, Any]]:
    items = load_items(dataset, indices)
    view, samples = _detect(detector, items)
    shown = [
        seen[seen.surest & (seen.kept | (seen.confidences >= min_confidence))]
        for seen in view.detections
    ]
    # The mirrored view only has to say what it sees in the same places.
    mirrored = [dict(item, inputs=item['inputs'].flip(2)) for item in items]
    other = _detect(detector, mirrored)[0].detections
    chosen = TeacherView(view.feats, shown)
    features = _projected(_features(detector, chosen))
    add_masks(detector.teacher, chosen)

    records, start = [], 0
    for i, sample, seen, second in zip(indices, samples, shown, other, strict=True):
        info = dataset.get_data_info(i)
        height, width = sample.ori_shape
        record: dict[str, Any] = dict(
            image=i,
            img_id=info['img_id'],
            path=info['img_path'],
            height=int(height),
            width=int(width),
            objects=[],
        )
        found = seen.cpu()
        boxes = found.bboxes / scale_of(sample.metainfo)
        contradiction = _disagreement(found, second.cpu(), sample.img_shape)
        given = _given_object(found)
        shares, classes = given.topk(min(LIKELY_CLASSES, given.shape[1]), dim=1)
        for k in range(len(found)):
            x1, y1, x2, y2 = boxes[k].tolist()
            entry = dict(
                bbox=[round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)],
                label=int(found.labels[k]),
                score=round(float(found.scores[k]), 4),
                confidence=round(float(found.confidences[k]), 4),
                kept=bool(found.kept[k]),
                disagreement=round(float(contradiction[k]), 4),
                classes=classes[k].tolist(),
                shares=[round(v, 4) for v in shares[k].tolist()],
                feature=[round(float(v), 4) for v in features[start + k]],
            )
            if 'mask_probs' in found:
                mask = _paste(found.mask_probs[k], boxes[k], record['height'], record['width'])
                if not mask.any():
                    # Nothing to outline, nothing to correct.
                    continue
                entry['rle'] = encode_mask(mask)
            record['objects'].append(entry)
        start += len(found)
        records.append(record)
    return records


def _detect(detector: CalibratedSoftTeacher, items: list[dict]) -> tuple[TeacherView, list]:
    data = detector.image_preprocessor(pseudo_collate(items), False)
    view = teacher_detect(
        detector.teacher,
        data['inputs'],
        data['data_samples'],
        detector.class_state,
        # The mean over two views cannot say where they disagree.
        replace(detector.labeling_cfg, mirror=False),
    )
    return view, data['data_samples']


def _features(detector: CalibratedSoftTeacher, view: TeacherView) -> Tensor:
    """(K of all images, D) inputs of the last stage's classifier for the given boxes."""
    roi_head = detector.teacher.roi_head
    stage = stages_of(roi_head)[-1]
    caught: list[Tensor] = []
    handle = stage.bbox_head.fc_cls.register_forward_pre_hook(
        lambda _, args: caught.append(args[0].float())
    )
    try:
        stage.bbox_forward(view.feats, bbox2roi([seen.bboxes for seen in view.detections]))
    finally:
        handle.remove()
    return caught[0]


def _projected(features: Tensor) -> np.ndarray:
    """(K, P) random projection, the same in every call, which keeps angles."""
    generator = torch.Generator().manual_seed(0)
    size = features.shape[1]
    matrix = torch.randn(size, PROJECTED_SIZE, generator=generator) / PROJECTED_SIZE**0.5
    return (features.cpu() @ matrix).numpy()


def _given_object(seen: InstanceData) -> Tensor:
    """(K, C) class probabilities given that there is an object."""
    return seen.score_vectors[:, :-1] / seen.objectness.clamp(min=1e-6)[:, None]


def _disagreement(seen: InstanceData, mirrored: InstanceData, shape: tuple[int, int]) -> np.ndarray:
    """(K,) in [0, 1], see :func:`.view_disagreement`; ``shape`` is that of the network's input."""
    boxes = bbox_flip(mirrored.bboxes, shape)
    classes, other = _given_object(seen).numpy(), _given_object(mirrored).numpy()
    return view_disagreement(bbox_overlaps(seen.bboxes, boxes).numpy(), classes, other)


def _paste(probabilities: Tensor, bbox: Tensor, height: int, width: int) -> np.ndarray:
    """(height, width) bool, reading the RoI mask only where its box is."""
    x1, y1 = (int(v) for v in bbox[:2].floor().clamp(min=0).tolist())
    x2, y2 = (int(v) for v in bbox[2:].ceil().tolist())
    x2, y2 = min(x2, width), min(y2, height)
    mask = np.zeros((height, width), dtype=bool)
    if x2 > x1 and y2 > y1:
        moved = bbox - torch.tensor([x1, y1, x1, y1], dtype=bbox.dtype)
        window = (y2 - y1, x2 - x1)
        mask[y1:y2, x1:x2] = paste_roi_masks(probabilities[None], moved[None], window)[0].numpy()
    return mask
