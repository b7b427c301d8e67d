"""Where RoIAlign (He et al., 2017, Mask R-CNN) samples a map, with mmcv's rules.

Shapes: N RoIs, B images, C channels, H x W map, P bins along an axis, S samples along an axis of
one bin (padded to the largest RoI).
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Axis(NamedTuple):
    """Sampling of N RoIs along one axis of the map.

    position: (N, P, S) sample coordinates in map cells, as the compiled op computes them.
    inside: (N, P, S) bool, the sample exists in this RoI and lies in [-1, length].
    exists: (N, P, S) bool, the sample exists in this RoI.
    low, high: (N, P, S) int64 cells left and right of the clamped sample.
    weight: (N, P, S) share of ``high``; ``low`` has the rest.
    per_bin: (N,) samples in a bin, at least 1.
    """

    position: Tensor
    inside: Tensor
    exists: Tensor
    low: Tensor
    high: Tensor
    weight: Tensor
    per_bin: Tensor


def cells_around(position: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return low cell, high cell, weight of the high cell, and if ``position`` is on the map."""
    inside = (position >= -1) & (position <= length)
    clamped = torch.where(inside, position, 0).clamp(min=0, max=length - 1)
    low = clamped.long()
    return low, (low + 1).clamp(max=length - 1), clamped - low, inside


def sample_axis(
    start: Tensor, end: Tensor, bins: int, length: int, sampling_ratio: int, aligned: bool
) -> Axis:
    """Place the samples of every RoI along one axis of a map of ``length`` cells.

    Args:
        start: (N,) first coordinate of the RoIs in map cells.
        end: (N,) last coordinate.
        bins: of an RoI along the axis.
        length: cells of the map along it.
        sampling_ratio: samples of a bin; 0: as many as it spans cells, rounded up.
        aligned: coordinates are shifted by half a cell, and RoIs may be smaller than one.

    Raises:
        RuntimeError: a RoI of negative or undefined size with ``aligned``, on the CPU (the compiled
            CUDA op does not look either; such a RoI gives zeros there).
    """
    size = end - start
    if not aligned:
        size = size.clamp(min=1)
    elif size.device.type == 'cpu' and not bool((size >= 0).all()):
        worst = int((size >= 0).logical_not().nonzero()[0])
        raise RuntimeError(
            f'RoIAlign: RoI {worst} has size {size[worst].item():g} along an axis; '
            'RoIs need x2 >= x1 and y2 >= y1'
        )
    bin_size = size / bins
    if sampling_ratio > 0:
        grid = torch.full_like(size, sampling_ratio)
    else:
        grid = bin_size.ceil().nan_to_num(0, 0, 0).clamp(min=0)
    samples = torch.arange(max(int(grid.max()), 1), device=size.device, dtype=size.dtype)
    grid = grid.view(-1, 1, 1)
    offsets = (samples + 0.5) * bin_size.view(-1, 1, 1) / grid
    bin_starts = torch.arange(bins, device=size.device, dtype=size.dtype)
    position = (start.unsqueeze(1) + bin_starts * bin_size.unsqueeze(1)).unsqueeze(2) + offsets
    exists = (samples < grid).expand_as(position)
    low, high, weight, on_map = cells_around(position, length)
    return Axis(position, on_map & exists, exists, low, high, weight, grid.view(-1).clamp(min=1))


def sample_axes(
    rois: Tensor,
    shape: torch.Size,
    bins: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> tuple[Axis, Axis]:
    """Sample RoIs (N, 5) of (image, x1, y1, x2, y2) along y and x of a map of ``shape`` BCHW."""
    corners = rois[:, 1:] * spatial_scale - (0.5 if aligned else 0.0)
    x1, y1, x2, y2 = corners.unbind(dim=1)
    return (
        sample_axis(y1, y2, bins[0], shape[2], sampling_ratio, aligned),
        sample_axis(x1, x2, bins[1], shape[3], sampling_ratio, aligned),
    )
