"""One view of mmdet's standard and cascade RoI heads: stages.

Shape legend: N RoIs, C foreground classes, K boxes, S mask size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.roi_heads.base_roi_head import BaseRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.task_modules.assigners import BaseAssigner
from mmdet.models.task_modules.samplers import BaseSampler, OHEMSampler
from mmdet.structures.bbox import bbox2roi
from mmengine.config import ConfigDict
from torch import Tensor, nn

from mmdet_softpl.models.class_logits import check_cross_entropy, class_logits, has_objectness
from mmdet_softpl.models.class_masks import class_mask_logits, predicts_one_class

HALF_PRECISION = (torch.bfloat16, torch.float16)
# Subclasses that change how losses are made; ours would silently drop what they add.
UNSUPPORTED = (
    'HybridTaskCascadeRoIHead',
    'SCNetRoIHead',
    'SparseRoIHead',
    'GridRoIHead',
    'MaskScoringRoIHead',
    'PointRendRoIHead',
    'PISARoIHead',
    'DynamicRoIHead',
    'DoubleHeadRoIHead',
    'TridentRoIHead',
    'MultiInstanceRoIHead',
)


def check_two_stage(detector: nn.Module) -> None:
    """Raise ValueError, saying what is supported, unless the detector can be a student.

    Supported: mmdet's two-stage detectors with an RPN, a ``StandardRoIHead`` or
    ``CascadeRoIHead`` (or a subclass that keeps their losses), box heads with softmax cross
    entropy or Seesaw loss, and FCN mask heads or none.
    """
    name = type(detector).__name__
    if not isinstance(detector, TwoStageDetector) or not detector.with_roi_head:
        raise ValueError(
            f'CalibratedSoftTeacher needs a two-stage detector of mmdet (Faster, Mask or Cascade '
            f'R-CNN), got {name}.'
        )
    if not detector.with_rpn:
        raise ValueError(f'CalibratedSoftTeacher: {name} has no rpn_head; add one.')
    roi_head = detector.roi_head
    kind = type(roi_head).__name__
    lineage = {cls.__name__ for cls in type(roi_head).__mro__}
    supported = isinstance(roi_head, (StandardRoIHead, CascadeRoIHead))
    if not supported or lineage & set(UNSUPPORTED):
        raise ValueError(
            f'CalibratedSoftTeacher: roi_head of type {kind} is not supported; use '
            'StandardRoIHead or CascadeRoIHead.'
        )
    for stage in stages_of(roi_head):
        head = stage.bbox_head
        if not isinstance(head, BBoxHead):
            raise ValueError(
                f'CalibratedSoftTeacher: bbox_head of type {type(head).__name__} is not supported; '
                "use one of mmdet's BBoxHead family."
            )
        if has_objectness(head):
            _check_seesaw(stage)
        else:
            check_cross_entropy(
                head.loss_cls,
                'CalibratedSoftTeacher',
                'learning from soft targets',
                'would act on labelled images alone',
            )
        if stage.with_mask and not isinstance(stage.mask_head, FCNMaskHead):
            raise ValueError(
                f'CalibratedSoftTeacher: mask_head of type {type(stage.mask_head).__name__} is not '
                'supported; use FCNMaskHead.'
            )


def _check_seesaw(stage: RoIStage) -> None:
    # mmdet's sampler asks for `loss_cls`, which its Seesaw loss does not return.
    if isinstance(stage.bbox_sampler, OHEMSampler) and not getattr(
        stage.bbox_head, 'smooths', False
    ):
        raise ValueError(
            'CalibratedSoftTeacher: OHEMSampler cannot rank RoIs by a SeesawLoss; use '
            'RandomSampler, or SmoothedCEHead with smoothing.'
        )


def keep_roi_precision(module: nn.Module, args: tuple) -> tuple:
    """Forward pre-hook of an RoI extractor: half-precision features and RoIs become float32.

    The host casts RoIs to the type of the features. bfloat16 has 8 bits for a coordinate: 1,332
    would become 1,328. In float16 the area of an RoI of more than 256 x 256 pixels is infinite, so
    that it would be pooled from the last level. mmcv's compiled CPU op knows no bfloat16 at all.
    """
    feats, *rest = args
    if feats and feats[0].dtype in HALF_PRECISION:
        feats = tuple(feat.float() for feat in feats)
    return (feats, *rest)


def keep_proposal_precision(module: nn.Module, args: tuple, output: tuple) -> tuple:
    """Forward hook of an RPN head: half-precision scores and deltas become float32.

    For the same reasons: mmcv's compiled CPU NMS knows no bfloat16, and decoded boxes would
    be rounded to 4 pixels (float16: to 1).
    """
    return tuple(
        [level.float() if level.dtype in HALF_PRECISION else level for level in levels]
        for levels in output
    )


@dataclass(frozen=True)
class RoIStage:
    """One stage of an RoI head: its parts, and its forward passes.

    A ``StandardRoIHead`` has one stage of weight 1, a ``CascadeRoIHead`` several.
    """

    roi_head: BaseRoIHead
    index: int | None
    loss_weight: float

    def _part(self, parts: Any) -> Any:
        return parts if self.index is None else parts[self.index]

    @property
    def bbox_head(self) -> BBoxHead:
        """Of this stage, as all below."""
        return self._part(self.roi_head.bbox_head)

    @property
    def with_mask(self) -> bool:
        """Whether there is a ``mask_head``."""
        return self.roi_head.with_mask

    @property
    def mask_head(self) -> FCNMaskHead:
        """The host's."""
        return self._part(self.roi_head.mask_head)

    @property
    def train_cfg(self) -> ConfigDict:
        """Of the second stage: ``assigner``, ``sampler``, ``mask_size`` ..."""
        return self._part(self.roi_head.train_cfg)

    @property
    def bbox_assigner(self) -> BaseAssigner:
        """Which object an RoI belongs to."""
        return self._part(self.roi_head.bbox_assigner)

    @property
    def bbox_sampler(self) -> BaseSampler:
        """Which RoIs are trained on."""
        return self._part(self.roi_head.bbox_sampler)

    def rename(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Host's names: ``s0.loss_cls`` in a cascade, ``loss_cls`` else; losses weighted."""
        if self.index is None:
            return losses
        return {
            f's{self.index}.{key}': value * self.loss_weight if 'loss' in key else value
            for key, value in losses.items()
        }

    def bbox_forward(self, x: tuple[Tensor, ...], rois: Tensor) -> dict[str, Tensor]:
        """``cls_score``, ``bbox_pred``, ``bbox_feats`` of rois (N, 5)."""
        if self.index is None:
            return self.roi_head._bbox_forward(x, rois)
        return self.roi_head._bbox_forward(self.index, x, rois)

    def mask_forward(
        self, x: tuple[Tensor, ...], rois: Tensor, inds: Tensor, bbox_feats: Tensor
    ) -> Tensor:
        """Mask logits (P, C or 1, S, S) of the RoIs ``rois[inds]``, inds (P,)."""
        if self.index is not None:
            return self.roi_head._mask_forward(self.index, x, rois[inds])['mask_preds']
        if self.roi_head.share_roi_extractor:
            return self.roi_head._mask_forward(x, pos_inds=inds, bbox_feats=bbox_feats)[
                'mask_preds'
            ]
        return self.roi_head._mask_forward(x, rois[inds])['mask_preds']

    def class_mask_forward(
        self,
        x: tuple[Tensor, ...],
        rois: Tensor,
        inds: Tensor,
        bbox_feats: Tensor,
        labels: Tensor,
    ) -> Tensor:
        """Mask logits (P, S, S) of the RoIs ``rois[inds]``, each of its class in labels (P,)."""
        head = self.roi_head
        passes = (StandardRoIHead._mask_forward, CascadeRoIHead._mask_forward)
        if type(head)._mask_forward not in passes or not predicts_one_class(self.mask_head):
            return select_class_masks(self.mask_forward(x, rois, inds, bbox_feats), labels)
        if self.index is None and head.share_roi_extractor:
            feats = bbox_feats[inds]
        else:
            extractor = self._part(head.mask_roi_extractor)
            feats = extractor(x[: extractor.num_inputs], rois[inds])
            if self.index is None and head.with_shared_head:
                feats = head.shared_head(feats)
        return class_mask_logits(self.mask_head, feats, labels)


def stages_of(roi_head: BaseRoIHead) -> list[RoIStage]:
    """The stages of an RoI head, first to last."""
    if isinstance(roi_head, CascadeRoIHead):
        return [
            RoIStage(roi_head, i, float(weight))
            for i, weight in enumerate(roi_head.stage_loss_weights)
        ]
    return [RoIStage(roi_head, None, 1.0)]


def missing_losses(roi_head: BaseRoIHead, present: Iterable[str]) -> dict[str, Tensor]:
    """Losses, all 0, of what the host leaves out where no RoI was sampled.

    It then returns no ``loss_cls``, and in a cascade nothing of the later stages. A rank whose
    graph lacks their parameters, or whose ``SmoothedCEHead`` counts one call fewer, keeps the
    other ranks waiting.

    Args:
        roi_head: Standard or cascade, in training mode.
        present: Names of the losses that there are.
    """
    names = set(present)
    losses: dict[str, Tensor] = {}
    for stage in stages_of(roi_head):
        head, part = stage.bbox_head, {}
        weight = next(head.parameters())
        (class_loss,) = stage.rename({'loss_cls': weight})
        # Seesaw loss comes as two, of longer names.
        if not any(name.startswith(class_loss) for name in names):
            cls_score, bbox_pred = head(weight.new_zeros(0, head.in_channels, *head.roi_feat_size))
            boxes, none = weight.new_zeros(0, 4), weight.new_zeros(0)
            part = head.loss(
                cls_score, bbox_pred, weight.new_zeros(0, 5), none.long(), none, boxes, boxes
            )
            part.setdefault('loss_cls', cls_score.sum() * 0)
        if stage.with_mask and not names >= stage.rename({'loss_mask': weight}).keys():
            mask_head = stage.mask_head
            feats = weight.new_zeros(0, mask_head.in_channels, *mask_head.roi_feat_size)
            part['loss_mask'] = mask_head(feats).sum() * 0
        losses.update({k: v for k, v in stage.rename(part).items() if k not in names})
    return losses


def score_rois(
    roi_head: BaseRoIHead,
    x: tuple[Tensor, ...],
    proposals: list[Tensor],
    batch_img_metas: list[dict],
) -> tuple[Tensor, Tensor, Tensor]:
    """Test-time class scores of proposals, through all stages.

    Args:
        roi_head: Standard or cascade.
        x: Feature levels.
        proposals: Boxes (n_i, 4) of each image.
        batch_img_metas: ``metainfo`` of each image.

    Returns:
        The (refined) rois (N, 5), class probabilities (N, C+1), deltas (N, 4 * C or 4).
    """
    rois = bbox2roi(proposals)
    last = stages_of(roi_head)[-1]
    if isinstance(roi_head, CascadeRoIHead) and len(rois):
        counts = tuple(len(boxes) for boxes in proposals)
        roi_list, logits, deltas = roi_head._refine_roi(x, rois, batch_img_metas, counts)
        probs = class_logits(last.bbox_head, torch.cat(logits)).softmax(1)
        return torch.cat(roi_list), probs, torch.cat(deltas)
    results = last.bbox_forward(x, rois)
    probs = class_logits(last.bbox_head, results['cls_score']).softmax(1)
    return rois, probs, results['bbox_pred']


def roi_mask_probabilities(
    roi_head: BaseRoIHead, x: tuple[Tensor, ...], rois: Tensor, labels: Tensor
) -> Tensor:
    """Mask probabilities (K, S, S) of the given class in each roi, mean over the stages.

    Args:
        roi_head: Standard or cascade, with a mask head.
        x: Feature levels.
        rois: (K, 5).
        labels: (K,) in [0, C).
    """
    stages, probs = stages_of(roi_head), []
    inds = torch.arange(len(rois), device=rois.device)
    for stage in stages:
        if stage.index is None and roi_head.share_roi_extractor:
            feats = roi_head.bbox_roi_extractor(x[: roi_head.bbox_roi_extractor.num_inputs], rois)
            if roi_head.with_shared_head:
                feats = roi_head.shared_head(feats)
        else:
            feats = rois
        logits = stage.class_mask_forward(x, rois, inds, feats, labels)
        probs.append(logits.float().sigmoid())
    return torch.stack(probs).mean(0)


def select_class_masks(mask_preds: Tensor, labels: Tensor) -> Tensor:
    """(P, C or 1, S, S) logits -> (P, S, S), the channel of each label (P,) in [0, C)."""
    if mask_preds.shape[1] == 1:
        return mask_preds[:, 0]
    return mask_preds[torch.arange(len(labels), device=labels.device), labels]


def class_boxes(
    head: BBoxHead,
    priors: Tensor,
    deltas: Tensor,
    roi_inds: Tensor,
    labels: Tensor,
    img_shape: tuple[int, int] | None = None,
) -> Tensor:
    """Boxes of (RoI, class) pairs, whether or not the head draws one for each class.

    Args:
        head: That predicted ``deltas``.
        priors: (N, 4) boxes of the RoIs.
        deltas: (N, 4 * C) or (N, 4).
        roi_inds: (P,) int64 in [0, N).
        labels: (P,) int64 in [0, C).
        img_shape: Height and width that boxes are clipped to; None: they are not.

    Returns:
        (P, 4), x1 y1 x2 y2 in pixels of the view.
    """
    # unflatten: view(-1) cannot tell the shape where there is no RoI.
    deltas = deltas.unflatten(1, (-1, 4))
    columns = labels if deltas.shape[1] > 1 else torch.zeros_like(labels)
    return head.bbox_coder.decode(priors[roi_inds], deltas[roi_inds, columns], max_shape=img_shape)
