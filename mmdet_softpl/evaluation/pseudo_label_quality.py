"""How right pseudo-labels are, where the labels of the unlabelled images were kept aside.

Shape letters: **K** pseudo-instances of an image, **C** foreground classes, **B** confidence
bins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmdet_softpl.datasets.annotation_file import load_annotation_file
from mmdet_softpl.evaluation.ground_truth import (
    GroundTruth,
    frequency_letters,
    groups_of_classes,
    judge_detections,
)
from mmdet_softpl.functional.frequency import GROUP_NAMES
from mmdet_softpl.functional.reliability import reliability_counts
from mmdet_softpl.models.class_state import CONFIDENCE_BINS


def pseudo_label_quality(
    pseudo_labels: Sequence[Mapping],
    hidden_ann_file: str,
    class_names: Sequence[str],
    labeled_ann_file: str | None = None,
    iou_thr: float = 0.5,
) -> dict:
    """Precision, recall and number of the kept pseudo-labels, per class and frequency group.

    A pseudo-label is right if it takes an object of its class at box IoU ``iou_thr`` (greedy, by
    score). Of a federated (LVIS) file only what an image says something about is judged; the
    number counts every kept pseudo-label. Sums over classes, not means of classes.

    Args:
        pseudo_labels: For each image a dict: ``img_id``, ``bboxes`` (K, 4) xyxy in pixels of the
            original image, ``labels`` (K,), ``scores`` (K,) in [0, 1], and optionally ``kept``
            (K,) bool, all kept if absent.
        hidden_ann_file: COCO or LVIS json with the labels of these images. Recall counts the
            objects of the images in ``pseudo_labels``.
        class_names: (C,) by label.
        labeled_ann_file: As in :class:`LongTailMetric`, for the groups.
        iou_thr: In (0, 1].

    Returns:
        ``pseudo_precision`` (of the judged ones), ``pseudo_recall``, ``pseudo_count``,
        ``pseudo_judged``, ``pseudo_objects``, ``pseudo_never_labelled`` (share of the classes
        without any pseudo-label); the same as ``rare_pseudo_precision`` ... for rare, common and
        frequent classes where groups are known; ``never_labelled``, a list of class names;
        ``per_class``, name to ``precision``, ``recall``, ``count``, ``judged``, ``objects``. NaN
        where nothing was judged or there is no object.

    Raises:
        AnnotationError: The file cannot be used, lacks a class or an image.
        ValueError: A label outside [0, C), or ``iou_thr`` outside its range.
    """
    dataset = load_annotation_file(hidden_ann_file)
    truth = GroundTruth(dataset, class_names, hidden_ann_file)
    num_classes = len(class_names)
    # Rows: kept, judged, right, objects.
    counts = torch.zeros(4, num_classes, dtype=torch.long)
    for image in pseudo_labels:
        kept = torch.as_tensor(image.get('kept', torch.ones(len(image['labels'])))).bool()
        bboxes = torch.as_tensor(image['bboxes']).reshape(-1, 4)[kept]
        scores = torch.as_tensor(image['scores'])[kept]
        labels = torch.as_tensor(image['labels']).long()[kept]
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
            raise ValueError(
                f'pseudo_label_quality: image {image["img_id"]}: labels must lie in '
                f'[0, {num_classes}), got {int(labels.min())} to {int(labels.max())}.'
            )
        image_truth = truth.image(image['img_id'])
        judged, correct = judge_detections(image_truth, bboxes, scores, labels, iou_thr)
        objects = image_truth.labels[~image_truth.crowd]
        for row, found in enumerate((labels, labels[judged], labels[correct], objects)):
            counts[row] += torch.bincount(found, minlength=num_classes)

    labeled = None if labeled_ann_file is None else frequency_letters(labeled_ann_file)
    groups = groups_of_classes(dataset, class_names, labeled, labeled_ann_file)
    quality: dict = {}
    for prefix, members in _selections(groups, num_classes):
        for key, value in _ratios(counts[:, members].sum(dim=1)).items():
            quality[f'{prefix}pseudo_{key}'] = value
        never = (counts[0, members] == 0).double()
        quality[f'{prefix}pseudo_never_labelled'] = float(never.mean())
    quality['never_labelled'] = [
        name for name, count in zip(class_names, counts[0].tolist(), strict=True) if count == 0
    ]
    quality['per_class'] = {name: _ratios(counts[:, c]) for c, name in enumerate(class_names)}
    return quality


def pseudo_label_reliability(
    detections: Sequence[Mapping], hidden_ann_file: str, class_names: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Reliability of the teacher's scores and of its calibrated confidences.

    Args:
        detections: For each image a dict: ``img_id``, ``bboxes`` (K, 4) xyxy in pixels of the
            original image, ``labels`` (K,), ``scores`` and ``confidences`` (K,) in [0, 1]; kept
            or not, all are judged at box IoU 0.5.
        hidden_ann_file: COCO or LVIS json with the labels of these images.
        class_names: (C,) by label.

    Returns:
        (3, C, B) counts, correct and confidence sums by score, and by calibrated confidence.

    Raises:
        AnnotationError: As :func:`pseudo_label_quality`.
    """
    truth = GroundTruth(load_annotation_file(hidden_ann_file), class_names, hidden_ann_file)
    num_classes = len(class_names)
    before, after = (torch.zeros(3, num_classes, CONFIDENCE_BINS) for _ in range(2))
    for image in detections:
        labels, scores = image['labels'], image['scores']
        judged, correct = judge_detections(
            truth.image(image['img_id']), image['bboxes'], scores, labels
        )
        for total, values in ((before, scores), (after, image['confidences'])):
            total += reliability_counts(
                values[judged], labels[judged], correct[judged], num_classes, CONFIDENCE_BINS
            )
    return before, after


def _selections(groups: Tensor | None, num_classes: int) -> list[tuple[str, Tensor]]:
    """Key prefix and (C,) bool of all classes and of each group."""
    selections = [('', torch.ones(num_classes, dtype=torch.bool))]
    if groups is not None:
        selections += [(f'{name}_', groups == group) for group, name in enumerate(GROUP_NAMES)]
    return selections


def _ratios(counts: Tensor) -> dict[str, float]:
    """From (4,) kept, judged, right, objects."""
    kept, judged, right, objects = counts.tolist()
    return {
        'precision': right / judged if judged else float('nan'),
        'recall': right / objects if objects else float('nan'),
        'count': kept,
        'judged': judged,
        'objects': objects,
    }
