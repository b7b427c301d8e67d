"""RoIAlign with average pooling as products of small matrices.

The pooling is linear and separable: the bin (p, q) of a RoI is ``sum_y sum_x Wy[p, y] Wx[q, x]
F[y, x]``, where row p of Wy averages the bilinear weights of the bin's sample rows. So a RoI costs
two products over the window of the map that it touches, and its gradient two more.

Shapes: N RoIs, B images, C channels, H x W map, P x Q output bins, L window length along an axis
(padded to the largest RoI).
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mmdet_softpl.ops.roi_sampling import Axis

# Elements of one gathered batch of windows (64 MiB of float32): bounds the memory.
_BATCH_ELEMENTS = 2**24
# Cells times channels of a window up to which a CPU gathers it (benchmarks/ops).
_SMALL_WINDOW = 2**14


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


class _Batch(NamedTuple):
    """Gathered windows of M RoIs.

    rois: (M,) int64.
    cells: (M, H', W') int64 rows of the flattened (B * H * W, C) maps.
    wy: (M, P, H').
    wx: (M, Q, W').
    """

    rois: Tensor
    cells: Tensor
    wy: Tensor
    wx: Tensor


class _Run(NamedTuple):
    """RoIs of similar windows. M of them in ``rois`` (index tensor), largest window H' x W'."""

    rois: Tensor
    height: int
    width: int


def _runs(windows: Windows) -> list[_Run]:
    """Group the RoIs that touch their map so that padding at most doubles a window's sides."""
    height, width = windows.height.cpu(), windows.width.cpu()
    order = torch.nonzero((height > 0) & (width > 0)).squeeze(1)
    side = torch.stack([height[order], width[order]], dim=1)
    size_class = side.double().log2().ceil().long()
    runs = []
    for sizes in size_class.unique(dim=0):
        members = (size_class == sizes).all(dim=1)
        rois = order[members].to(windows.image.device)
        largest = side[members].amax(dim=0).tolist()
        runs.append(_Run(rois, largest[0], largest[1]))
    return runs


def _gathers(run: _Run, channels: int, device: torch.device) -> bool:
    """Say if a run goes through gathered batches (True) or RoI by RoI in place (False).

    Batches save the overhead of a call a RoI, and cost a copy of every window. On an accelerator
    the overhead always dominates, on the CPU only for small windows.
    """
    return device.type != 'cpu' or run.height * run.width * channels <= _SMALL_WINDOW


def _batches(run: _Run, windows: Windows, shape: tuple[int, ...]) -> Iterator[_Batch]:
    """Split a run so that a batch of windows of maps ``shape`` (B, H, W, C) stays bounded."""
    _, height, width, channels = shape
    device = run.rois.device
    window = torch.arange(run.height, device=device), torch.arange(run.width, device=device)
    for rois in run.rois.split(max(1, _BATCH_ELEMENTS // (run.height * run.width * channels))):
        # Cells past a RoI's own window repeat one of the map: their weights are zero.
        rows = (windows.y0[rois, None] + window[0]).clamp_(max=height - 1)
        columns = (windows.x0[rois, None] + window[1]).clamp_(max=width - 1)
        base = (windows.image[rois, None] * height + rows) * width
        cells = base.unsqueeze(2) + columns.unsqueeze(1)
        yield _Batch(
            rois, cells, windows.wy[rois, :, : run.height], windows.wx[rois, :, : run.width]
        )


def _placed(run: _Run, windows: Windows) -> Iterator[tuple[int, int, slice, slice]]:
    """Yield (RoI, image, rows, columns) for each RoI of a run: its own window on the map."""
    table = torch.stack(
        [windows.image, windows.y0, windows.height, windows.x0, windows.width], dim=1
    )
    for i, (image, y0, height, x0, width) in zip(
        run.rois.tolist(), table[run.rois].tolist(), strict=True
    ):
        yield i, image, slice(y0, y0 + height), slice(x0, x0 + width)


def _is_sparse(windows: Windows, maps: Tensor) -> bool:
    """Say if the windows hold fewer cells than the maps, so that copying the maps does not pay."""
    return int((windows.height * windows.width).sum()) < maps[:, 0].numel()


def average_forward(maps: Tensor, windows: Windows) -> Tensor:
    """Pool maps (B, C, H, W) with the weights of N windows.

    Returns:
        (N, P, Q, C); zeros for a RoI off its map.
    """
    source = maps.permute(0, 2, 3, 1)
    sparse = source.device.type == 'cpu' and _is_sparse(windows, maps)
    if not sparse:
        source = source.contiguous()
    channels, bins = source.size(3), windows.wy.size(1)
    output = maps.new_zeros(len(windows.image), bins, windows.wx.size(1), channels)
    for run in _runs(windows):
        if not sparse and _gathers(run, channels, maps.device):
            for rois, cells, wy, wx in _batches(run, windows, source.shape):
                gathered = source.view(-1, channels)[cells]
                rows = torch.bmm(wy, gathered.flatten(2)).view(len(rois), bins, -1, channels)
                output[rois] = torch.matmul(wx.unsqueeze(1), rows)
        else:
            for i, image, y, x in _placed(run, windows):
                window = source[image, y, x]
                height, width, _ = window.shape
                rows = windows.wy[i, :, :height] @ window.reshape(height, -1)
                torch.matmul(
                    windows.wx[i, :, :width], rows.view(bins, width, channels), out=output[i]
                )
    return output


def average_backward(grad: Tensor, windows: Windows, grad_maps: Tensor) -> None:
    """Add the gradient of :func:`average_forward` for ``grad`` (N, P, Q, C) to ``grad_maps``.

    Args:
        grad: (N, P, Q, C).
        windows: Those of the forward pass.
        grad_maps: (B, C, H, W), changed in place.
    """
    images, channels, height, width = grad_maps.shape
    sparse = grad.device.type == 'cpu' and _is_sparse(windows, grad_maps)
    if sparse:
        target = grad_maps.permute(0, 2, 3, 1)
    else:
        target = grad_maps.new_zeros(images, height, width, channels)
    for run in _runs(windows):
        if not sparse and _gathers(run, channels, grad.device):
            for rois, cells, wy, wx in _batches(run, windows, target.shape):
                columns = torch.matmul(wx.transpose(1, 2).unsqueeze(1), grad[rois]).flatten(2)
                rows = torch.bmm(wy.transpose(1, 2), columns)
                target.view(-1, channels).index_add_(0, cells.flatten(), rows.view(-1, channels))
        else:
            for i, image, y, x in _placed(run, windows):
                window = target[image, y, x]
                columns = torch.matmul(windows.wx[i, :, : window.size(1)].t(), grad[i])
                rows = windows.wy[i, :, : window.size(0)].t() @ columns.flatten(1)
                window.add_(rows.view_as(window))
    if not sparse:
        grad_maps.add_(target.permute(0, 3, 1, 2))
