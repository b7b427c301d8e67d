"""RoI masks laid into their boxes: for people, training never makes such masks.

Shape letters: **K** instances of an image, **S** side of a RoI mask, **H**, **W** of the image.
"""

from __future__ import annotations

import torch
from torch import Tensor


def paste_roi_masks(
    masks: Tensor, bboxes: Tensor, image_shape: tuple[int, int], threshold: float = 0.5
) -> Tensor:
    """Lay RoI masks into their boxes.

    The mask is stretched over the box and read bilinearly at the pixel centres (Mask R-CNN,
    arXiv 1703.06870, section 3.1).

    Args:
        masks: (K, S, S) foreground probabilities.
        bboxes: (K, 4), x1 y1 x2 y2 in pixels.
        image_shape: H, W in pixels.
        threshold: Lowest probability of a pixel of the mask.

    Returns:
        (K, H, W) bool.
    """
    height, width = image_shape
    if len(bboxes) == 0:
        return torch.zeros(0, height, width, dtype=torch.bool, device=masks.device)
    # One by one: the grid of a single mask is twice as large as the image already.
    pairs = zip(masks.float(), bboxes.float(), strict=True)
    return torch.stack([_pasted(mask, box, height, width) >= threshold for mask, box in pairs])


def _pasted(mask: Tensor, box: Tensor, height: int, width: int) -> Tensor:
    """(H, W) probabilities of one mask (S, S)."""
    x1, y1, x2, y2 = box
    tiny = torch.finfo(torch.float32).tiny
    steps_x = torch.arange(width, device=box.device)
    steps_y = torch.arange(height, device=box.device)
    grid_x = (steps_x + 0.5 - x1) / (x2 - x1).clamp(min=tiny) * 2 - 1
    grid_y = (steps_y + 0.5 - y1) / (y2 - y1).clamp(min=tiny) * 2 - 1
    grid = torch.stack(
        (grid_x[None, :].expand(height, -1), grid_y[:, None].expand(-1, width)), dim=2
    )
    return torch.nn.functional.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0]
