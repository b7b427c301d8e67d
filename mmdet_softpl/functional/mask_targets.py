"""Teacher RoI masks resampled onto student RoIs through the homography of the two views.

Shape letters: **K** pseudo-instances, **P** positive student RoIs, **M** points, **S** side of the
teacher's RoI masks. Boxes are (x1, y1, x2, y2) in pixels, points (x, y); pixel i covers [i, i + 1).
Source: section 3, steps 4 and 6, and "Unlabelled class loss" of docs/DESIGN.md.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ._tensor import at_least_float32


def warp_points(points: Tensor, homography: Tensor) -> Tensor:
    """Map points (P, M, 2) through homographies (P, 3, 3): (P, M, 2), float32.

    Products and a sum instead of a matrix product, which in reduced precision (autocast, TF32)
    would move a point by a pixel.
    """
    points, h = at_least_float32(points), at_least_float32(homography)[:, None]
    mapped = (h[..., :2] * points[:, :, None]).sum(dim=3) + h[..., 2]
    scale = mapped[..., 2:]
    tiny = torch.finfo(points.dtype).eps
    return mapped[..., :2] / torch.where(scale.abs() < tiny, tiny, scale)


def warp_boxes(boxes: Tensor, homography: Tensor, shape: tuple[int, int] | Tensor) -> Tensor:
    """Axis-aligned hulls of warped boxes, clipped to the image.

    Args:
        boxes: (K, 4).
        homography: (3, 3), source view -> target view; or (K, 3, 3), one for each box.
        shape: (height, width) of the target view; or (K, 2), one for each box.

    Returns:
        (K, 4) float32.
    """
    x1, y1, x2, y2 = at_least_float32(boxes).unbind(1)
    # A list as an index would be copied to the device, and the host would wait for it.
    corners = torch.stack([x1, y1, x2, y1, x2, y2, x1, y2], dim=1).view(-1, 4, 2)
    return _hulls(warp_points(corners, homography.expand(len(corners), 3, 3)), shape)


def warp_mask_boxes(
    boxes: Tensor,
    masks: Tensor,
    homography: Tensor,
    shape: tuple[int, int] | Tensor,
) -> Tensor:
    """Axis-aligned boxes of warped objects, from their masks, clipped to the image.

    Under rotation and shear the hull of a box is larger than the box of the object: by 22 % in
    width and height for a disc turned by 15 degrees. The mask says what of the box the object
    fills. It is stretched to fill its box to all four sides, so that without rotation and shear the
    result is that of :func:`warp_boxes`; it never reaches beyond it. Where nothing in a mask is
    above 0.5, the whole box counts.

    Args:
        boxes: (K, 4).
        masks: (K, S, S) foreground probabilities over the area of each box.
        homography: (3, 3), source view -> target view; or (K, 3, 3), one for each box.
        shape: (height, width) of the target view; or (K, 2), one for each box.

    Returns:
        (K, 4) float32.
    """
    size = masks.shape[1]
    inside = masks > 0.5
    inside = inside | ~inside.flatten(1).any(1)[:, None, None]
    cells = torch.arange(size, device=masks.device)
    # (K, S): first and last cell of each row; the other way round in a row without any.
    first = torch.where(inside, cells, size).amin(2)
    last = torch.where(inside, cells, -1).amax(2)
    full = last >= 0
    left, right = first.amin(1, keepdim=True), last.amax(1, keepdim=True) + 1
    top = torch.where(full, cells, size).amin(1, keepdim=True)
    bottom = torch.where(full, cells, -1).amax(1, keepdim=True) + 1
    # The hull of the cells is that of the ends of their rows; empty rows repeat the top one.
    rows = torch.where(full, cells, top)
    first, last = first.gather(1, rows), last.gather(1, rows) + 1
    u = torch.cat([first, last, first, last], dim=1)
    v = torch.cat([rows, rows, rows + 1, rows + 1], dim=1)
    x1, y1, x2, y2 = at_least_float32(boxes).unsqueeze(2).unbind(dim=1)
    x = x1 + (x2 - x1) * (u - left) / (right - left)
    y = y1 + (y2 - y1) * (v - top) / (bottom - top)
    points = torch.stack([x, y], dim=2)
    return _hulls(warp_points(points, homography.expand(len(points), 3, 3)), shape)


def _hulls(points: Tensor, shape: tuple[int, int] | Tensor) -> Tensor:
    """Boxes around points, clipped. Shape: (K, n, 2) -> (K, 4)."""
    x, y = points.unbind(dim=2)
    if isinstance(shape, Tensor):
        height, width = shape.to(x).unsqueeze(2).unbind(dim=1)
        x, y = x.clamp(min=0).minimum(width), y.clamp(min=0).minimum(height)
    else:
        x, y = x.clamp(0, shape[1]), y.clamp(0, shape[0])
    return torch.stack([x.amin(1), y.amin(1), x.amax(1), y.amax(1)], dim=1)


def resample_roi_masks(
    masks: Tensor,
    boxes: Tensor,
    rois: Tensor,
    inds: Tensor,
    homography: Tensor,
    teacher_shape: Tensor,
    size: int = 28,
) -> tuple[Tensor, Tensor]:
    """Mask targets of student RoIs, sampled from the teacher's RoI masks.

    The centres of a size x size grid on each student RoI are mapped into the teacher's view, and
    from there into the teacher's box, whose area the S x S mask covers (cell centres at
    (i + 0.5) / S); the probabilities are interpolated bilinearly, with 0 around the mask.

    Args:
        masks: (K, S, S) foreground probabilities of the teacher.
        boxes: (K, 4) of these masks, in the teacher's view.
        rois: (P, 4) in the student's view.
        inds: (P,) int64 in [0, K), the instance of each RoI.
        homography: (P, 3, 3), student's view -> teacher's view.
        teacher_shape: (P, 2) height and width of the teacher's image (without padding).
        size: side of the targets.

    Returns:
        targets (P, size, size) in [0, 1], 0 outside the teacher's box (everywhere, for a box
        without area), and the share of each RoI's grid that lies inside the teacher's image, (P,).
        Both float32; empty for P = 0.
    """
    rois, masks = at_least_float32(rois), at_least_float32(masks)
    num_rois = rois.shape[0]
    if num_rois == 0:
        return masks.new_zeros(0, size, size), masks.new_zeros(0)

    steps = (torch.arange(size, dtype=rois.dtype, device=rois.device) + 0.5) / size
    x = rois[:, 0:1] + (rois[:, 2:3] - rois[:, 0:1]) * steps
    y = rois[:, 1:2] + (rois[:, 3:4] - rois[:, 1:2]) * steps
    grid = torch.stack(
        [x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], dim=-1
    )
    points = warp_points(grid.reshape(num_rois, -1, 2), homography)

    image_size = teacher_shape.to(points.dtype).flip(1)[:, None]
    visible = ((points >= 0) & (points <= image_size)).all(dim=2).to(points.dtype).mean(dim=1)

    chosen = at_least_float32(boxes)[inds]
    box_size = (chosen[:, 2:] - chosen[:, :2])[:, None]
    local = (points - chosen[:, None, :2]) / box_size.clamp_min(torch.finfo(points.dtype).eps)
    inside = ((local >= 0) & (local <= 1) & (box_size > 0)).all(dim=2)

    # Far points would overflow the index arithmetic of grid_sample; 2 is outside already.
    sampled = F.grid_sample(
        masks[inds][:, None],
        (2 * local - 1).clamp(-2, 2).view(num_rois, size, size, 2),
        padding_mode='zeros',
        align_corners=False,
    )[:, 0]
    inside = inside.view(num_rois, size, size)
    return torch.where(inside, sampled, torch.zeros_like(sampled)), visible


def mask_quality(masks: Tensor, threshold: float = 0.5) -> Tensor:
    """Mean probability of the foreground pixels of masks (K, S, S): (K,) float32.

    Foreground is a probability of at least ``threshold``; a mask without any gets 0. The mask loss
    weighs an instance by the square of this.
    """
    masks = at_least_float32(masks)
    foreground = (masks >= threshold).to(masks.dtype)
    total = (masks * foreground).sum(dim=(1, 2))
    return total / foreground.sum(dim=(1, 2)).clamp_min(1)
