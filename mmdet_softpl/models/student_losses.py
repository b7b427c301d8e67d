"""Losses of the student on the strong views of unlabelled images.

Shape legend: N RoIs, P positive ones, C foreground classes (background has index C),
K pseudo-instances of the whole batch, S mask size.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.task_modules.samplers import SamplingResult
from mmdet.structures import DetDataSample, SampleList
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_softpl.functional import (
    mask_quality,
    resample_roi_masks,
    soft_cross_entropy,
    soft_targets,
    warp_boxes,
    warp_mask_boxes,
)
from mmdet_softpl.models.class_logits import class_logits
from mmdet_softpl.models.roi_adapter import RoIStage, stages_of
from mmdet_softpl.models.teacher_labels import TeacherView

# The student sees less than this part of an object: its mask says nothing about the crop.
MIN_VISIBLE = 0.5
# Width and height in pixels below which an object is out of sight.
MIN_SIZE = 2.0


@dataclass
class PseudoBatch:
    """Pseudo-instances of a batch, in student coordinates and (masks) in the teacher's.

    Attributes:
        bboxes: Per image (K_i, 4) in the student's view.
        labels: Per image (K_i,).
        instances: The teacher's instances of all images joined (K,).
        starts: Index into K of each image's first instance.
        homographies: (B, 3, 3) student view -> teacher view.
        teacher_shapes: (B, 2) height and width of the teacher's view.
        feats: Feature levels of the teacher.
    """

    bboxes: list[Tensor]
    labels: list[Tensor]
    instances: InstanceData
    starts: list[int]
    homographies: Tensor
    teacher_shapes: Tensor
    feats: tuple[Tensor, ...]


def project(
    view: TeacherView, teacher_samples: SampleList, student_samples: SampleList
) -> PseudoBatch:
    """Carry the teacher's instances over into the student's views.

    With masks, boxes are those of the projected masks: the hull of a turned box is too large.
    Instances whose projected box is smaller than ``MIN_SIZE`` pixels in width or height (out
    of sight) are left out.

    Args:
        view: The teacher's detections; every one of them becomes an instance.
        teacher_samples, student_samples: With ``homography_matrix`` (original image -> view)
            and ``img_shape`` in their metainfo.
    """
    device = view.feats[0].device
    counts = [len(instances) for instances in view.detections]
    # Matrices in float64 on the CPU: nine numbers, and inverses in float32 lose pixels.
    m_teacher = torch.stack([_homography(sample) for sample in teacher_samples])
    m_student = torch.stack([_homography(sample) for sample in student_samples])
    to_student = m_student @ m_teacher.inverse()
    images = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    instances = InstanceData.cat(view.detections)
    matrices = _moved(to_student[images], device)
    shapes = _moved(_shapes(student_samples)[images], device)
    if 'mask_probs' in instances:
        boxes = warp_mask_boxes(instances.bboxes, instances.mask_probs, matrices, shapes)
    else:
        boxes = warp_boxes(instances.bboxes, matrices, shapes)
    # One wait for the device, for the whole batch: how many are in sight is known there alone.
    inside = ((boxes[:, 2:] - boxes[:, :2]) >= MIN_SIZE).all(1).cpu()
    counts = torch.bincount(images[inside], minlength=len(counts)).tolist()
    rows = inside.nonzero().squeeze(1).to(device, non_blocking=True)
    instances = instances[rows]
    return PseudoBatch(
        bboxes=list(boxes[rows].split(counts)),
        labels=list(instances.labels.split(counts)),
        instances=instances,
        starts=[0, *itertools.accumulate(counts)][:-1],
        homographies=_moved(m_teacher @ m_student.inverse(), device),
        teacher_shapes=_moved(_shapes(teacher_samples), device),
        feats=view.feats,
    )


def _moved(matrices: Tensor, device: torch.device) -> Tensor:
    """As float32 on the device; the host does not wait for it."""
    return matrices.float().to(device, non_blocking=True)


def _shapes(samples: SampleList) -> Tensor:
    """(B, 2) height and width."""
    return torch.tensor([list(sample.img_shape[:2]) for sample in samples])


def _homography(sample: DetDataSample) -> Tensor:
    """(3, 3) float64, original image -> view."""
    matrix = sample.metainfo.get('homography_matrix')
    if matrix is None:
        raise KeyError(
            "CalibratedSoftTeacher: a data sample has no 'homography_matrix'; add it to "
            'PackDetInputs(meta_keys=...) of the weak and the strong pipeline, and give each a '
            'transform that always records it, such as Resize (RandomFlip does where it flips) '
            f'(image {sample.metainfo.get("img_path")}).'
        )
    return torch.as_tensor(matrix, dtype=torch.float64)


def rpn_losses(
    student: TwoStageDetector,
    x: tuple[Tensor, ...],
    batch: PseudoBatch,
    batch_data_samples: SampleList,
) -> tuple[dict[str, Tensor], list[InstanceData]]:
    """RPN losses on the objects of a pseudo-batch, and the student's proposals."""
    samples = []
    for boxes, sample in zip(batch.bboxes, batch_data_samples, strict=True):
        copy = DetDataSample(metainfo=sample.metainfo)
        copy.gt_instances = InstanceData(
            bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.long, device=boxes.device)
        )
        samples.append(copy)
    proposal_cfg = student.train_cfg.get('rpn_proposal', student.test_cfg.rpn)
    losses, proposals = student.rpn_head.loss_and_predict(x, samples, proposal_cfg=proposal_cfg)
    renamed = {
        key if 'rpn' in key or 'loss' not in key else f'rpn_{key}': value
        for key, value in losses.items()
    }
    return renamed, proposals


