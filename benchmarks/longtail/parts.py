"""What the configs of the arms need and the package does not have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mmdet.models.detectors import SoftTeacher
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.utils import reweight_loss_dict
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from benchmarks.longtail import batches  # noqa: F401  (registers the sampler)


@HOOKS.register_module()
class UnlabeledSwitch(Hook):
    """No unlabelled image in the batch, no unsupervised loss.

    So a supervised arm is the semi-supervised one without unlabelled images: same labelled
    batches, same schedule, and the same moving average as its teacher. Stands behind
    ``BurnInMeanTeacherHook``, which sets ``unsup_scale`` first.
    """

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Take branches without an image out of the batch; ``unsup_scale`` 0 if there are any."""
        assert data_batch is not None
        for branches in data_batch.values():
            for name in [k for k, v in branches.items() if all(item is None for item in v)]:
                # mmdet's preprocessor would stack an empty list.
                del branches[name]
                runner.model.unsup_scale = 0.0


@MODELS.register_module()
class BoxesSoftTeacher(SoftTeacher):
    """mmdet's ``SoftTeacher`` around a detector with a mask head, with a burn-in before it.

    ``SoftTeacher`` asks the mask head for pseudo-masks and then cannot use them, so the head is
    out of its sight while it deals with unlabelled images.
    """

    unsup_scale = 1.0

    def get_pseudo_instances(
        self, batch_inputs: Tensor, batch_data_samples: SampleList
    ) -> tuple[SampleList, dict | None]:
        """The host's, boxes alone."""
        with without_masks(self.teacher.roi_head):
            return super().get_pseudo_instances(batch_inputs, batch_data_samples)

    def loss_by_pseudo_instances(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, batch_info: dict | None = None
    ) -> dict[str, Tensor]:
        """The host's, boxes alone, with the weight that the burn-in's end brings in."""
        with without_masks(self.student.roi_head), without_masks(self.teacher.roi_head):
            losses = super().loss_by_pseudo_instances(batch_inputs, batch_data_samples, batch_info)
        return reweight_loss_dict(losses, self.unsup_scale)


@contextmanager
def without_masks(roi_head: StandardRoIHead) -> Iterator[None]:
    """Hide the mask head; None keeps its place among the modules."""
    head = roi_head.mask_head
    roi_head.mask_head = None
    try:
        yield
    finally:
        roi_head.mask_head = head
