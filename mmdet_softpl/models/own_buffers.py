"""Buffers that each rank fills on its own."""

from __future__ import annotations

from mmdet.models.losses import SeesawLoss
from torch import nn

from mmdet_softpl.models.class_state import ClassState
from mmdet_softpl.models.smoothed_ce_head import SmoothedCEHead


def own_buffers(model: nn.Module) -> list[str]:
    """Names of the buffers that DDP has to leave alone.

    With ``broadcast_buffers=True`` it would overwrite every rank's by those of rank 0.

    Args:
        model: Its own buffers count, those of its other children only where they are statistics.
    """
    return [
        f'{path}.{name}' if path else name
        for path, module in model.named_modules()
        if module is model or isinstance(module, (ClassState, SmoothedCEHead, SeesawLoss))
        for name, _ in module.named_buffers(recurse=False)
    ]