def roi_losses(
    student: TwoStageDetector,
    teacher: TwoStageDetector,
    x: tuple[Tensor, ...],
    proposals: list[InstanceData],
    batch: PseudoBatch,
    batch_data_samples: SampleList,
    *,
    hard: bool,
    offsets: Tensor,
) -> dict[str, Tensor]:
    """Class, box and mask losses; one RoI sampling and one feature pass a stage for all three.

    Args:
        student, teacher: Two-stage detectors of the same make.
        x: The student's feature levels.
        proposals: The student's proposals of each image (``bboxes``).
        batch: Pseudo-instances.
        batch_data_samples: The student's data samples.
        hard: One-hot labels and binary masks of weight 1 instead of soft ones.
        offsets: (C,) added to the student's logits in the class loss only.

    Returns:
        The host's names: ``loss_cls``, ``loss_bbox``, ``loss_mask`` (with ``s0.`` and so on
        in a cascade).
    """
    losses: dict[str, Tensor] = {}
    stages = stages_of(student.roi_head)
    teacher_stages = stages_of(teacher.roi_head)
    gt_instances = [
        InstanceData(bboxes=boxes, labels=labels)
        for boxes, labels in zip(batch.bboxes, batch.labels, strict=True)
    ]
    metas = [sample.metainfo for sample in batch_data_samples]
    boxes = [result.bboxes for result in proposals]
    for i, stage in enumerate(stages):
        if stage.index is not None:
            student.roi_head.current_stage = stage.index
        sampled = [
            _sample(stage, priors, instances, [level[j][None] for level in x])
            for j, (priors, instances) in enumerate(zip(boxes, gt_instances, strict=True))
        ]
        rois = bbox2roi([result.priors for result in sampled])
        results = stage.bbox_forward(x, rois)
        targets = stage.bbox_head.get_targets(sampled, stage.train_cfg)
        rows, inds = _positives(sampled, batch.starts)
        part = class_loss(
            stage, teacher_stages[i], results['cls_score'], rois, rows, inds, batch, hard, offsets
        )
        losses.update(stage.rename(part))
        # Every instance is kept or beyond doubt an object, so all their boxes count.
        part = stage.bbox_head.loss(None, results['bbox_pred'], rois, *targets)
        losses.update(stage.rename(part))
        if stage.with_mask:
            part = mask_loss(stage, x, rois, results['bbox_feats'], rows, inds, batch, hard)
            losses.update(stage.rename(part))
        if i + 1 < len(stages):
            results.update(rois=rois, bbox_targets=targets)
            with torch.no_grad():
                refined = stage.bbox_head.refine_bboxes(sampled, results, metas)
            # None where there is no RoI. The later stages run on none as well: a rank that left
            # their parameters out of its graph would keep the others waiting.
            if refined is not None:
                boxes = [result.bboxes for result in refined]
    return losses


def _sample(
    stage: RoIStage, priors: Tensor, gt_instances: InstanceData, feats: list[Tensor]
) -> SamplingResult:
    proposals = InstanceData(priors=priors)
    assigned = stage.bbox_assigner.assign(proposals, gt_instances)
    return stage.bbox_sampler.sample(assigned, proposals, gt_instances, feats=feats)


def _positives(sampled: list[SamplingResult], starts: list[int]) -> tuple[Tensor, Tensor]:
    """(P,) RoI index of each positive, and (P,) index into K of its instance.

    From the lengths, which the host knows: a mask would make it wait for the device.
    """
    rows, inds, first = [], [], 0
    for result, start in zip(sampled, starts, strict=True):
        num_positives = len(result.pos_priors)
        rows.append(torch.arange(first, first + num_positives, device=result.pos_priors.device))
        inds.append(result.pos_assigned_gt_inds + start)
        first += num_positives + len(result.neg_priors)
    return torch.cat(rows), torch.cat(inds)


