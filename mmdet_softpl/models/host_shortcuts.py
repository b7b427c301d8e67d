"""What the host computes for anchors and RoIs, in fewer steps and to the same values.

On a GPU an iteration is as long as the host needs to launch it: mmdet's assigner asks the device
for a number once for every object, and its generator makes the same grids of anchors five times.

Shape letters: **G** objects of an image, **A** anchors or RoIs.
"""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.losses import CrossEntropyLoss, L1Loss, SmoothL1Loss
from mmdet.models.task_modules.assigners import AssignResult, MaxIoUAssigner
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmengine.structures import InstanceData
from torch import Tensor


class OneWaitAssigner(MaxIoUAssigner):
    """mmdet's ``MaxIoUAssigner`` that waits for the device once an image, not once an object."""

    @classmethod
    def of(cls, assigner: Any) -> Any:
        """One with the settings of a ``MaxIoUAssigner``; any other assigner as it is."""
        if type(assigner) is not MaxIoUAssigner or not assigner.gt_max_assign_all:
            return assigner
        if not isinstance(assigner.neg_iou_thr, (float, tuple)):
            return assigner
        made = cls.__new__(cls)
        made.__dict__.update(assigner.__dict__)
        return made

    def assign_wrt_overlaps(self, overlaps: Tensor, gt_labels: Tensor) -> AssignResult:
        """As the host's.

        Args:
            overlaps: (G, A) IoU, or -1 for what is to be ignored.
            gt_labels: (G,).
        """
        num_gts, num_priors = overlaps.shape
        if num_gts == 0 or num_priors == 0:
            return super().assign_wrt_overlaps(overlaps, gt_labels)
        max_overlaps, best = overlaps.max(dim=0)
        low, high = (
            self.neg_iou_thr if isinstance(self.neg_iou_thr, tuple) else (0, self.neg_iou_thr)
        )
        negative = (max_overlaps >= low) & (max_overlaps < high)
        gt_inds = torch.where(negative, 0, -1)
        gt_inds = torch.where(max_overlaps >= self.pos_iou_thr, best + 1, gt_inds)
        if self.match_low_quality:
            most = overlaps.amax(dim=1, keepdim=True)
            gts, priors = ((overlaps == most) & (most >= self.min_pos_iou)).nonzero().unbind(1)
            # The host goes through the objects in turn, so the last one of an anchor stays.
            gt_inds.scatter_reduce_(0, priors, gts + 1, 'amax', include_self=False)
        labels = gt_labels[(gt_inds - 1).clamp_(min=0)]
        return AssignResult(
            num_gts=num_gts,
            gt_inds=gt_inds,
            max_overlaps=max_overlaps,
            labels=torch.where(gt_inds > 0, labels, -1),
        )


class RememberedGrids:
    """``AnchorGenerator.single_level_grid_priors`` that makes a grid again only if it must grow.

    Args:
        generator: Whose grids.
    """

    def __init__(self, generator: AnchorGenerator) -> None:
        self.generator = generator
        self._grids: dict[tuple, Tensor] = {}

    def __call__(
        self,
        featmap_size: tuple[int, int],
        level_idx: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = 'cuda',
    ) -> Tensor:
        """(A, 4) anchors of a level; a copy, which the caller may change."""
        host = AnchorGenerator.single_level_grid_priors
        height, width = featmap_size
        # A traced size is no number, and a traced grid must not outlive its trace.
        if torch.jit.is_tracing():
            return host(self.generator, featmap_size, level_idx, dtype=dtype, device=device)
        key = (level_idx, dtype, torch.device(device))
        grid = self._grids.get(key)
        rows, columns = (0, 0) if grid is None else grid.shape[:2]
        if grid is None or rows < height or columns < width:
            size = (max(rows, height), max(columns, width))
            anchors = host(self.generator, size, level_idx, dtype=dtype, device=device)
            grid = anchors.view(*size, self.generator.num_base_priors[level_idx], 4)
            self._grids[key] = grid
        return grid[:height, :width].clone().view(-1, 4)


