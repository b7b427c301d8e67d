"""What a teacher says about labels that an annotation file gives.

Shape legend: K given labels of an image, C foreground classes, E kinds of evidence, S mask size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.structures.bbox import bbox2roi, bbox_flip, bbox_overlaps
from mmdet.structures.mask import BitmapMasks
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.structures import InstanceData
from pycocotools import mask as mask_utils
from torch import Tensor

from mmdet_softpl.datasets.load_items import load_items, scale_of
from mmdet_softpl.engine.part_folder import in_parts
from mmdet_softpl.functional import boost_scores, sharpen_scores
from mmdet_softpl.models import CalibratedSoftTeacher
from mmdet_softpl.models.roi_adapter import (
    class_boxes,
    roi_mask_probabilities,
    score_rois,
    stages_of,
)
from mmdet_softpl.models.teacher_labels import evidence_of, teacher_detect

#: Kinds of evidence, in the order of the columns; the last one needs a mask head and masks.
EVIDENCE = ('class', 'rival', 'object', 'box', 'mask')


def evidence_in_parts(
    detector: CalibratedSoftTeacher,
    dataset: BaseDataset,
    annotations: dict[int, list[dict[str, Any]]],
    labels: dict[int, int],
    folder: Path,
    *,
    with_masks: bool,
    batch_size: int = 8,
    progress: Callable[[int], None] = lambda done: None,
) -> list[dict[str, Any]]:
    """Evidence on every label of a data set, in parts of 64 images that a later call reuses.

    The caller sees to it that ``folder`` belongs to this detector, data set and labels.

    Args:
        detector: In evaluation mode.
        dataset: Of the images, with a test pipeline that ends in ``PackDetInputs``.
        annotations: Image id -> its COCO annotations, without crowd regions.
        labels: Category id -> class index in [0, C).
        folder: Of the parts; must exist.
        with_masks: Compare masks as well.
        batch_size: Images in a forward pass.
        progress: Called with the number of images done.

    Returns:
        For each image ``img_id``, ``evidence`` (K, E) in the order of its annotations, and
        ``objects``, what the teacher takes for objects there: dicts of ``bbox``
        [x, y, width, height] in pixels of the original image, ``label``, ``confidence``.
    """

    def look(batch: range) -> list[dict[str, Any]]:
        items = load_items(dataset, batch)
        given = [annotations.get(item['data_samples'].img_id, []) for item in items]
        return _look(detector, items, given, labels, with_masks)

    parts = in_parts(len(dataset), folder, look, batch_size=batch_size, progress=progress)
    return [record for part in parts for record in part]


@torch.no_grad()
def _look(
    detector: CalibratedSoftTeacher,
    items: Sequence[dict[str, Any]],
    given: Sequence[list[dict[str, Any]]],
    labels: dict[int, int],
    with_masks: bool,
) -> list[dict[str, Any]]:
    """Records of one batch: the mean evidence of both mirror images, objects of the plain one."""
    samples = [item['data_samples'] for item in items]
    scales = [scale_of(sample.metainfo) for sample in samples]
    boxes = [
        _corners([a['bbox'] for a in anns]) * scale
        for anns, scale in zip(given, scales, strict=True)
    ]
    classes = torch.tensor([labels[a['category_id']] for anns in given for a in anns]).long()
    masks = [
        (annotation, sample.ori_shape)
        for anns, sample in zip(given, samples, strict=True)
        for annotation in anns
        if with_masks
    ]
    objects: list[InstanceData] = []
    views = []
    for mirrored in (False, True):
        inputs = [item['inputs'].flip(2) if mirrored else item['inputs'] for item in items]
        batch = [
            dict(inputs=image, data_samples=sample)
            for image, sample in zip(inputs, samples, strict=True)
        ]
        data = detector.image_preprocessor(pseudo_collate(batch), False)
        if mirrored:
            feats = detector.teacher.extract_feat(data['inputs'])
            shapes = [sample.img_shape for sample in samples]
            boxes = [bbox_flip(b, shape) for b, shape in zip(boxes, shapes, strict=True)]
        else:
            feats, objects = _objects(detector, data)
        metas = [sample.metainfo for sample in data['data_samples']]
        views.append(_agreement(detector, feats, boxes, classes, metas, masks, mirrored))
    evidence = torch.stack(views).mean(0).cpu().split([len(anns) for anns in given])
    return [
        dict(
            img_id=sample.img_id,
            evidence=[[round(value, 5) for value in row] for row in rows.tolist()],
            objects=[
                dict(bbox=_sides(box), label=label, confidence=round(confidence, 5))
                for box, label, confidence in zip(
                    (seen.bboxes / scale).tolist(),
                    seen.labels.tolist(),
                    seen.confidences.tolist(),
                    strict=True,
                )
            ],
        )
        for sample, rows, seen, scale in zip(samples, evidence, objects, scales, strict=True)
    ]


def _agreement(
    detector: CalibratedSoftTeacher,
    feats: tuple[Tensor, ...],
    boxes: list[Tensor],
    classes: Tensor,
    metas: list[dict[str, Any]],
    masks: list[tuple[dict[str, Any], tuple[int, int]]],
    mirrored: bool,
) -> Tensor:
    """(K, E) evidence on given boxes, in one view; no masks: without that column."""
    roi_head, device = detector.teacher.roi_head, feats[0].device
    classes = classes.to(device)
    rois, scores, deltas = score_rois(roi_head, feats, [b.to(device) for b in boxes], metas)
    # The boosts were aligned on such scores.
    scores = sharpen_scores(scores, detector.labeling_cfg.label_temperature)
    # Whether a name is right is asked, not whether it is worth a pseudo-label: the prototypes
    # speak for every class, not for the rare ones alone.
    weights = torch.ones(detector.num_classes, device=device)
    scores = boost_scores(
        scores, detector.class_state.boosts, evidence_of(roi_head, weights, len(rois))
    )
    rows = torch.arange(len(classes), device=device)
    objectness = 1 - scores[:, -1]
    named = scores[rows, classes] / objectness.clamp_min(1e-6)
    # The same share is no doubt where the rest is spread, and much where one other class has it.
    others = scores[:, :-1].scatter(1, classes[:, None], 0.0).amax(1)
    rival = scores[rows, classes] / (scores[rows, classes] + others).clamp_min(1e-12)
    head = stages_of(roi_head)[-1].bbox_head
    # Clipped to no image: what a given box has outside counts against it anyway.
    drawn = class_boxes(head, rois[:, 1:], deltas, rows, classes)
    given = bbox2roi(boxes).to(rois)
    columns = [
        named,
        rival,
        objectness,
        bbox_overlaps(given[:, 1:], drawn, is_aligned=True).clamp(0, 1),
    ]
    if masks:
        probs = roi_mask_probabilities(roi_head, feats, given, classes)
        columns.append(_mask_overlap(probs, masks, mirrored))
    return torch.stack(columns, 1).float()


def _mask_overlap(
    probs: Tensor, masks: list[tuple[dict[str, Any], tuple[int, int]]], mirrored: bool
) -> Tensor:
    """(K,) IoU of the teacher's masks (K, S, S) and the given ones, within the given boxes.

    Args:
        probs: Of the teacher.
        masks: K annotations with the (height, width) of their original images.
        mirrored: Whether the teacher saw mirror images.
    """
    size = probs.shape[-1]
    # One bitmap at a time: those of a batch of large photos would fill the memory.
    crops = [_crop(annotation, shape, size, mirrored) for annotation, shape in masks]
    given, seen = torch.from_numpy(np.stack(crops)).to(probs.device).bool(), probs > 0.5
    return (given & seen).sum((1, 2)) / (given | seen).sum((1, 2)).clamp_min(1)


def _crop(
    annotation: dict[str, Any], shape: tuple[int, int], size: int, mirrored: bool
) -> np.ndarray:
    """(size, size) uint8: the mask of an annotation within its box."""
    bitmap, box = _bitmap(annotation, shape), _corners([annotation['bbox']])
    if mirrored:
        bitmap, box = np.ascontiguousarray(bitmap[:, ::-1]), bbox_flip(box, shape)
    masks = BitmapMasks(bitmap[None], *shape)
    return masks.crop_and_resize(box.numpy(), (size, size), np.zeros(1, dtype=int)).masks[0]


def _objects(
    detector: CalibratedSoftTeacher, data: dict[str, Any]
) -> tuple[tuple[Tensor, ...], list[InstanceData]]:
    """Feature levels of a batch, and what the teacher takes for objects in each image."""
    view = teacher_detect(
        detector.teacher,
        data['inputs'],
        data['data_samples'],
        detector.class_state,
        detector.labeling_cfg,
    )
    return view.feats, [seen[seen.is_object].cpu() for seen in view.detections]


def _bitmap(annotation: dict[str, Any], shape: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 mask in the original image."""
    runs = annotation['segmentation']
    if isinstance(runs, list) or isinstance(runs['counts'], list):
        runs = mask_utils.frPyObjects(runs, *shape)
        runs = mask_utils.merge(runs) if isinstance(runs, list) else runs
    return mask_utils.decode(runs)


def _corners(boxes: list[list[float]]) -> Tensor:
    """(K, 4) x1, y1, x2, y2 from COCO boxes."""
    tensor = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return torch.cat([tensor[:, :2], tensor[:, :2] + tensor[:, 2:]], 1)


def _sides(box: list[float]) -> list[float]:
    x1, y1, x2, y2 = (round(value, 2) for value in box)
    return [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]
