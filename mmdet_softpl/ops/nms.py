"""Greedy non-maximum suppression in plain PyTorch.

Shapes: N boxes, K kept boxes. Boxes are (x1, y1, x2, y2) in pixels.
"""

import torch
from torch import Tensor

from mmdet_softpl.ops.torchvision import why_unusable

# Boxes resolved at once. Each block costs BLOCK^2 overlaps whether or not its boxes survive, and a
# round of small kernels; measured on 4,000 boxes (benchmarks/ops).
_CPU_BLOCK = 256
_GPU_BLOCK = 2048


def _suppresses(first: Tensor, second: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return which of ``first`` overlaps which of ``second`` by more than the threshold.

    The order of the floating-point operations is the compiled one's, so that boxes right at the
    threshold are decided alike.

    Args:
        first: (A, 5) boxes with their area in the last column.
        second: (B, 5) the same.

    Returns:
        (A, B) bool.
    """
    first = first.unsqueeze(1)
    width = torch.minimum(first[..., 2], second[:, 2]) - torch.maximum(first[..., 0], second[:, 0])
    height = torch.minimum(first[..., 3], second[:, 3]) - torch.maximum(first[..., 1], second[:, 1])
    inter = width.add_(offset).clamp_(min=0).mul_(height.add_(offset).clamp_(min=0))
    union = (first[..., 4] + second[:, 4]).sub_(inter)
    return inter.div_(union) > iou_threshold


def _greedy(overlap: Tensor) -> Tensor:
    """Resolve one block: a box is kept if no kept box before it suppresses it.

    Iterates keep = no earlier box of keep overlaps. Each round settles at least the next undecided
    box, so the fixed point is the sequential answer, reached after as many rounds as the longest
    chain of suppressions (a few) instead of one step a box.

    Args:
        overlap: (N, N) bool, entry (i, j) says that i suppresses j; only i < j is used.

    Returns:
        (N,) bool.
    """
    overlap = overlap.triu(1)
    keep = ~overlap.any(dim=0)
    settled = torch.zeros_like(keep)
    while not torch.equal(keep, settled):
        settled = keep
        keep = ~(overlap & keep.unsqueeze(1)).any(dim=0)
    return keep


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Greedy NMS with the calling convention and the decisions of ``mmcv._ext.nms``.

    Args:
        boxes: (N, 4) floating; half precision is computed in float32.
        scores: (N,) floating.
        iou_threshold: boxes with an IoU above it are suppressed, in [0, 1].
        offset: 0 or 1; a box is x2 - x1 + offset wide.

    Returns:
        (K,) int64 indices of the kept boxes by falling score. Not differentiable.
    """
    if boxes.numel() == 0:
        return boxes.new_empty(0, dtype=torch.long)
    if boxes.dtype in (torch.float16, torch.bfloat16):
        boxes = boxes.float()
    if offset == 0 and why_unusable() is None:
        import torchvision.ops

        # torchvision compares with a double, mmcv with a float.
        threshold = torch.tensor(iou_threshold, dtype=boxes.dtype).item()
        return torchvision.ops.nms(boxes, scores.to(boxes.dtype), threshold)
    order = scores.sort(0, descending=True)[1]
    area = (boxes[:, 2] - boxes[:, 0] + offset) * (boxes[:, 3] - boxes[:, 1] + offset)
    alive = torch.cat([boxes, area.unsqueeze(1)], dim=1)[order]
    block = _CPU_BLOCK if boxes.device.type == 'cpu' else _GPU_BLOCK
    kept = []
    while order.numel() > 0:
        head, rest = alive[:block], alive[block:]
        keep = _greedy(_suppresses(head, head, iou_threshold, offset))
        kept.append(order[:block][keep])
        survives = ~_suppresses(head[keep], rest, iou_threshold, offset).any(dim=0)
        alive, order = rest[survives], order[block:][survives]
    return torch.cat(kept)
