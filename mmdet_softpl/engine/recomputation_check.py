"""Recomputed activations, which do not go with several processes."""

from __future__ import annotations

from mmengine.dist import get_world_size
from torch import nn


def check_recomputation(student: nn.Module) -> None:
    """Refuse a backbone that keeps no activations (``with_cp``) where ranks share gradients.

    The student sees labelled and unlabelled images in one step. mmdet recomputes activations by
    torch's reentrant checkpointing, and ``DistributedDataParallel`` takes a parameter once a step
    only. It would stop at the first unlabelled images, thousands of iterations into a training.

    Args:
        student: Of a semi-supervised detector.

    Raises:
        ValueError: Names the first such module.
    """
    if get_world_size() == 1:
        return
    for name, module in student.named_modules():
        if getattr(module, 'with_cp', False) is True:
            raise ValueError(
                f'with_cp=True in student.{name}: under several processes the training would stop '
                'at the first unlabelled images ("Expected to mark a variable ready only once"). '
                'Set with_cp=False and use smaller batches, or train on one GPU.'
            )
