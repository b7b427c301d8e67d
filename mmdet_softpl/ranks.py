"""Sums over ranks."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def sum_over_ranks(*tensors: Tensor) -> None:
    """Replace each tensor, in place, by its sum over all ranks; alone, do nothing."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)
