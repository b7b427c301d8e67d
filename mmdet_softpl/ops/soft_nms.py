"""Soft-NMS (Bodla et al., 2017) in numpy.

Shapes: N boxes, K boxes whose score stays above the minimum. Boxes are (x1, y1, x2, y2) in pixels.
"""

import numpy as np
import torch
from torch import Tensor

_NAIVE, _LINEAR, _GAUSSIAN = 0, 1, 2


def _first_best(scores: np.ndarray) -> int:
    """Return the first largest of (K,) scores, found by ``<`` alone as in the compiled op.

    Two boxes without area have an undefined overlap, which makes a Gaussian-decayed score NaN: no
    score is larger than a NaN in front, and a NaN elsewhere is larger than none.
    """
    if np.isnan(scores[0]):
        return 0
    return int(np.nanargmax(scores))


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS with the calling convention of ``mmcv._ext.softnms`` (which is CPU only).

    Args:
        boxes: (N, 4) floating, on the CPU.
        scores: (N,) floating.
        dets: (N, 5), written in place: row i holds the i-th kept box and its decayed score; rows
            from K on are left as they were.
        iou_threshold: overlap from which methods 0 and 1 act, in [0, 1].
        sigma: width of the Gaussian decay, above 0.
        min_score: boxes whose decayed score falls below it are dropped.
        method: 0 naive (suppress), 1 linear, 2 Gaussian.
        offset: 0 or 1; a box is x2 - x1 + offset wide.

    Returns:
        (K,) int64 indices of the kept boxes, in the order of ``dets``.
    """
    if boxes.numel() == 0:
        return boxes.new_empty(0, dtype=torch.long)
    # Columns: x1, y1, x2, y2, score, area.
    table = np.empty((boxes.size(0), 6), dtype=np.float32)
    table[:, :4] = boxes.detach().float().numpy()
    table[:, 4] = scores.detach().float().numpy()
    table[:, 5] = (table[:, 2] - table[:, 0] + offset) * (table[:, 3] - table[:, 1] + offset)
    index = np.arange(len(table))
    count, i = len(table), 0
    while i < count:
        best = i + _first_best(table[i:count, 4])
        table[[i, best]] = table[[best, i]]
        index[[i, best]] = index[[best, i]]
        rest = table[i + 1 : count]
        top = table[i]
        size = np.minimum(top[2:4], rest[:, 2:4]) - np.maximum(top[:2], rest[:, :2]) + offset
        inter = np.prod(np.maximum(size, 0), axis=1)
        with np.errstate(divide='ignore', invalid='ignore'):
            iou = inter / (top[5] + rest[:, 5] - inter)
        if method == _GAUSSIAN:
            weight = np.exp(-(iou * iou) / np.float32(sigma))
        else:
            decayed = 1 - iou if method == _LINEAR else np.zeros_like(iou)
            weight = np.where(iou >= np.float32(iou_threshold), decayed, 1)
        rest[:, 4] *= weight
        i += 1
        # Dropped rows are filled from the end, as the compiled op does: among equal scores the
        # order of the rows decides who is next.
        alive = ~(rest[:, 4] < np.float32(min_score))
        left = int(alive.sum())
        holes = i + np.flatnonzero(~alive[:left])
        fillers = i + left + np.flatnonzero(alive[left:])[::-1]
        table[holes], index[holes] = table[fillers], index[fillers]
        count = i + left
    dets[:count] = torch.from_numpy(table[:count, :5]).to(dets)
    return torch.from_numpy(index[:count])
