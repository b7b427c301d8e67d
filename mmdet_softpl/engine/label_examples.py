"""Examples of pseudo-labels that a person should look at.

Shape legend: K objects of an image (surest detection of each), S mask size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.dataset import BaseDataset
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_softpl.engine.label_images import LabelledImage, label_images
from mmdet_softpl.functional import RARE
from mmdet_softpl.models import CalibratedSoftTeacher

KINDS = ('confident', 'doubtful', 'rare', 'disagreeing')
# Two networks mean the same object.
SAME_OBJECT_IOU = 0.5
# Of one class in a gallery: six examples of one class say less than six classes.
MAX_OF_CLASS = 2


@dataclass(frozen=True)
class SeenObjects:
    """What teacher and student see in one image.

    Attributes:
        index: Of the image in its data set.
        teacher: InstanceData of length K as in ``TeacherView``, one detection an object.
        disagreement: (K,) in [0, 1], see :func:`disagreement`.
    """

    index: int
    teacher: InstanceData
    disagreement: Tensor


@dataclass(frozen=True)
class Example:
    """An object to look at.

    Attributes:
        kind: One of ``KINDS``.
        image: (H, W, 3) uint8 RGB, as the network got it.
        name: File name of the image.
        chosen: Row of the object in ``teacher``.
        teacher: Objects of the image, with ``mask_probs`` (K, S, S) from a detector with masks.
        student: The student's, where ``kind`` is ``'disagreeing'``.
        threshold: Of the object's class.
        disagreement: Of the object.
    """

    kind: str
    image: np.ndarray
    name: str
    chosen: int
    teacher: InstanceData
    student: InstanceData | None
    threshold: float
    disagreement: float


def disagreement(teacher: InstanceData, student: InstanceData) -> Tensor:
    """How little the student confirms each of the teacher's objects.

    The teacher's calibrated confidence times one minus the student's in the same class at the
    same place (box IoU 0.5), 0 where the student sees it otherwise or not at all.

    Shape: K teacher's and J student's objects -> (K,) in [0, 1].
    """
    confirmed = torch.zeros(len(teacher))
    if len(teacher) and len(student):
        same = bbox_overlaps(teacher.bboxes, student.bboxes) >= SAME_OBJECT_IOU
        same &= teacher.labels[:, None] == student.labels
        confirmed = (same * student.confidences).amax(1)
    return teacher.confidences * (1 - confirmed)


def see_objects(
    detector: CalibratedSoftTeacher,
    dataset: BaseDataset,
    indices: Sequence[int],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[SeenObjects]:
    """The objects of each image, without masks.

    Args:
        detector: In any mode; put into evaluation mode.
        dataset: With a test pipeline.
        indices: Images to look at.
        progress: Called with the images done and their number.
    """
    seen = []
    views = zip(
        indices,
        label_images(detector, dataset, indices),
        label_images(detector, dataset, indices, network='student'),
        strict=True,
    )
    for index, teacher, student in views:
        objects = teacher.detections[teacher.detections.surest]
        other = student.detections[student.detections.surest]
        seen.append(SeenObjects(int(index), objects, disagreement(objects, other)))
        progress(len(seen), len(indices))
    return seen


def choose_objects(
    seen: Sequence[SeenObjects], thresholds: Tensor, groups: Tensor, count: int
) -> dict[str, list[tuple[int, int]]]:
    """The objects of each gallery, most telling first, one an image.

    ``confident``: kept, with the highest calibrated confidence; ``doubtful``: score nearest to
    the threshold of its class; ``rare``: of rare classes, kept ones first, then by score;
    ``disagreeing``: see :func:`disagreement`, of those that are kept.

    Args:
        seen: Of each image.
        thresholds: (C,).
        groups: (C,) 0 rare, 1 common, 2 frequent.
        count: Objects of a gallery at most.

    Returns:
        By kind, pairs of a position in ``seen`` and a row of its ``teacher``.
    """
    places = [(i, k) for i, image in enumerate(seen) for k in range(len(image.teacher))]
    if not places:
        return {kind: [] for kind in KINDS}
    labels = torch.cat([image.teacher.labels for image in seen])
    scores = torch.cat([image.teacher.scores for image in seen])
    confidences = torch.cat([image.teacher.confidences for image in seen])
    kept = torch.cat([image.teacher.kept for image in seen])
    doubt = torch.cat([image.disagreement for image in seen])
    rare = groups[labels] == RARE
    values = dict(
        confident=(confidences, kept),
        doubtful=(-(scores - thresholds[labels]).abs(), torch.ones_like(kept)),
        rare=(scores + kept, rare),
        disagreeing=(doubt, kept & (doubt > 0)),
    )
    return {
        kind: _best(places, labels, value.masked_fill(~allowed, -torch.inf), count)
        for kind, (value, allowed) in values.items()
    }


def _best(
    places: Sequence[tuple[int, int]], labels: Tensor, values: Tensor, count: int
) -> list[tuple[int, int]]:
    """Highest values, one an image and ``MAX_OF_CLASS`` a class; -inf is never taken."""
    chosen: list[tuple[int, int]] = []
    images: set[int] = set()
    of_class: dict[int, int] = {}
    for row in values.argsort(descending=True, stable=True).tolist():
        if len(chosen) == count or values[row] == -torch.inf:
            break
        image, label = places[row][0], int(labels[row])
        if image in images or of_class.get(label, 0) == MAX_OF_CLASS:
            continue
        chosen.append(places[row])
        images.add(image)
        of_class[label] = of_class.get(label, 0) + 1
    return chosen


def find_examples(
    detector: CalibratedSoftTeacher,
    dataset: BaseDataset,
    indices: Sequence[int],
    count: int = 6,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Example]:
    """Look at images, choose objects, and fetch their pictures and masks.

    Args:
        detector: Its thresholds, boosts and calibration are used as they are.
        dataset: With a test pipeline that ends in ``PackDetInputs``.
        indices: Images to look at.
        count: Examples of each kind at most.
        progress: Called with the images done and their number.
    """
    seen = see_objects(detector, dataset, indices, progress)
    state = detector.class_state
    thresholds, groups = state.thresholds.cpu(), state.groups.cpu()
    examples = []
    for kind, places in choose_objects(seen, thresholds, groups, count).items():
        for place, row in places:
            image = seen[place]
            wanted = image.teacher[row : row + 1]
            drawn = _with_masks(detector, dataset, image.index, 'teacher')
            # Padded otherwise, an object near the score floor may be gone.
            if not len(drawn.detections):
                continue
            other = None
            if kind == 'disagreeing':
                other = _with_masks(detector, dataset, image.index, 'student').detections
            examples.append(
                Example(
                    kind=kind,
                    image=drawn.image,
                    name=Path(dataset.get_data_info(image.index)['img_path']).name,
                    chosen=_row_of(drawn.detections, wanted),
                    teacher=drawn.detections,
                    student=other,
                    threshold=float(thresholds[wanted.labels[0]]),
                    disagreement=float(image.disagreement[row]),
                )
            )
    return examples


def _with_masks(
    detector: CalibratedSoftTeacher, dataset: BaseDataset, index: int, network: str
) -> LabelledImage:
    (image,) = label_images(detector, dataset, [index], masks_above=-1.0, network=network)
    return image


def _row_of(found: InstanceData, wanted: InstanceData) -> int:
    """Where an object is now: alone in its batch, an image is padded otherwise than before."""
    overlaps = bbox_overlaps(found.bboxes, wanted.bboxes)[:, 0]
    return int((overlaps + (found.labels == wanted.labels)).argmax())
