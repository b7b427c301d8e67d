"""What the teacher's labels of labelled images say about its confidence.

Shape legend: K detections of an image, C foreground classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_softpl.functional import (
    expected_counts,
    judge_matches,
    match_indices,
    reliability_counts,
    soft_targets,
)
from mmdet_softpl.models.class_state import CONFIDENCE_BINS, ClassState

# Image id -> class indices known to be present or absent, those not annotated exhaustively.
Federated = Mapping[int | None, tuple[np.ndarray, np.ndarray | None]]


def observe_image(
    state: ClassState, seen: InstanceData, sample: DetDataSample, federated: Federated
) -> None:
    """Add the detections of one labelled image to ``new_reliability`` and ``offset_counts``.

    Args:
        state: Where the counts are added.
        seen: The surest detection of every object, as ``teacher_detect`` gives them.
        sample: With ``gt_instances`` in the coordinates of the detections, and
            ``ignored_instances`` for crowd regions: what lies on one is neither right nor wrong.
        federated: Of LVIS images, what they speak of; images that it does not list say all.
    """
    truth = sample.gt_instances
    bboxes, labels = truth.bboxes, truth.labels
    ignored = sample.get('ignored_instances')
    if ignored is not None and 'labels' in ignored:
        bboxes = torch.cat([bboxes, ignored.bboxes])
        labels = torch.cat([labels, ignored.labels])
    crowd = torch.arange(len(labels), device=labels.device) >= len(truth)
    matched = match_indices(seen.bboxes, seen.scores, seen.labels, bboxes, labels, ignore=crowd)
    img_id = sample.metainfo.get('img_id')
    told, loose = spoken_of(seen.labels, federated, img_id)
    # A pasted object may be of a class that the image does not speak of.
    told, correct = judge_matches(matched, crowd, told | (matched >= 0), loose)
    state.new_reliability += reliability_counts(
        seen.scores,
        seen.labels,
        correct,
        state.num_classes,
        CONFIDENCE_BINS,
        weights=told.float(),
    )
    found = match_indices(seen.bboxes, seen.scores, None, bboxes, None, ignore=crowd)
    is_object = (found >= 0) & (found < len(truth))
    targets = soft_targets(seen.score_vectors, seen.labels, seen.target_scores)
    # An intended boost is no error of the teacher.
    shift = state.offsets + state.wanted_boosts.log()
    # Of each class in the images that name all its objects; the teacher may have missed some.
    classes = torch.arange(state.num_classes, device=labels.device)
    told, loose = spoken_of(classes, federated, img_id)
    complete = (told & ~loose).to(state.offset_counts)
    expected = expected_counts(targets[is_object | (found < 0)], shift)
    observed = torch.bincount(labels[found[is_object]], minlength=state.num_classes)
    state.offset_counts += torch.stack([expected, observed.to(expected)]) * complete


def spoken_of(labels: Tensor, federated: Federated, img_id: int | None) -> tuple[Tensor, Tensor]:
    """Whether an image speaks of a class, and whether it does so without naming every object.

    Args:
        labels: (K,) in [0, C).
        federated: As in :func:`observe_image`.
        img_id: The image.

    Returns:
        (K,) bool: the class is known to be present or absent; (K,) bool: it is not annotated
        exhaustively.
    """
    known, not_exhaustive = federated.get(img_id, (None, None))
    told = torch.ones_like(labels, dtype=torch.bool)
    if known is not None:
        told = torch.isin(labels, torch.as_tensor(known, device=labels.device))
    loose = torch.zeros_like(told)
    if not_exhaustive is not None:
        loose = torch.isin(labels, torch.as_tensor(not_exhaustive, device=labels.device))
    return told, loose
