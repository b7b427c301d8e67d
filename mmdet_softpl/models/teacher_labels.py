"""The teacher's detections, scored for pseudo-labelling.

Shape legend: N RoIs, C foreground classes (background has index C), K pseudo-instances,
S mask size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from mmcv.ops import batched_nms
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.roi_heads.base_roi_head import BaseRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_softpl.functional import (
    apply_calibrator,
    boost_scores,
    prototype_log_evidence,
    sharpen_scores,
)
from mmdet_softpl.models.class_state import ClassState
from mmdet_softpl.models.mirror_view import MirrorView, mirror_view
from mmdet_softpl.models.pasted_labels import apart_from
from mmdet_softpl.models.roi_adapter import (
    class_boxes,
    roi_mask_probabilities,
    score_rois,
    stages_of,
)
from mmdet_softpl.models.smoothed_ce_head import SmoothedCEHead

# What an object may be called, at most, on the average; the rest of its labels is not looked at.
LABELS_PER_OBJECT = 10


@dataclass(frozen=True)
class LabelingCfg:
    """How detections become pseudo-instances; the values of ``semi_train_cfg``.

    Attributes:
        score_floor: Detections below it are never looked at, in [0, 1].
        iou_thr: IoU of the per-class NMS, in (0, 1].
        cross_class_iou_thr: Of two detections with a larger IoU, whatever their classes,
            only the surest is an object's label, in (0, 1]. Those above the threshold of their
            class go before all others.
        max_per_img: Detections of an image at most; objects go first.
        objectness_thr: Objects for RPN and box losses and soft class targets have 1 - p_bg above
            it, in [0, 1], or are kept as pseudo-labels.
        mirror: Class scores and masks are means over the view and its mirror image, which costs
            a pass of the backbone (data distillation, arXiv 1712.04440).
        label_temperature: T of ``sharpen_scores``, > 0: below 1 labels are surer of an object's
            likeliest classes than the network is.
    """

    score_floor: float = 0.05
    iou_thr: float = 0.5
    cross_class_iou_thr: float = 0.5
    max_per_img: int = 100
    objectness_thr: float = 0.7
    mirror: bool = False
    label_temperature: float = 1.0


@dataclass
class TeacherView:
    """What the teacher saw of one batch of weak views.

    Attributes:
        feats: Feature levels.
        detections: For each image, InstanceData in view coordinates with ``bboxes`` (K, 4),
            ``labels`` (K,), ``scores`` (K,) boosted class scores, ``score_vectors`` (K, C+1),
            ``own_scores`` (K,) the network's own, sharpened, see ``own_scores_of``,
            ``objectness`` (K,) = 1 - p_bg, ``target_scores`` (K,) calibrated scores, what soft
            targets give the label; ``confidences`` (K,) how likely the label is right: own
            scores, changed in the same ratio; ``surest`` (K,) bool: the label of its object
            (``LabelingCfg.cross_class_iou_thr``); ``kept`` (K,) bool: that,
            and above the threshold of its class;
            ``is_object`` (K,) bool: that, and kept or of enough objectness. After
            ``add_masks`` also ``mask_probs`` (K, S, S).
        mirrored: Its look at their mirror images, with ``LabelingCfg.mirror``.
        num_seen: Objects among ``detections`` that it saw itself; the others were pasted in.
        own_mass: (C,) what the network itself says of these, under ``ClassState.own_boosts``,
            summed over the batch.
    """

    feats: tuple[Tensor, ...]
    detections: list[InstanceData]
    mirrored: MirrorView | None = None
    num_seen: int = 0
    own_mass: Tensor = field(default_factory=lambda: torch.zeros(()))


def evidence_of(
    roi_head: BaseRoIHead,
    weights: Tensor,
    num_rois: int,
    rows: Tensor | None = None,
    temperature: float | None = None,
) -> Tensor | None:
    """Weighted prototype log-evidence (N, C) of the RoIs in the last forward pass.

    None where the head keeps no prototypes, or keeps other features than those N RoIs. With
    ``rows`` (n,) only that of these RoIs, (n, C): for many classes it costs as much as the head.
    ``temperature`` > 0 is the head's own where it is None.
    The blend of classifier and prototypes per class follows DASO (arXiv 2106.05682).
    """
    head = stages_of(roi_head)[-1].bbox_head
    if not isinstance(head, SmoothedCEHead) or not head.keeps_prototypes:
        return None
    features = head.penultimate_features
    if features is None or len(features) != num_rois:
        return None
    if rows is not None:
        features = features[rows]
    evidence = prototype_log_evidence(
        features.float(),
        head.prototypes,
        head.prototype_counts,
        head.temperature if temperature is None else temperature,
    )
    # Relative to a uniform guess: above 0 where the prototypes speak for a class, so that a
    # class of weight 0 neither gains nor loses on one of weight 1.
    valid = (head.prototype_counts > 0).sum().clamp(min=1)
    return weights * (evidence + valid.log())


def smoothing_of(roi_head: BaseRoIHead) -> float:
    """Strength of the label smoothing that its class scores have learnt, in [0, 1)."""
    heads = [stage.bbox_head for stage in stages_of(roi_head)]
    # Class scores of a cascade are means over its stages.
    return sum(
        head.smoothing for head in heads if isinstance(head, SmoothedCEHead) and head.smooths
    ) / len(heads)


@torch.no_grad()
def teacher_detect(
    teacher: TwoStageDetector,
    batch_inputs: Tensor,
    batch_data_samples: SampleList,
    state: ClassState,
    cfg: LabelingCfg,
    pasted: Sequence[InstanceData | None] | None = None,
) -> TeacherView:
    """Detect, boost, prefilter by the score floor, then NMS: never over every (RoI, class) pair.

    Args:
        teacher: A two-stage detector in eval mode.
        batch_inputs: (B, 3, H, W) normalised images.
        batch_data_samples: Their data samples (only ``metainfo`` is read).
        state: Boosts, thresholds and calibration.
        cfg: Filters.
        pasted: Objects pasted into each image (``pasted_objects``), if any. What the teacher sees
            of them is left out before it can take the place of what was in the image.

    Returns:
        All detections above ``cfg.score_floor``, without masks.
    """
    x = teacher.extract_feat(batch_inputs)
    proposals = teacher.rpn_head.predict(x, batch_data_samples, rescale=False)
    metas = [sample.metainfo for sample in batch_data_samples]
    boxes = [result.bboxes for result in proposals]
    rois, scores, deltas = score_rois(teacher.roi_head, x, boxes, metas)
    # Boosts and evidence leave p_bg as it is: where the whole foreground is below the floor, no
    # class passes it. Most RoIs are such; a hair is left for rounding. What the mirror image alone
    # shows is given up: asking it of every RoI would cost as much again as the box head.
    rows = (1 - scores[:, -1] > 0.999 * cfg.score_floor).nonzero().squeeze(1)
    evidence = evidence_of(teacher.roi_head, state.prototype_weights, len(rois), rows)
    rois, scores, deltas = rois[rows], scores[rows], deltas[rows]
    # On the CPU: on a GPU the function itself would wait twice more.
    counts = torch.bincount(rois[:, 0].cpu().long(), minlength=len(metas)).tolist()
    priors = rois[:, 1:].split(counts)
    mirrored = mirror_view(teacher, batch_inputs) if cfg.mirror else None
    if mirrored is not None:
        scores = (scores + mirrored.scores(teacher, priors, metas)) / 2
    scores = sharpen_scores(scores, cfg.label_temperature)
    boosted = boost_scores(scores, state.boosts, evidence)
    own = boost_scores(scores, state.own_boosts)
    head = stages_of(teacher.roi_head)[-1].bbox_head
    columns = (own.split(counts), boosted.split(counts), deltas.split(counts))
    parts = zip(priors, *columns, strict=True)
    selected = [
        _select(head, *part, meta, objects, state, cfg)
        for part, meta, objects in zip(parts, metas, pasted or [None] * len(metas), strict=True)
    ]
    detections, masses = zip(*selected, strict=True)
    return TeacherView(x, list(detections), mirrored, own_mass=torch.stack(masses).sum(0))


def _select(
    head: BBoxHead,
    priors: Tensor,
    own: Tensor,
    scores: Tensor,
    deltas: Tensor,
    meta: dict,
    pasted: InstanceData | None,
    state: ClassState,
    cfg: LabelingCfg,
) -> tuple[InstanceData, Tensor]:
    """Detections of one image and its ``own_mass``, see ``TeacherView``."""

    def decode(roi_inds: Tensor, labels: Tensor) -> Tensor:
        return class_boxes(head, priors, deltas, roi_inds, labels, meta['img_shape'])

    objectness = 1 - scores[:, -1]
    found = find_candidates(scores[:, : state.num_classes], objectness, decode, cfg, pasted=pasted)
    roi_inds = found.roi_inds
    found.score_vectors = scores[roi_inds]
    found.objectness = objectness[roi_inds]
    own_scores = own_scores_of(own[roi_inds, found.labels], found.objectness, state)
    found.own_scores = own_scores.to(found.scores)
    found = most_wanted(name_objects(found, state, cfg), cfg.max_per_img)
    # By a weight of each RoI: to choose rows by a mask would wait for the device.
    weights = own.new_zeros(len(own))
    weights.index_add_(0, found.pop('roi_inds'), found.is_object.to(weights))
    return found, weights @ own[:, : state.num_classes]


def find_candidates(
    foreground: Tensor,
    objectness: Tensor,
    decode: Callable[[Tensor, Tensor], Tensor],
    cfg: LabelingCfg,
    classes: Tensor | None = None,
    pasted: InstanceData | None = None,
) -> InstanceData:
    """(RoI, class) pairs of one image above the score floor, after the per-class NMS.

    An RoI of an object that no class stands out of has its best class all the same: the labels
    are then doubtful, the object is not.

    Args:
        foreground: (N, C) boosted class scores; or (N, k), of ``classes`` alone.
        objectness: (N,) 1 - p_bg.
        decode: Boxes (P, 4) of pairs, from RoI indices (P,) and columns of ``foreground`` (P,).
        cfg: Filters.
        classes: (N, k) class of each column and row; None: column c is class c.
        pasted: Objects pasted into the image: pairs that show one of them (``apart_from``) are
            left out before they can take another's place.

    Returns:
        InstanceData with ``bboxes`` (K, 4), ``labels`` (K,), ``scores`` (K,) in descending
        order, ``roi_inds`` (K,).
    """
    # Rows without a candidate are dropped first: the pair mask is N x C otherwise.
    best, columns = foreground.max(1)
    named = (best > cfg.score_floor) | (objectness > cfg.objectness_thr)
    rows = named.nonzero().squeeze(1)
    above = foreground[rows] > cfg.score_floor
    pairs = above.scatter(1, columns[rows, None], True).nonzero()
    roi_inds, columns = rows[pairs[:, 0]], pairs[:, 1]
    values = foreground[roi_inds, columns]
    labels = columns if classes is None else classes[roi_inds, columns]
    bboxes = decode(roi_inds, columns)
    sizes = bboxes[:, 2:] - bboxes[:, :2]
    keep = ((sizes > 1).all(1)).nonzero().squeeze(1)
    if pasted is not None:
        keep = keep[apart_from(bboxes[keep], pasted.bboxes)]
    bboxes, labels, values, roi_inds = bboxes[keep], labels[keep], values[keep], roi_inds[keep]
    if len(bboxes):
        # The host moves each class by its number times the size of the image: with 13,204 classes
        # float32 would be left with whole pixels. So the classes that are here are numbered anew.
        numbers = labels.unique(return_inverse=True)[1]
        _, keep = batched_nms(
            bboxes.float(), values, numbers, dict(type='nms', iou_threshold=cfg.iou_thr)
        )
        keep = keep[: LABELS_PER_OBJECT * cfg.max_per_img]
        bboxes, labels, values, roi_inds = bboxes[keep], labels[keep], values[keep], roi_inds[keep]
    return InstanceData(bboxes=bboxes.float(), labels=labels, scores=values, roi_inds=roi_inds)


def chosen(instances: InstanceData, mask: Tensor) -> InstanceData:
    """Those of a mask (K,): with a mask as index each of the fields would wait for the device."""
    return instances[mask.nonzero().squeeze(1)]


def name_objects(found: InstanceData, state: ClassState, cfg: LabelingCfg) -> InstanceData:
    """Calibrate candidates of one image and say which of them are kept, in place.

    Args:
        found: With ``bboxes``, ``labels``, ``scores``, ``own_scores`` and ``objectness``, see
            ``TeacherView``.
        state: Thresholds and calibration.
        cfg: Filters.

    Returns:
        ``found`` with ``target_scores``, ``confidences``, ``surest``, ``kept`` and ``is_object``
        added.
    """
    above = found.scores > state.thresholds[found.labels]
    surest = _surest(found.bboxes, found.scores, above, cfg.cross_class_iou_thr)
    found.target_scores = apply_calibrator(found.scores, found.labels, state.calibration)
    found.confidences = confidences_of(found.own_scores, found.scores, found.target_scores)
    found.surest = surest
    found.kept = above & surest
    found.is_object = surest & (above | (found.objectness > cfg.objectness_thr))
    return found


def most_wanted(found: InstanceData, max_per_img: int) -> InstanceData:
    """At most so many detections of one image, in their order.

    Kept labels go first, then objects without a name by their objectness, then the surest labels
    of others, then what else a RoI may be: look-alikes of sure objects take no object's place.

    Args:
        found: As ``name_objects`` gives it.
        max_per_img: >= 1.
    """
    if len(found) <= max_per_img:
        return found
    place = torch.where(found.is_object, 2 + found.objectness, found.surest + found.scores)
    place = torch.where(found.kept, 4 + found.scores, place)
    return found[place.topk(max_per_img).indices.sort().values]


def own_scores_of(scores: Tensor, objectness: Tensor, state: ClassState) -> Tensor:
    """What the network itself says of labels, without prototypes and smoothing.

    A network that has learnt targets of 1 - epsilon says so little of a class that it is sure of.

    Args:
        scores: (K,) its class scores under ``state.own_boosts``, in [0, 1].
        objectness: (K,) 1 - p_bg, which no class exceeds.
        state: With ``confidence_gain``.

    Returns:
        (K,) in [0, 1].
    """
    return torch.minimum(scores * state.confidence_gain, objectness)


def confidences_of(own_scores: Tensor, scores: Tensor, target_scores: Tensor) -> Tensor:
    """How likely labels are right: the network's own scores, calibrated, without wanted boosts.

    A wanted boost says which labels are wanted, not that they are right, and prototypes count twice
    what the network has seen already: on the detector benchmark kept labels of rare classes are
    right in one case of ten at a boosted score of 0.6 and an own one of 0.2. What calibration found
    of the boosted scores is taken over as a ratio.

    Args:
        own_scores: (K,) in [0, 1], see ``own_scores_of``.
        scores: (K,) boosted, in (0, 1].
        target_scores: (K,) calibrated, in [0, 1].

    Returns:
        (K,) in [0, 1]; ``target_scores`` where nothing was boosted.
    """
    tiny = torch.finfo(scores.dtype).tiny
    return (own_scores * (target_scores / scores.clamp_min(tiny))).clamp(max=1)


def _surest(bboxes: Tensor, scores: Tensor, above: Tensor, iou_thr: float) -> Tensor:
    """(K,) bool: the surest detection of each object; those above their threshold go first."""
    surest = torch.zeros(len(bboxes), dtype=torch.bool, device=bboxes.device)
    if len(bboxes):
        _, keep = batched_nms(
            bboxes.float(),
            scores + above.to(scores),
            torch.zeros_like(scores, dtype=torch.long),
            dict(type='nms', iou_threshold=iou_thr),
            class_agnostic=True,
        )
        surest.index_fill_(0, keep, True)
    return surest


@torch.no_grad()
def add_masks(teacher: TwoStageDetector, view: TeacherView) -> None:
    """Give the detections ``mask_probs`` (K, S, S) of the teacher, in place.

    Meant for detections that are already filtered: the mask head runs on these alone. A
    detector without a mask head is left alone.
    """
    if not teacher.roi_head.with_mask:
        return
    rois = bbox2roi([instances.bboxes for instances in view.detections])
    labels = torch.cat([instances.labels for instances in view.detections])
    if len(rois):
        probs = roi_mask_probabilities(teacher.roi_head, view.feats, rois, labels)
        if view.mirrored is not None:
            boxes = [instances.bboxes for instances in view.detections]
            probs = (probs + view.mirrored.masks(teacher, boxes, labels)) / 2
    else:
        size = stages_of(teacher.roi_head)[-1].train_cfg.mask_size
        probs = rois.new_zeros(0, size, size)
    counts = [len(instances) for instances in view.detections]
    for instances, masks in zip(view.detections, probs.split(counts), strict=True):
        instances.mask_probs = masks
