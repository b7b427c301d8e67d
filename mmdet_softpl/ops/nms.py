"""Greedy non-maximum suppression in plain PyTorch.

Shapes: N boxes, K kept boxes. Boxes are (x1, y1, x2, y2) in pixels.
"""

import torch
from torch import Tensor

from mmdet_softpl.ops.torchvision import why_unusable

# Boxes resolved at once, and boxes that the kept ones are compared with at once. On the CPU a tile
# fits the cache and stays below the 32,768 elements from which torch wakes its threads, whose
# barriers cost more than the work, above all beside data loading workers. For the same reason rows
# are taken by index_select and not by [], which wakes them always. (benchmarks/ops)
_CPU_TILE = (64, 500)
_GPU_TILE = (2048, 32768)


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
    rank = torch.arange(overlap.size(0), device=overlap.device)
    overlap = overlap & (rank.unsqueeze(1) < rank)
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
    if offset == 0 and why_unusable(boxes.device.type) is None:
        import torchvision.ops

        # torchvision compares with a double, mmcv with a float.
        threshold = torch.tensor(iou_threshold, dtype=boxes.dtype).item()
        return torchvision.ops.nms(boxes, scores.to(boxes.dtype), threshold)
    order = scores.sort(0, descending=True)[1]
    area = (boxes[:, 2] - boxes[:, 0] + offset) * (boxes[:, 3] - boxes[:, 1] + offset)
    alive = torch.cat([boxes, area.unsqueeze(1)], dim=1).index_select(0, order)
    block, span = _CPU_TILE if boxes.device.type == 'cpu' else _GPU_TILE
    kept = []
    while order.numel() > 0:
        head, rest = alive[:block], alive[block:]
        keep = _greedy(_suppresses(head, head, iou_threshold, offset)).nonzero().squeeze(1)
        kept.append(order.index_select(0, keep))
        if rest.size(0) == 0:
            break
        winners = head.index_select(0, keep)
        suppressed = [
            _suppresses(winners, part, iou_threshold, offset).any(dim=0)
            for part in rest.split(span)
        ]
        left = torch.cat(suppressed).logical_not_().nonzero().squeeze(1)
        alive, order = rest.index_select(0, left), order[block:].index_select(0, left)
    return torch.cat(kept)
