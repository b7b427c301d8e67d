"""RoIAlign with the calling convention of mmcv's extension: picks the way, handles the dtypes.

Shapes: N RoIs, B images, C channels, H x W map, P x Q output bins.
"""

import torch
from torch import Tensor

from mmdet_softpl.ops.roi_average import average_backward, average_forward, make_windows
from mmdet_softpl.ops.roi_max import max_backward, max_forward
from mmdet_softpl.ops.roi_sampling import sample_axes
from mmdet_softpl.ops.torchvision import why_unusable

_MAX, _AVG = 0, 1


def _by_torchvision(device: torch.device) -> bool:
    """Say if average pooling goes through torchvision: on CUDA, where its ops work.

    Its CUDA backward adds atomically and refuses to run under
    ``torch.use_deterministic_algorithms(True)``; the plain one has a deterministic way.
    """
    if device.type != 'cuda' or torch.are_deterministic_algorithms_enabled():
        return False
    return why_unusable(device.type) is None


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """RoIAlign with the calling convention of ``mmcv._ext.roi_align_forward``.

    Half precision (fp16 and bf16, also under autocast) is computed in float32, float64 in float64.

    Args:
        input: (B, C, H, W) maps.
        rois: (N, 5) of (image index, x1, y1, x2, y2) in input pixels.
        output: (N, C, P, Q), written in place.
        argmax_y: (N, C, P, Q) for max pooling, written in place: map coordinate of the winning
            sample, -1 for none; empty for average pooling.
        argmax_x: the same along x.
        aligned_height: P.
        aligned_width: Q.
        spatial_scale: map cells an input pixel, above 0.
        sampling_ratio: samples an axis and bin; 0 means one a map cell, rounded up.
        pool_mode: 0 maximum, 1 average.
        aligned: shift by half a cell and keep the RoI's true size; else a RoI is at least one cell.

    Raises:
        RuntimeError: a RoI of negative or undefined size (with ``aligned``, on the CPU).
    """
    if output.numel() == 0:
        return
    dtype = torch.promote_types(input.dtype, torch.float32)
    maps, rois = input.detach().to(dtype), rois.detach().to(dtype)
    bins = (aligned_height, aligned_width)
    with torch.autocast(input.device.type, enabled=False):
        if pool_mode == _AVG and _by_torchvision(input.device):
            op = torch.ops.torchvision.roi_align
            output.copy_(op(maps, rois, spatial_scale, *bins, sampling_ratio, aligned))
            return
        y, x = sample_axes(rois, input.shape, bins, spatial_scale, sampling_ratio, aligned)
        if pool_mode == _MAX:
            max_forward(maps, rois[:, 0].long(), y, x, (output, argmax_y, argmax_x))
            return
        pooled = average_forward(maps, make_windows(rois, y, x))
        output.copy_(pooled.permute(0, 3, 1, 2))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Gradient of :func:`roi_align_forward` for ``input``, added to ``grad_input`` in place.

    Args:
        grad_output: (N, C, P, Q).
        rois: (N, 5), as all below those of the forward pass.
        argmax_y: (N, C, P, Q) as it left it, for ``pool_mode`` 0.
        argmax_x: Likewise.
        grad_input: (B, C, H, W).
        aligned_height: P.
        aligned_width: Q.
        spatial_scale: Map cells of a pixel.
        sampling_ratio: Samples of a bin along an axis; 0: as many as it spans cells.
        pool_mode: 0 for the largest sample, 1 for the mean.
        aligned: Coordinates are shifted by half a cell.

    Raises:
        RuntimeError: as the forward pass.
    """
    if grad_output.numel() == 0:
        return
    dtype = torch.promote_types(grad_output.dtype, torch.float32)
    grad, rois, maps = grad_output.to(dtype), rois.to(dtype), grad_input.to(dtype)
    bins = (aligned_height, aligned_width)
    with torch.autocast(grad_input.device.type, enabled=False):
        if pool_mode == _MAX:
            image = rois[:, 0].long()
            max_backward(grad, image, argmax_y.to(dtype), argmax_x.to(dtype), maps)
        elif _by_torchvision(grad_input.device):
            op = torch.ops.torchvision._roi_align_backward
            settings = (spatial_scale, *bins, *grad_input.shape, sampling_ratio, aligned)
            maps.add_(op(grad, rois, *settings))
        else:
            y, x = sample_axes(rois, grad_input.shape, bins, spatial_scale, sampling_ratio, aligned)
            grad = grad.permute(0, 2, 3, 1).contiguous()
            average_backward(grad, make_windows(rois, y, x), maps)
        if maps is not grad_input:
            grad_input.copy_(maps)
