"""Labelling replayed from a dump under other settings, with the functions that training uses.

Shape legend: I images, R stored RoIs of an image, C foreground classes, k stored classes of a RoI,
K detections of an image, D surest detections of all images, B confidence bins, S score bins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_softpl.datasets.class_statistics import ClassStatistics
from mmdet_softpl.evaluation.ground_truth import judge_detections
from mmdet_softpl.evaluation.soft_label_replay import (
    SoftLabels,
    settled_boosts,
    soft_labels_of,
)
from mmdet_softpl.evaluation.teacher_dump import DumpedImage, TeacherDump
from mmdet_softpl.functional import (
    FREQUENT,
    apply_calibrator,
    boost_scores,
    calibration_table,
    reliability_counts,
    sharpen_scores,
)
from mmdet_softpl.models.class_state import CONFIDENCE_BINS, SCORE_BINS, ClassState
from mmdet_softpl.models.label_policy import LabelPolicy
from mmdet_softpl.models.teacher_labels import (
    LabelingCfg,
    confidences_of,
    find_candidates,
    most_wanted,
    name_objects,
    own_scores_of,
)

# Thresholds and the surest label of an object depend on each other; after three rounds nothing
# moves any more.
REFRESHES = 3
# The objects depend on the boosts a little: a second look at them settles that.
ALIGN_ROUNDS = 2


@dataclass(frozen=True)
class LabelSettings(LabelPolicy):
    """What decides which detections become pseudo-labels, and how sure they are said to be.

    Attributes:
        label_mode, label_temperature: Those of ``semi_train_cfg``.
        temperature: Of the prototype evidence, > 0; None: the head's own.
        calibration: ``semi_train_cfg.calibration``.
        held_out: Training calibrates on images of its own (``HeldOutCalibrationHook``); if not,
            on those it trains on, and lowers scores only.
    """

    label_mode: str = 'soft'
    label_temperature: float = 1.0
    temperature: float | None = None
    calibration: str = 'histogram'
    held_out: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LabelSettings:
        """The inverse of ``dataclasses.asdict``, also of one that went through json."""
        return cls(**values)

    @classmethod
    def from_configs(
        cls, hook: Mapping, semi_train_cfg: Mapping, held_out: bool = False
    ) -> LabelSettings:
        """Settings of a ``RareBoostPseudoLabeler`` and a ``semi_train_cfg``, as in a config."""
        keys = ('calibration', 'label_mode', 'label_temperature')
        own = {key: semi_train_cfg[key] for key in keys if key in semi_train_cfg}
        return cls(held_out=held_out, **LabelPolicy.given_by(hook), **own)


@dataclass(frozen=True)
class Replay:
    """The surest detections of a dump under some settings, and what is right about them.

    Attributes:
        state: Boosts and thresholds that the settings led to; the calibration of the start.
        image: (D,) int64 index of the image among those replayed.
        labels: (D,) int64.
        scores: (D,) boosted class scores.
        own_scores: (D,) the network's own, sharpened.
        kept: (D,) bool, above the threshold of the class.
        judged: (D,) bool, the annotations say something about it.
        correct: (D,) bool, takes an object of its class at box IoU 0.5.
        weights: (D,) see ``replay``.
        objects: (I, C) ground-truth objects of each image, weighted.
        soft: What their soft labels say; None where labels are hard.
    """

    state: ClassState
    image: Tensor
    labels: Tensor
    scores: Tensor
    own_scores: Tensor
    kept: Tensor
    judged: Tensor
    correct: Tensor
    weights: Tensor
    objects: Tensor
    soft: SoftLabels | None

    def confidences(self, target_scores: Tensor) -> Tensor:
        """(D,) how likely the labels are right, from calibrated scores (D,)."""
        return confidences_of(self.own_scores, self.scores, target_scores)

    def reliability(self, confidences: Tensor | None = None, rows: Tensor | None = None) -> Tensor:
        """(3, C, B) of ``confidences`` (D,) (None: the scores), of the detections ``rows``."""
        values = self.scores if confidences is None else confidences
        weights = self.weights * self.judged
        if rows is not None:
            weights = weights * rows
        num_classes = self.state.num_classes
        return reliability_counts(
            values, self.labels, self.correct, num_classes, CONFIDENCE_BINS, weights=weights
        )


def replay(
    dump: TeacherDump,
    settings: LabelSettings,
    statistics: ClassStatistics,
    cfg: LabelingCfg,
    *,
    indices: Sequence[int] | None = None,
    object_weights: Tensor | None = None,
) -> Replay:
    """Label the images of a dump.

    Boost, prototype evidence, floor, NMS, the surest label of each object and the thresholds of
    ``settings.threshold_mode``, which come from these images' own scores, as in training; so do
    the boosts that alignment comes to. Damping, which needs a training, is left out.

    Args:
        dump: Of the teacher.
        settings: To be tried.
        statistics: Of the labelled set, with the classes of the dump.
        cfg: Filters of the detector.
        indices: Images to use; None: all.
        object_weights: (C,) > 0, how much an object of each class counts, and a detection on it,
            where the classes are mixed differently than in the images to be labelled
            (:func:`.mix_weights`); None: 1 each.

    Raises:
        ValueError: A temperature that the dump does not have.
    """
    images = dump.images if indices is None else [dump.images[i] for i in indices]
    state = initial_state(settings, statistics)
    if settings.calibration != 'none' and not settings.held_out:
        state.confidence_gain.fill_(1 / (1 - dump.smoothing))
    rate = torch.as_tensor(statistics.labelled_rate()).float()
    soft = settings.label_mode == 'soft'
    # As in training: nothing says how many labels a frequent class should have.
    unknown = (state.groups == FREQUENT) & statistics.federated
    num_images = len(images) if statistics.partial else None

    def look() -> tuple[list[InstanceData], list[Tensor]]:
        found = [candidates_of(dump, image, settings, state, cfg) for image in images]
        on = [_weights_of(f, i, object_weights) for f, i in zip(found, images, strict=True)]
        _set_thresholds(found, on, settings, state, rate, cfg)
        found = [most_wanted(f, cfg.max_per_img) for f in found]
        return found, [
            _weights_of(f, i, object_weights) for f, i in zip(found, images, strict=True)
        ]

    found, on = look()
    for _ in range(ALIGN_ROUNDS if soft and settings.align_rate else 0):
        settled = settled_boosts(found, on, state, rate, settings.align_rate, unknown, num_images)
        for boosts, new in zip((state.boosts, state.own_boosts), settled, strict=True):
            boosts.copy_(new)
        found, on = look()
    return _judge(images, found, on, state, object_weights, soft)


def _set_thresholds(
    found: Sequence[InstanceData],
    on: Sequence[Tensor],
    settings: LabelSettings,
    state: ClassState,
    rate: Tensor,
    cfg: LabelingCfg,
) -> None:
    """Name the detections and set the thresholds that their scores ask for, in place."""
    for _ in range(0 if settings.threshold_mode == 'fixed' else REFRESHES):
        for detections in found:
            name_objects(detections, state, cfg)
        histogram = _histogram(found, on, state.num_classes)
        thresholds = settings.thresholds(histogram, len(found), rate, state.groups)
        if torch.equal(thresholds, state.thresholds):
            break
        state.thresholds.copy_(thresholds)
    for detections in found:
        name_objects(detections, state, cfg)


def initial_state(settings: LabelSettings, statistics: ClassStatistics) -> ClassState:
    """``ClassState`` as ``RareBoostPseudoLabeler`` sets it before training."""
    state = ClassState(len(statistics.classes), settings.fixed_thr)
    settings.set_initial(state, statistics)
    return state


def candidates_of(
    dump: TeacherDump,
    image: DumpedImage,
    settings: LabelSettings,
    state: ClassState,
    cfg: LabelingCfg,
) -> InstanceData:
    """Detections of one image after boost and per-class NMS.

    With their ``objectness`` (K,), ``classes`` (K, k) and ``score_vectors`` and ``own_vectors``
    (K, k + 2): of these classes, of all others, of background.

    Raises:
        ValueError: the temperature is none that was looked through with.
    """
    temperature = settings.temperature
    if temperature is None and dump.temperatures:
        temperature = dump.temperatures[0]
    if dump.temperatures and temperature not in dump.temperatures:
        raise ValueError(
            f'replay: temperature={temperature!r} is none of the dump: {dump.temperatures}.'
        )
    num_rois = len(image.scores)
    one = torch.ones(num_rois, 1)
    boosts = torch.cat([state.boosts[image.classes], one], 1)
    own_boosts = torch.cat([state.own_boosts[image.classes], one], 1)
    evidence = None
    if temperature is not None:
        evidence = image.log_evidence(dump.temperatures, temperature)
    if evidence is not None:
        weighted = state.prototype_weights[image.classes] * evidence
        evidence = torch.cat([weighted, torch.zeros(num_rois, 1)], 1)
    # All classes that are not stored count as one: they were the least likely ones.
    sharpened = sharpen_scores(image.scores, settings.label_temperature)
    scores = boost_scores(sharpened, boosts, evidence)
    own_scores = boost_scores(sharpened, own_boosts)

    def decode(roi_inds: Tensor, columns: Tensor) -> Tensor:
        agnostic = image.bboxes.shape[1] == 1
        return image.bboxes[roi_inds, torch.zeros_like(columns) if agnostic else columns]

    objectness = 1 - sharpened[:, -1]
    found = find_candidates(scores[:, :-2], objectness, decode, cfg, image.classes)
    rows = found.pop('roi_inds')
    found.objectness = objectness[rows]
    own = own_scores[rows, :-2] * (image.classes[rows] == found.labels[:, None])
    found.own_scores = own_scores_of(own.sum(1), found.objectness, state)
    found.classes, found.score_vectors = image.classes[rows], scores[rows]
    found.own_vectors = own_scores[rows]
    return found


def cross_calibrated(found: Replay, settings: LabelSettings, folds: Tensor) -> Tensor:
    """(D,) calibrated scores, each from a table that its own fold of images had no part in.

    Args:
        found: The replay.
        settings: Of the calibration.
        folds: (I,) bool, the fold of each image.
    """
    target_scores = torch.zeros_like(found.scores)
    side = folds[found.image]
    for fold in (False, True):
        table = calibration_table(
            found.reliability(rows=side != fold),
            found.state.groups,
            settings.calibration,
            settings.held_out,
        )
        calibrated = apply_calibrator(found.scores, found.labels, table)
        target_scores = torch.where(side == fold, calibrated, target_scores)
    return target_scores


def _weights_of(found: InstanceData, image: DumpedImage, object_weights: Tensor | None) -> Tensor:
    """(K,) weight of the object that each detection lies on, of whatever class; else 1."""
    weights = torch.ones(len(found))
    if object_weights is None or not len(found) or not len(image.truth.labels):
        return weights
    overlap, nearest = bbox_overlaps(found.bboxes, image.truth.bboxes.float()).max(dim=1)
    return torch.where(overlap >= 0.5, object_weights[image.truth.labels[nearest]], weights)


def _histogram(
    found: Sequence[InstanceData], weights: Sequence[Tensor], num_classes: int
) -> Tensor:
    """(C, S) weighted counts of the surest detections."""
    rows = torch.cat([detections.surest for detections in found])
    scores = torch.cat([detections.scores for detections in found])[rows]
    labels = torch.cat([detections.labels for detections in found])[rows]
    return reliability_counts(
        scores,
        labels,
        torch.zeros_like(labels, dtype=torch.bool),
        num_classes,
        SCORE_BINS,
        weights=torch.cat(list(weights))[rows],
    )[0]


def _judge(
    images: Sequence[DumpedImage],
    found: Sequence[InstanceData],
    weights: Sequence[Tensor],
    state: ClassState,
    object_weights: Tensor | None,
    soft: bool,
) -> Replay:
    """Named detections, compared with the ground truth."""
    objects = torch.zeros(len(images), state.num_classes)
    parts: list[tuple[Tensor, ...]] = []
    soft_parts: list[SoftLabels] = []
    for index, (image, detections, weight) in enumerate(zip(images, found, weights, strict=True)):
        rows = detections.surest
        if soft:
            soft_parts.append(soft_labels_of(detections[rows], image.truth, state.groups))
        bboxes, labels = detections.bboxes[rows], detections.labels[rows]
        scores, own = detections.scores[rows], detections.own_scores[rows]
        judged, correct = judge_detections(image.truth, bboxes, scores, labels)
        where = torch.full_like(labels, index)
        kept = detections.kept[rows]
        parts.append((where, labels, scores, own, kept, judged, correct, weight[rows]))
        true_labels = image.truth.labels[~image.truth.crowd]
        objects[index] = torch.bincount(true_labels, minlength=state.num_classes)
    if object_weights is not None:
        objects *= object_weights
    columns = (torch.cat(column) for column in zip(*parts, strict=True))
    image_inds, labels, scores, own, kept, judged, correct, weight = columns
    return Replay(
        state=state,
        image=image_inds,
        labels=labels,
        scores=scores,
        own_scores=own,
        kept=kept,
        judged=judged,
        correct=correct,
        weights=weight,
        objects=objects,
        soft=SoftLabels.join(soft_parts) if soft else None,
    )
