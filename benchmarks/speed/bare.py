"""The bare network of one iteration: its forwards and its backward, with ready-made targets.

One iteration of CalibratedSoftTeacher is watched for the RoIs that its networks are given. The bare
network runs mmdet's own passes on these RoIs, with losses on targets that are there already: no
proposals, no NMS, no assignment, no sampling, no targets, no pseudo-labels, no statistics.

Shape letters: **N** RoIs, **P** RoIs of the mask head, **C** foreground classes.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BareNetwork:
    """Forwards and backward of one iteration of a semi-supervised detector.

    Args:
        model: CalibratedSoftTeacher over a standard RoI head.
        inputs: (B, 3, H, W) images of the three branches.
        samples: Their data samples; one iteration runs here to see the RoIs.
    """

    def __init__(self, model: nn.Module, inputs: dict[str, Tensor], samples: dict[str, list]):
        self.student, self.teacher = model.student, model.teacher
        self.inputs = inputs
        self.calls = _watch(model, inputs, samples)

    def __call__(self) -> None:
        """One iteration without the optimizer's step; gradients are left in the student."""
        self._losses(self.student, 'sup', self._rois('student', 0)).backward()
        with torch.no_grad():
            x = self.teacher.extract_feat(self.inputs['unsup_teacher'])
            self.teacher.rpn_head(x)
            for kind, rois in self.calls['teacher']:
                _forward(self.teacher, kind, x, rois)
        self._losses(self.student, 'unsup_student', self._rois('student', 1)).backward()

    def _rois(self, network: str, branch: int) -> dict[str, Tensor]:
        """The first or second pass of each head of the student."""
        passes: dict[str, list[Tensor]] = {}
        for kind, rois in self.calls[network]:
            passes.setdefault(kind, []).append(rois)
        return {kind: rois[branch] for kind, rois in passes.items()}

    def _losses(self, network: nn.Module, branch: str, rois: dict[str, Tensor]) -> Tensor:
        x = network.extract_feat(self.inputs[branch])
        scores, deltas = network.rpn_head(x)
        losses = []
        for score, delta in zip(scores, deltas, strict=True):
            losses.append(F.binary_cross_entropy_with_logits(score, torch.zeros_like(score)))
            losses.append(F.l1_loss(delta, torch.zeros_like(delta)))
        results = _forward(network, 'bbox', x, rois['bbox'])
        logits, deltas = results['cls_score'], results['bbox_pred']
        labels = torch.full_like(rois['bbox'][:, 0], logits.shape[1] - 1, dtype=torch.long)
        losses.append(F.cross_entropy(logits.float(), labels))
        losses.append(F.l1_loss(deltas[:, :4], torch.zeros_like(deltas[:, :4])))
        if 'mask' in rois:
            masks = _forward(network, 'mask', x, rois['mask'])['mask_preds'][:, 0]
            empty = torch.zeros_like(masks)
            # A sum: without a RoI there is no mean.
            losses.append(F.binary_cross_entropy_with_logits(masks, empty, reduction='sum'))
        return torch.stack(losses).sum()


def _forward(network: nn.Module, kind: str, x: tuple[Tensor, ...], rois: Tensor) -> Any:
    head = network.roi_head
    return head._bbox_forward(x, rois) if kind == 'bbox' else head._mask_forward(x, rois)


def _watch(model: nn.Module, inputs: dict, samples: dict) -> dict[str, list[tuple[str, Tensor]]]:
    """(head, RoIs) of each pass of student and teacher, in their order."""
    calls: dict[str, list[tuple[str, Tensor]]] = {'student': [], 'teacher': []}
    with ExitStack() as stack:
        for name, kinds in calls.items():
            head = getattr(model, name).roi_head
            for kind in ('bbox', 'mask') if head.with_mask else ('bbox',):
                # At the extractors: all that comes after them may be done in another way.
                extractor = getattr(head, f'{kind}_roi_extractor')

                def record(module, args, *, kind=kind, kinds=kinds):
                    kinds.append((kind, args[1].detach().clone()))

                handle = extractor.register_forward_pre_hook(record)
                stack.callback(handle.remove)
        model.loss(inputs, samples)
    return calls
