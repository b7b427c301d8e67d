"""What the teacher or the student of a trained detector would label on the images of a data set.

Shape legend: K detections of an image, C foreground classes, S mask size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.structures import InstanceData

from mmdet_softpl.datasets.load_items import load_items, scale_of
from mmdet_softpl.models import CalibratedSoftTeacher
from mmdet_softpl.models.teacher_labels import add_masks, teacher_detect


@dataclass(frozen=True)
class LabelledImage:
    """An image and a network's detections in it.

    Attributes:
        img_id: As in the annotation file, if there is one.
        image: (H, W, 3) uint8 RGB, as the network got it.
        detections: As in ``TeacherView``, on the CPU, in pixels of ``image``.
        original_bboxes: (K, 4) in pixels of the original image.
    """

    img_id: int
    image: np.ndarray
    detections: InstanceData
    original_bboxes: torch.Tensor


@torch.no_grad()
def label_images(
    detector: CalibratedSoftTeacher,
    dataset: BaseDataset,
    indices: Sequence[int],
    *,
    masks_above: float | None = None,
    batch_size: int = 8,
    network: str = 'teacher',
) -> Iterator[LabelledImage]:
    """Yield the detections of a network, with thresholds and calibration as they are now.

    Args:
        detector: In any mode; put into evaluation mode.
        dataset: With a test pipeline that ends in ``PackDetInputs``.
        indices: Images to look at.
        masks_above: One label an object, with masks, where its score is above this value.
            None: all detections, without masks.
        batch_size: Images in a forward pass.
        network: ``'teacher'`` or ``'student'``.
    """
    detector.eval()
    asked = getattr(detector, network)
    for start in range(0, len(indices), batch_size):
        items = load_items(dataset, indices[start : start + batch_size])
        images = [item['inputs'] for item in items]
        data = detector.image_preprocessor(pseudo_collate(items), False)
        view = teacher_detect(
            asked,
            data['inputs'],
            data['data_samples'],
            detector.class_state,
            detector.labeling_cfg,
        )
        if masks_above is not None:
            chosen = [seen[seen.surest & (seen.scores > masks_above)] for seen in view.detections]
            view = replace(view, detections=chosen)
            add_masks(asked, view)
        for image, sample, seen in zip(images, data['data_samples'], view.detections, strict=True):
            found = seen.cpu()
            yield LabelledImage(
                img_id=sample.metainfo.get('img_id', -1),
                image=np.ascontiguousarray(image.numpy()[::-1].transpose(1, 2, 0)),
                detections=found,
                original_bboxes=found.bboxes / scale_of(sample.metainfo),
            )
