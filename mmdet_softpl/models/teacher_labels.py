"""The teacher's detections, scored for pseudo-labelling.

Shape legend: N RoIs, C foreground classes (background has index C), K pseudo-instances,
S mask size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from mmcv.ops import batched_nms
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.roi_heads.base_roi_head import BaseRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_softpl.functional import apply_calibrator, boost_scores, prototype_log_evidence
from mmdet_softpl.models.class_state import ClassState
from mmdet_softpl.models.roi_adapter import roi_mask_probabilities, score_rois, stages_of
from mmdet_softpl.models.smoothed_ce_head import SmoothedCEHead


@dataclass(frozen=True)
class LabelingCfg:
    """How detections become pseudo-instances; the values of ``semi_train_cfg``.

    Attributes:
        score_floor: Detections below it are never looked at, in [0, 1].
        iou_thr: IoU of the per-class NMS, in (0, 1].
        cross_class_iou_thr: Of two detections with a larger IoU, whatever their classes,
            only the surest is an object's label, in (0, 1].
        max_per_img: Detections of an image at most.
        objectness_thr: Objects for RPN and box losses have 1 - p_bg above it, in [0, 1].
    """

    score_floor: float = 0.05
    iou_thr: float = 0.5
    cross_class_iou_thr: float = 0.5
    max_per_img: int = 100
    objectness_thr: float = 0.7


@dataclass
class TeacherView:
    """What the teacher saw of one batch of weak views.

    Attributes:
        feats: Feature levels.
        detections: For each image, InstanceData in view coordinates with ``bboxes`` (K, 4),
            ``labels`` (K,), ``scores`` (K,) boosted class scores, ``score_vectors`` (K, C+1),
            ``objectness`` (K,) = 1 - p_bg, ``confidences`` (K,) calibrated scores,
            ``surest`` (K,) bool: the surest label of its object; ``kept`` (K,) bool: that, and
            above the threshold of its class; ``is_object`` (K,) bool: that, and kept or of
            enough objectness. After ``add_masks`` also ``mask_probs`` (K, S, S).
    """

    feats: tuple[Tensor, ...]
    detections: list[InstanceData]


def evidence_of(roi_head: BaseRoIHead, weights: Tensor, num_rois: int) -> Tensor | None:
    """Weighted prototype log-evidence (N, C) of the RoIs in the last forward pass.

    None where the head keeps no prototypes, or keeps other features than those N RoIs.
    The blend of classifier and prototypes per class follows DASO (arXiv 2106.05682).
    """
    head = stages_of(roi_head)[-1].bbox_head
    if not isinstance(head, SmoothedCEHead) or not head.keeps_prototypes:
        return None
    features = head.penultimate_features
    if features is None or len(features) != num_rois:
        return None
    evidence = prototype_log_evidence(
        features.float(), head.prototypes, head.prototype_counts, head.temperature
    )
    # Relative to a uniform guess: above 0 where the prototypes speak for a class, so that a
    # class of weight 0 neither gains nor loses on one of weight 1.
    valid = (head.prototype_counts > 0).sum().clamp(min=1)
    return weights * (evidence + valid.log())


@torch.no_grad()
def teacher_detect(
    teacher: TwoStageDetector,
    batch_inputs: Tensor,
    batch_data_samples: SampleList,
    state: ClassState,
    cfg: LabelingCfg,
) -> TeacherView:
    """Detect, boost, prefilter by the score floor, then NMS: never over every (RoI, class) pair.

    Args:
        teacher: A two-stage detector in eval mode.
        batch_inputs: (B, 3, H, W) normalised images.
        batch_data_samples: Their data samples (only ``metainfo`` is read).
        state: Boosts, thresholds and calibration.
        cfg: Filters.

    Returns:
        All detections above ``cfg.score_floor``, without masks.
    """
    x = teacher.extract_feat(batch_inputs)
    proposals = teacher.rpn_head.predict(x, batch_data_samples, rescale=False)
    metas = [sample.metainfo for sample in batch_data_samples]
    boxes = [result.bboxes for result in proposals]
    rois, scores, deltas = score_rois(teacher.roi_head, x, boxes, metas)
    evidence = evidence_of(teacher.roi_head, state.prototype_weights, len(rois))
    scores = boost_scores(scores, state.boosts, evidence)
    head = stages_of(teacher.roi_head)[-1].bbox_head
    detections, start = [], 0
    for meta, proposal in zip(metas, boxes, strict=True):
        end = start + len(proposal)
        detections.append(
            _select(
                head, rois[start:end, 1:], scores[start:end], deltas[start:end], meta, state, cfg
            )
        )
        start = end
    return TeacherView(x, detections)


def _select(
    head: BBoxHead,
    priors: Tensor,
    scores: Tensor,
    deltas: Tensor,
    meta: dict,
    state: ClassState,
    cfg: LabelingCfg,
) -> InstanceData:
    """Detections of one image, see ``TeacherView``."""
    c = state.num_classes
    foreground = scores[:, :c]
    # Rows without a candidate are dropped first: the pair mask is N x C otherwise.
    rows = (foreground.amax(1) > cfg.score_floor).nonzero().squeeze(1)
    pairs = (foreground[rows] > cfg.score_floor).nonzero()
    roi_inds, labels = rows[pairs[:, 0]], pairs[:, 1]
    values = foreground[roi_inds, labels]
    # unflatten: view(-1) cannot tell the shape where there is no RoI.
    deltas = deltas.unflatten(1, (-1, 4))
    chosen = deltas[roi_inds, labels if deltas.shape[1] > 1 else torch.zeros_like(labels)]
    bboxes = head.bbox_coder.decode(priors[roi_inds], chosen, max_shape=meta['img_shape'])
    sizes = bboxes[:, 2:] - bboxes[:, :2]
    keep = ((sizes > 1).all(1)).nonzero().squeeze(1)
    bboxes, labels, values, roi_inds = bboxes[keep], labels[keep], values[keep], roi_inds[keep]
    if len(bboxes):
        _, keep = batched_nms(
            bboxes.float(), values, labels, dict(type='nms', iou_threshold=cfg.iou_thr)
        )
        keep = keep[: cfg.max_per_img]
        bboxes, labels, values, roi_inds = bboxes[keep], labels[keep], values[keep], roi_inds[keep]
    vectors = scores[roi_inds]
    objectness = 1 - vectors[:, c]
    above = values > state.thresholds[labels]
    surest = _surest(bboxes, values, above, cfg.cross_class_iou_thr)
    return InstanceData(
        bboxes=bboxes.float(),
        labels=labels,
        scores=values,
        score_vectors=vectors,
        objectness=objectness,
        confidences=apply_calibrator(values, labels, state.calibration),
        surest=surest,
        kept=above & surest,
        is_object=surest & (above | (objectness > cfg.objectness_thr)),
    )


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
        surest[keep] = True
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
    else:
        size = stages_of(teacher.roi_head)[-1].train_cfg.mask_size
        probs = rois.new_zeros(0, size, size)
    counts = [len(instances) for instances in view.detections]
    for instances, masks in zip(view.detections, probs.split(counts), strict=True):
        instances.mask_probs = masks
