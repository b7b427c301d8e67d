"""True labels of objects that were pasted into unlabelled images.

Shape legend: K instances of an image, P pasted objects, C foreground classes, S mask size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.ops import RoIAlign
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import BaseBoxes, bbox_overlaps, get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_softpl.datasets.pasting_steps import PASTED_KEY


def pasted_objects(sample: DetDataSample) -> InstanceData | None:
    """Objects (P,) pasted into an unlabelled image, in the coordinates of its view.

    Args:
        sample: Of an unlabelled image.

    Returns:
        ``bboxes`` (P, 4), ``labels`` (P,) and ``masks``, P > 0; None where nothing was pasted, or
        nothing is left of it in the view.

    Raises:
        ValueError: The view's pipeline has lost the masks.
    """
    if not sample.metainfo.get(PASTED_KEY) or not len(sample.gt_instances):
        return None
    instances = sample.gt_instances
    if 'masks' not in instances:
        raise ValueError(
            'RareCopyPasteDataset: the view of the unlabelled image '
            f'{sample.metainfo.get("img_path")} has pasted objects, but no masks of them any more: '
            'take the transform that drops `gt_masks` out of the pipeline of `unsup_teacher`, or '
            'set unlabeled=False.'
        )
    # On the host: thin objects vanish when a view is smaller.
    visible = instances.masks.to_ndarray().any((1, 2))
    if visible.all():
        return instances
    return instances[torch.from_numpy(visible.nonzero()[0])] if visible.any() else None


def with_pasted(
    detections: Sequence[InstanceData], pasted: Sequence[InstanceData | None]
) -> list[InstanceData]:
    """:func:`joined` for each image; where nothing was pasted into any, they stay as they are.

    Else all have ``is_pasted`` (K,) bool.
    """
    if all(truth is None for truth in pasted):
        return list(detections)
    made = []
    for found, truth in zip(detections, pasted, strict=True):
        both = found if truth is None else joined(found, truth)
        number = len(found)
        both.is_pasted = torch.arange(len(both), device=found.labels.device) >= number
        made.append(both)
    return made


# A detection with a larger IoU shows a pasted object, whatever its class.
SHOWN_IOU = 0.5


def apart_from(bboxes: Tensor, pasted: Tensor | BaseBoxes) -> Tensor:
    """Indices of the boxes that show no pasted object, see ``SHOWN_IOU``.

    Args:
        bboxes: (K, 4).
        pasted: (P, 4) in the same coordinates, P > 0.

    Returns:
        int64, in ascending order.
    """
    overlaps = bbox_overlaps(bboxes, get_box_tensor(pasted).to(bboxes))
    return (overlaps.amax(1) <= SHOWN_IOU).nonzero().squeeze(1)


def joined(found: InstanceData, pasted: InstanceData) -> InstanceData:
    """An image's objects and the pasted ones, which are certain.

    Args:
        found: As ``TeacherView.detections`` has it, with ``mask_probs`` (K, S, S) where the
            detector has masks.
        pasted: As :func:`pasted_objects` gives them.

    Returns:
        (K + P,) instances with all fields of ``found``.
    """
    boxes = get_box_tensor(pasted.bboxes).to(found.bboxes)
    labels = pasted.labels
    certain = torch.ones_like(boxes[:, 0])
    is_true = torch.ones_like(labels, dtype=torch.bool)
    others = InstanceData(
        bboxes=boxes,
        labels=labels,
        score_vectors=F.one_hot(labels, found.score_vectors.shape[1]).to(found.score_vectors),
        surest=is_true,
        kept=is_true,
        is_object=is_true,
        **{name: certain.to(found[name]) for name in _CERTAIN},
    )
    if 'mask_probs' in found:
        others.mask_probs = _roi_masks(pasted, boxes, found.mask_probs.shape[-1])
    return InstanceData.cat([found, others])


# Scores of a label, all of which are 1 for the truth.
_CERTAIN = ('scores', 'own_scores', 'objectness', 'target_scores', 'confidences')


def _roi_masks(pasted: InstanceData, boxes: Tensor, size: int) -> Tensor:
    """(P, S, S) share of the object in each cell of its box."""
    # Not ``crop_and_resize``: it brings what it made on a device back to the host.
    masks = torch.from_numpy(pasted.masks.to_ndarray()).to(boxes.device)
    inds = torch.arange(len(boxes), device=boxes.device)
    rois = torch.cat([inds[:, None].to(boxes), boxes], dim=1)
    return RoIAlign(size, aligned=True)(masks[:, None].to(boxes), rois)[:, 0]