def class_loss(
    stage: RoIStage,
    teacher_stage: RoIStage,
    cls_score: Tensor,
    rois: Tensor,
    rows: Tensor,
    inds: Tensor,
    batch: PseudoBatch,
    hard: bool,
    offsets: Tensor,
) -> dict[str, Tensor]:
    """Cross entropy with soft (or one-hot) targets.

    Soft targets come from every object, also from one that the teacher sees but cannot name: its
    distribution says so. To leave those out would tilt the student toward the classes that the
    teacher is sure of. One-hot targets come from kept labels alone; what has no name
    weighs 0, since it is no background. Negatives weigh the teacher's background score
    of the same RoI (Soft Teacher, arXiv 2106.09018); positives have mmdet's ``pos_weight``, as on
    labelled images. The student's logits carry ``offsets``
    (docs/DESIGN.md: student-side correction), which inference leaves out.

    Args:
        stage: The student's stage.
        teacher_stage: The teacher's.
        cls_score: (N, C+1), or (N, C+2) of a head with objectness.
        rois: (N, 5) in the student's views.
        rows: (P,) RoI index of each positive.
        inds: (P,) index into K of its instance.
        batch: Pseudo-instances.
        hard: One-hot targets.
        offsets: (C,).
    """
    # Dense targets only where they are soft: at 13,204 classes those of all RoIs would cost as much
    # as the head.
    logits = class_logits(stage.bbox_head, cls_score) + F.pad(offsets, (0, 1))
    background = torch.full_like(rois[:, 0], stage.bbox_head.num_classes, dtype=torch.long)
    raw = F.cross_entropy(logits, background, reduction='none')
    weights = background_scores(teacher_stage, rois, batch)
    if len(rows):
        instances = batch.instances
        own = logits[rows]
        if 'is_pasted' in instances:
            # Offsets are for the teacher's errors; a pasted object's label has none.
            own = own - F.pad(offsets, (0, 1)) * instances.is_pasted[inds, None]
        if hard:
            positive = F.cross_entropy(own, instances.labels[inds], reduction='none')
            instance_weights = instances.kept.float()
        else:
            table = soft_targets(instances.score_vectors, instances.labels, instances.target_scores)
            positive = soft_cross_entropy(own, table[inds])
            instance_weights = torch.ones_like(instances.target_scores)
        pos_weight = stage.train_cfg.pos_weight
        if pos_weight > 0:
            instance_weights = instance_weights * pos_weight
        raw = raw.index_copy(0, rows, positive)
        weights = weights.index_copy(0, rows, instance_weights[inds].to(weights))
    loss = (raw * weights).sum() / weights.sum().clamp(min=1.0)
    return {'loss_cls': stage.bbox_head.loss_cls.loss_weight * loss}


@torch.no_grad()
def background_scores(teacher_stage: RoIStage, rois: Tensor, batch: PseudoBatch) -> Tensor:
    """(N,) the teacher's background probability of the student's RoIs (N, 5)."""
    if not len(rois):
        return rois.new_zeros(0)
    images = rois[:, 0].long()
    boxes = warp_boxes(rois[:, 1:], batch.homographies[images], batch.teacher_shapes[images])
    results = teacher_stage.bbox_forward(batch.feats, torch.cat([rois[:, :1], boxes], dim=1))
    logits = class_logits(teacher_stage.bbox_head, results['cls_score'])
    return logits.softmax(1)[:, -1]


def mask_loss(
    stage: RoIStage,
    x: tuple[Tensor, ...],
    rois: Tensor,
    bbox_feats: Tensor,
    rows: Tensor,
    inds: Tensor,
    batch: PseudoBatch,
    hard: bool,
) -> dict[str, Tensor]:
    """Binary cross entropy with the teacher's mask, resampled onto the student's RoIs.

    Weight of a RoI: the mean foreground probability of the teacher's mask, squared (hard: 1),
    and 0 where its class is not kept or less than half of it was in the teacher's view.

    Args:
        stage: The student's stage.
        x: The student's feature levels.
        rois: (N, 5) in the student's views.
        bbox_feats: RoI features of the box head, reused by heads that share the extractor.
        rows, inds: As in ``class_loss``.
        batch: Pseudo-instances.
        hard: Binary targets, weight 1.
    """
    instances = batch.instances
    logits = stage.class_mask_forward(x, rois, rows, bbox_feats, instances.labels[inds])
    if not len(rows):
        return {'loss_mask': logits.sum() * 0}
    images = rois[rows, 0].long()
    targets, visible = resample_roi_masks(
        instances.mask_probs,
        instances.bboxes,
        rois[rows, 1:],
        inds,
        batch.homographies[images],
        batch.teacher_shapes[images],
        size=logits.shape[-1],
    )
    weights = (instances.kept[inds] & (visible >= MIN_VISIBLE)).float()
    # Weights are a part of a whole: doubtful masks attenuate the loss, they are not averaged out.
    total = weights.sum().clamp(min=1.0)
    if hard:
        targets = (targets > 0.5).float()
    else:
        weights = weights * mask_quality(instances.mask_probs)[inds] ** 2
    raw = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction='none')
    loss = (raw.mean((1, 2)) * weights).sum() / total
    return {'loss_mask': stage.mask_head.loss_mask.loss_weight * loss}