class AllValid:
    """``AnchorGenerator.single_level_valid_flags``, in one step where all anchors are valid.

    Args:
        generator: Whose flags.
    """

    def __init__(self, generator: AnchorGenerator) -> None:
        self.generator = generator

    def __call__(
        self,
        featmap_size: tuple[int, int],
        valid_size: tuple[int, int],
        num_base_anchors: int,
        device: torch.device | str = 'cuda',
    ) -> Tensor:
        """(A,) bool."""
        if tuple(featmap_size) == tuple(valid_size):
            count = featmap_size[0] * featmap_size[1] * num_base_anchors
            return torch.ones(count, dtype=torch.bool, device=device)
        return AnchorGenerator.single_level_valid_flags(
            self.generator, featmap_size, valid_size, num_base_anchors, device=device
        )


class JointRPNLoss:
    """``RPNHead.loss_by_feat`` with one loss over the anchors of all levels.

    The host's levels share one ``avg_factor``, so the sum of their losses is the loss of all.

    Args:
        rpn_head: Whose loss.
    """

    # Their losses are sums over anchors, divided by avg_factor.
    ADDITIVE = (CrossEntropyLoss, L1Loss, SmoothL1Loss)

    def __init__(self, rpn_head: RPNHead) -> None:
        self.rpn_head = rpn_head

    @classmethod
    def fits(cls, rpn_head: RPNHead) -> bool:
        """Whether the loss of all levels is the sum of those of each."""
        losses = (rpn_head.loss_cls, rpn_head.loss_bbox)
        return not rpn_head.reg_decoded_bbox and all(
            type(loss) in cls.ADDITIVE and loss.reduction == 'mean' for loss in losses
        )

    def __call__(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_gt_instances: list[InstanceData],
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: list[InstanceData] | None = None,
    ) -> dict[str, list[Tensor]]:
        """``loss_rpn_cls`` and ``loss_rpn_bbox``, arguments as the host's."""
        rpn = self.rpn_head
        # Its losses may have been replaced since.
        if not self.fits(rpn):
            return RPNHead.loss_by_feat(
                rpn,
                cls_scores,
                bbox_preds,
                batch_gt_instances,
                batch_img_metas,
                batch_gt_instances_ignore=batch_gt_instances_ignore,
            )
        sizes = [level.shape[-2:] for level in cls_scores]
        anchors, flags = rpn.get_anchors(sizes, batch_img_metas, device=cls_scores[0].device)
        *targets, avg_factor = rpn.get_targets(
            anchors,
            flags,
            batch_gt_instances,
            batch_img_metas,
            batch_gt_instances_ignore=batch_gt_instances_ignore,
        )
        labels, label_weights, bbox_targets, bbox_weights = (
            torch.cat(levels, dim=1).flatten(0, 1) for levels in targets
        )
        scores = _joined(cls_scores, rpn.cls_out_channels)
        deltas = _joined(bbox_preds, rpn.bbox_coder.encode_size)
        loss_cls = rpn.loss_cls(scores, labels, label_weights, avg_factor=avg_factor)
        loss_bbox = rpn.loss_bbox(deltas, bbox_targets, bbox_weights, avg_factor=avg_factor)
        return dict(loss_rpn_cls=[loss_cls], loss_rpn_bbox=[loss_bbox])


def _joined(levels: list[Tensor], channels: int) -> Tensor:
    """(B, anchors of a cell * channels, H, W) of each level -> (B * A, channels)."""
    parts = [level.permute(0, 2, 3, 1).reshape(len(level), -1, channels) for level in levels]
    return torch.cat(parts, dim=1).flatten(0, 1)


def take_shortcuts(detector: TwoStageDetector) -> None:
    """Let a detector take them, in place; parts of other types than the host's stay as they are."""
    rpn = detector.rpn_head
    if type(rpn) is RPNHead:
        generator = rpn.prior_generator
        if type(generator) is AnchorGenerator and not generator.use_box_type:
            generator.single_level_grid_priors = RememberedGrids(generator)
            generator.single_level_valid_flags = AllValid(generator)
        rpn.loss_by_feat = JointRPNLoss(rpn)
        if hasattr(rpn, 'assigner'):
            rpn.assigner = OneWaitAssigner.of(rpn.assigner)
    roi_head = detector.roi_head
    assigner = getattr(roi_head, 'bbox_assigner', None)
    if isinstance(assigner, list):
        roi_head.bbox_assigner = [OneWaitAssigner.of(part) for part in assigner]
    elif assigner is not None:
        roi_head.bbox_assigner = OneWaitAssigner.of(assigner)
