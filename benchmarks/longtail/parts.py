"""What the configs of the arms need and the package does not have."""

from __future__ import annotations

from mmdet.models.detectors import SemiBaseDetector
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
class SupervisedPair(SemiBaseDetector):
    """Teacher and student around any detector of mmdet, learning from labelled images alone.

    For heads that ``CalibratedSoftTeacher`` does not take (Seesaw loss has outputs of its own).
    """

    unsup_scale = 0.0

    def loss(
        self,
        multi_batch_inputs: dict[str, Tensor],
        multi_batch_data_samples: dict[str, SampleList],
    ) -> dict[str, Tensor]:
        """The detector's own losses on the branch ``sup``."""
        return self.loss_by_gt_instances(multi_batch_inputs['sup'], multi_batch_data_samples['sup'])
