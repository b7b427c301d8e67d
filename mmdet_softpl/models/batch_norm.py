"""Batch statistics, which a teacher that averages parameters alone does not get."""

from __future__ import annotations

from torch import nn


def keeps_statistics(module: nn.Module) -> bool:
    """Whether a module is a batch norm with running statistics, of torch or (SyncBN) of mmcv.

    The latter has another base class, so what it holds is asked.
    """
    return getattr(module, 'running_mean', None) is not None


def trains_batch_norm(network: nn.Module) -> bool:
    """Whether training the network moves statistics of a batch norm.

    ``norm_eval`` backbones switch theirs off in ``train()`` only, so that is asked; the modes
    are the same afterwards.
    """
    were_training = {module: module.training for module in network.modules()}
    network.train()
    found = any(keeps_statistics(module) and module.training for module in network.modules())
    for module, training in were_training.items():
        module.training = training
    return found


def check_statistics_moved(teacher: nn.Module) -> None:
    """Refuse a teacher whose batch statistics never left their start.

    mmdet's MeanTeacherHook skips buffers (open-mmlab/mmdetection#10223): the teacher then
    normalises with mean 0 and variance 1 for ever and finds nothing.

    Raises:
        RuntimeError: A running mean is all zeros.
    """
    for name, module in teacher.named_modules():
        if keeps_statistics(module) and not bool(module.running_mean.any()):
            raise RuntimeError(
                f'CalibratedSoftTeacher: teacher.{name} has batch norm whose statistics do not '
                'follow the student. Use mmdet_softpl.BurnInMeanTeacherHook, or '
                'norm_eval=True in the backbone.'
            )
