"""The bias check: what boosting rare classes brought and what precision it cost.

Shape legend: K detections of an image, C foreground classes, B confidence bins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mmengine.dataset import BaseDataset
from torch import Tensor

from mmdet_softpl.engine.label_images import label_images
from mmdet_softpl.evaluation.pseudo_label_quality import (
    pseudo_label_quality,
    pseudo_label_reliability,
)
from mmdet_softpl.models import CalibratedSoftTeacher


@dataclass(frozen=True)
class BoostCheck:
    """Pseudo-labels of labelled images, judged, with boosted scores and with plain ones.

    Attributes:
        images: Number of images.
        boosted: As :func:`pseudo_label_quality` returns it, with the scores of the training.
        plain: The same without boost and prototype evidence, at the same thresholds.
        before: (3, C, B) reliability of the scores of the training.
        after: (3, C, B) of the calibrated confidences.
    """

    images: int
    boosted: dict[str, Any]
    plain: dict[str, Any]
    before: Tensor
    after: Tensor


def check_boost(
    detector: CalibratedSoftTeacher,
    dataset: BaseDataset,
    indices: Sequence[int],
    ann_file: str,
    labeled_ann_file: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    img_ids: Sequence[int] | None = None,
) -> BoostCheck:
    """Label images as in training, once with the boosts and once without, and judge both.

    Args:
        detector: With the thresholds, boosts and calibration of its training; left as it is.
        dataset: Images that ``ann_file`` has the labels of, with a test pipeline.
        indices: Images to look at.
        ann_file: COCO or LVIS json.
        labeled_ann_file: json of the labelled training images, for the groups.
        progress: Called with the images done (each is looked at twice) and their number.
        img_ids: Of each image in ``indices`` its id in ``ann_file``; None: the data set's.

    Raises:
        AnnotationError: As :func:`pseudo_label_quality`.
    """
    classes = dataset.metainfo['classes']
    total = 2 * len(indices)
    boosted = _label(detector, dataset, indices, lambda done: progress(done, total))
    with plain_scores(detector):
        plain = _label(
            detector, dataset, indices, lambda done: progress(len(indices) + done, total)
        )
    for k, img_id in enumerate(img_ids or ()):
        boosted[k]['img_id'] = plain[k]['img_id'] = img_id
    before, after = pseudo_label_reliability(boosted, ann_file, classes)
    return BoostCheck(
        images=len(indices),
        boosted=pseudo_label_quality(boosted, ann_file, classes, labeled_ann_file),
        plain=pseudo_label_quality(plain, ann_file, classes, labeled_ann_file),
        before=before,
        after=after,
    )


@contextmanager
def plain_scores(detector: CalibratedSoftTeacher) -> Iterator[None]:
    """Within it the detector labels without boost and prototype evidence."""
    state = detector.class_state
    boosts, weights = state.boosts.clone(), state.prototype_weights.clone()
    state.boosts.fill_(1)
    state.prototype_weights.zero_()
    try:
        yield
    finally:
        state.boosts.copy_(boosts)
        state.prototype_weights.copy_(weights)


def _label(
    detector: CalibratedSoftTeacher,
    dataset: BaseDataset,
    indices: Sequence[int],
    progress: Callable[[int], None],
) -> list[dict[str, Any]]:
    found = []
    for image in label_images(detector, dataset, indices):
        seen = image.detections
        found.append(
            dict(
                img_id=image.img_id,
                bboxes=image.original_bboxes,
                labels=seen.labels,
                scores=seen.scores,
                confidences=seen.confidences,
                kept=seen.kept,
            )
        )
        progress(len(found))
    return found
