"""RoIAlign with maximum pooling: the largest sample of each bin.

Shapes: N RoIs, B images, C channels, H x W map, P x Q output bins.
"""

import torch
from torch import Tensor

from mmdet_softpl.ops.roi_sampling import Axis, cells_around

# The compiled op starts its maximum here, so an empty bin or one of smaller values holds it.
_MAX_START = -10000.0


def _flat_corners(y: list[Tensor], x: list[Tensor], width: int) -> list[tuple[Tensor, Tensor]]:
    """Return (cell in the flattened map, bilinear weight) of the four corners around samples.

    Args:
        y: low cell, high cell and weight of the high cell along y, broadcastable with those of x.
        x: the same along x.
    """
    (y_low, y_high, ly), (x_low, x_high, lx) = y, x
    return [
        (y_low * width + x_low, (1 - ly) * (1 - lx)),
        (y_low * width + x_high, (1 - ly) * lx),
        (y_high * width + x_low, ly * (1 - lx)),
        (y_high * width + x_high, ly * lx),
    ]


def max_forward(
    maps: Tensor, image: Tensor, y: Axis, x: Axis, outputs: tuple[Tensor, Tensor, Tensor]
) -> None:
    """Write maximum and its sample's coordinates (y, x), -1 for none, per bin: (N, C, P, Q) each.

    RoI by RoI and sample by sample with the compiled op's arithmetic, so that the same sample wins.
    """
    output, argmax_y, argmax_x = outputs
    channels, width = maps.size(1), maps.size(3)
    bins = (y.low.size(1), x.low.size(1))
    for i, index in enumerate(image.tolist()):
        ny, nx = int(y.exists[i, 0].sum()), int(x.exists[i, 0].sum())
        if ny == 0 or nx == 0:
            output[i], argmax_y[i], argmax_x[i] = _MAX_START, -1, -1
            continue
        along_y = [part[i, :, :ny].reshape(-1, 1) for part in (y.low, y.high, y.weight)]
        along_x = [part[i, :, :nx].reshape(1, -1) for part in (x.low, x.high, x.weight)]
        flat = maps[index].flatten(1)
        values = maps.new_zeros(channels, bins[0] * ny, bins[1] * nx)
        for cell, weight in _flat_corners(along_y, along_x, width):
            values += weight * flat[:, cell.flatten()].view_as(values)
        inside = y.inside[i, :, :ny].reshape(-1, 1) & x.inside[i, :, :nx].reshape(1, -1)
        values = torch.where(inside, values, 0)
        samples = values.view(channels, bins[0], ny, bins[1], nx).transpose(2, 3).flatten(3)
        best, winner = samples.max(dim=3)
        found = best > _MAX_START
        rows, columns = winner // nx, winner % nx
        at_y = y.position[i].expand(channels, bins[1], *y.position[i].shape).transpose(1, 2)
        at_x = x.position[i].expand(channels, bins[0], *x.position[i].shape)
        output[i] = torch.where(found, best, _MAX_START)
        argmax_y[i] = torch.where(found, at_y.gather(3, rows.unsqueeze(3)).squeeze(3), -1)
        argmax_x[i] = torch.where(found, at_x.gather(3, columns.unsqueeze(3)).squeeze(3), -1)


def max_backward(
    grad: Tensor, image: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_maps: Tensor
) -> None:
    """Add the gradient of the winning samples, (N, C, P, Q) each, to ``grad_maps`` (B, C, H, W)."""
    _, channels, height, width = grad_maps.shape
    *along_y, inside_y = cells_around(argmax_y, height)
    *along_x, inside_x = cells_around(argmax_x, width)
    # A coordinate of exactly -1 means that no sample won (mmcv's convention).
    grad = torch.where(inside_y & inside_x & (argmax_y != -1), grad, 0)
    plane = image.view(-1, 1) * channels + torch.arange(channels, device=image.device)
    base = plane.view(-1, channels, 1, 1) * (height * width)
    total = torch.zeros_like(grad_maps).flatten()
    for cell, weight in _flat_corners(along_y, along_x, width):
        total.index_add_(0, (base + cell).flatten(), (grad * weight).flatten())
    grad_maps.add_(total.view_as(grad_maps))
