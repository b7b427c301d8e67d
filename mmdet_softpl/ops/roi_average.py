"""RoIAlign with average pooling as products of small matrices.

The pooling is linear and separable: the bin (p, q) of a RoI is ``sum_y sum_x Wy[p, y] Wx[q, x]
F[y, x]``, where row p of Wy averages the bilinear weights of the bin's sample rows. So a RoI costs
two products over the window of the map that it touches, and its gradient two more.

Shapes: N RoIs, B images, C channels, H x W map, P x Q output bins, L window length along an axis
(padded to the largest RoI).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mmdet_softpl.ops.roi_sampling import Axis

# Elements of one gathered batch of windows (1 GiB of float32): bounds the memory on accelerators.
_BATCH_ELEMENTS = 2**28


def axis_weights(axis: Axis) -> tuple[Tensor, Tensor, Tensor]:
    """Turn samples into a dense matrix over the window that each RoI touches.

    Returns:
        weights: (N, P, L), bins by window cells; zero beyond a RoI's own window.
        first: (N,) int64 cell of the map where the window starts.
        extent: (N,) int64 cells in the window, 0 for a RoI off the map.
    """
    past_end = torch.iinfo(torch.long).max
    first = torch.where(axis.inside, axis.low, past_end).amin(dim=(1, 2))
    last = torch.where(axis.inside, axis.high, -1).amax(dim=(1, 2))
    extent = torch.where(last < 0, 0, last - first + 1)
    first = torch.where(last < 0, 0, first)
    share = torch.where(axis.inside, 1 / axis.per_bin.view(-1, 1, 1), 0)
    rois, bins, _ = share.shape
    weights = share.new_zeros(rois, bins, max(int(extent.max()), 1))
    origin = first.view(-1, 1, 1)
    for cell, part in ((axis.low, share * (1 - axis.weight)), (axis.high, share * axis.weight)):
        weights.scatter_add_(2, torch.where(axis.inside, cell - origin, 0), part)
    return weights, first, extent


class Windows(NamedTuple):
    """Windows of N RoIs: image index, weights, first cell and extent per axis (see above)."""

    image: Tensor
    wy: Tensor
    y0: Tensor
    height: Tensor
    wx: Tensor
    x0: Tensor
    width: Tensor


def make_windows(rois: Tensor, y: Axis, x: Axis) -> Windows:
    """Combine both axes with the image index of each RoI."""
    return Windows(rois[:, 0].long(), *axis_weights(y), *axis_weights(x))


def _channels_last(maps: Tensor, windows: Windows) -> Tensor:
    """View maps (B, C, H, W) as (B, H, W, C), copied if that pays (see inside)."""
    view = maps.permute(0, 2, 3, 1)
    read = int((windows.height * windows.width).sum())
    return view.contiguous() if read > view[..., 0].numel() else view


def _loop(windows: Windows) -> list[tuple[int, int, int, int, int, int]]:
    """Return (roi, image, y0, height, x0, width) of every RoI that touches its map."""
    columns = torch.stack(
        [windows.image, windows.y0, windows.height, windows.x0, windows.width], dim=1
    )
    return [(i, *row) for i, row in enumerate(columns.tolist()) if row[2] > 0 and row[4] > 0]


def average_forward_loop(maps: Tensor, windows: Windows, output: Tensor) -> None:
    """Fill ``output`` (N, P, Q, C), zero at entry, RoI by RoI.

    On the CPU this beats batching: the product reads the map in place.
    """
    source = _channels_last(maps, windows)
    channels = source.size(3)
    for i, image, y0, height, x0, width in _loop(windows):
        window = source[image, y0 : y0 + height, x0 : x0 + width]
        rows = windows.wy[i, :, :height] @ window.reshape(height, width * channels)
        torch.matmul(windows.wx[i, :, :width], rows.view(-1, width, channels), out=output[i])


def average_backward_loop(grad: Tensor, windows: Windows, grad_maps: Tensor) -> None:
    """Add the gradient of ``grad`` (N, P, Q, C) to ``grad_maps`` (B, C, H, W), RoI by RoI."""
    target = _channels_last(grad_maps, windows)
    bins, channels = grad.size(1), grad.size(3)
    for i, image, y0, height, x0, width in _loop(windows):
        columns = torch.matmul(windows.wx[i, :, :width].t(), grad[i])
        window = target[image, y0 : y0 + height, x0 : x0 + width]
        rows = windows.wy[i, :, :height].t() @ columns.view(bins, width * channels)
        window.add_(rows.view(height, width, channels))
    if target.data_ptr() != grad_maps.data_ptr():
        grad_maps.copy_(target.permute(0, 3, 1, 2))


def _runs(windows: Windows, channels: int) -> list[Tensor]:
    """Split the RoIs that touch their map into runs of similar windows, bounded in memory.

    Returns:
        Index tensors (M,) of RoIs. Padding a run to its largest window at most doubles each side.
    """
    height, width = windows.height.cpu(), windows.width.cpu()
    order = torch.nonzero((height > 0) & (width > 0)).squeeze(1)
    size_class = torch.stack([height[order], width[order]], dim=1).double().log2().ceil().long()
    runs = []
    for sizes in size_class.unique(dim=0):
        run = order[(size_class == sizes).all(dim=1)]
        cells = int(height[run].max()) * int(width[run].max())
        runs.extend(run.split(max(1, _BATCH_ELEMENTS // (cells * channels))))
    return [run.to(windows.image.device) for run in runs]


def _cells(windows: Windows, run: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
    """Return what one run of M RoIs gathers from maps of ``shape`` (B, H, W, C).

    Returns:
        cells: (M, L, L') int64 row of the flattened (B * H * W, C) maps. Cells beyond a RoI's own
            window repeat one inside the map; their weights are zero.
        wy: (M, P, L).
        wx: (M, Q, L').
    """
    height, width = int(windows.height[run].max()), int(windows.width[run].max())
    device = run.device
    rows = (windows.y0[run, None] + torch.arange(height, device=device)).clamp(max=shape[1] - 1)
    columns = (windows.x0[run, None] + torch.arange(width, device=device)).clamp(max=shape[2] - 1)
    base = (windows.image[run, None] * shape[1] + rows) * shape[2]
    cells = base.unsqueeze(2) + columns.unsqueeze(1)
    return cells, windows.wy[run, :, :height], windows.wx[run, :, :width]


def average_forward_batched(maps: Tensor, windows: Windows, output: Tensor) -> None:
    """Fill ``output`` as the loop does, many RoIs a kernel: for accelerators."""
    source = maps.permute(0, 2, 3, 1).contiguous()
    bins, channels = output.size(1), source.size(3)
    for run in _runs(windows, channels):
        cells, wy, wx = _cells(windows, run, source.shape)
        gathered = source.view(-1, channels)[cells]
        rows = torch.bmm(wy, gathered.flatten(2)).view(len(run), bins, -1, channels)
        output[run] = torch.matmul(wx.unsqueeze(1), rows)


def average_backward_batched(grad: Tensor, windows: Windows, grad_maps: Tensor) -> None:
    """Add to ``grad_maps`` as the loop does, many RoIs a kernel: for accelerators."""
    images, channels, height, width = grad_maps.shape
    target = grad_maps.new_zeros(images, height, width, channels)
    for run in _runs(windows, channels):
        cells, wy, wx = _cells(windows, run, target.shape)
        columns = torch.matmul(wx.transpose(1, 2).unsqueeze(1), grad[run]).flatten(2)
        rows = torch.bmm(wy.transpose(1, 2), columns)
        target.view(-1, channels).index_add_(0, cells.flatten(), rows.reshape(-1, channels))
    grad_maps.add_(target.permute(0, 3, 1, 2))
