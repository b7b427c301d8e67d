"""Greedy matching of detections to ground-truth boxes, as COCO and LVIS evaluation do it.

Shape letters: **N** detections of one image, **M** ground-truth boxes of the same image.
Boxes are (x1, y1, x2, y2) in pixels. Nothing here has a gradient.
"""

import torch
from torch import Tensor


def match_indices(
    bboxes: Tensor,
    scores: Tensor,
    labels: Tensor | None,
    gt_bboxes: Tensor,
    gt_labels: Tensor | None,
    iou_thr: float = 0.5,
    ignore: Tensor | None = None,
) -> Tensor:
    """Index of the ground truth that each detection takes, -1 where it takes none.

    Detections choose in descending order of score (ties: the earlier row first); each takes
    the free ground truth of its own class with the highest IoU of at least ``iou_thr``. What
    finds none may fall onto a ground truth marked in ``ignore``: such a box takes any number
    of detections and is measured by intersection / detection area, the rule for crowds in
    Lin et al., "Microsoft COCO" (ECCV 2014).

    Rounds over min(N, M) ground truths, each vectorised over (N, M); no host synchronisation.

    Args:
        bboxes: (N, 4).
        scores: (N,), any finite values; only their order counts.
        labels: (N,) class indices, or None to match whatever the class.
        gt_bboxes: (M, 4).
        gt_labels: (M,) class indices; None exactly when ``labels`` is None.
        iou_thr: in (0, 1].
        ignore: (M,) bool, True for crowd regions.

    Returns:
        (N,) int64 in [-1, M).

    Raises:
        ValueError: ``iou_thr`` outside (0, 1], or only one of the two label tensors given.
    """
    if not 0 < iou_thr <= 1:
        raise ValueError(f'iou_thr must be in (0, 1], got {iou_thr}')
    if (labels is None) != (gt_labels is None):
        raise ValueError('give labels and gt_labels together, or neither')
    num_dets, num_gts = len(bboxes), len(gt_bboxes)
    matched = torch.full((num_dets,), -1, dtype=torch.long, device=bboxes.device)
    if num_dets == 0 or num_gts == 0:
        return matched

    order = scores.argsort(descending=True, stable=True)
    inter, det_area, union = _overlaps(bboxes[order].float(), gt_bboxes.float())
    iou = inter / union.clamp(min=torch.finfo(inter.dtype).tiny)
    if labels is not None and gt_labels is not None:
        other_class = labels[order, None] != gt_labels[None, :]
        iou = iou.masked_fill(other_class, 0.0)
        inter = inter.masked_fill(other_class, 0.0)
    if ignore is not None:
        ignore = ignore.bool()
        free = iou.masked_fill(ignore[None, :], 0.0)
    else:
        free = iou.clone()

    for _ in range(min(num_dets, num_gts)):
        best_iou, best_gt = free.max(dim=1)
        valid = best_iou >= iou_thr
        # argmax returns the first maximum: the best-scored detection that still finds a box.
        det = valid.int().argmax().view(1)
        gt = best_gt[det]
        matched[det] = torch.where(valid[det], gt, matched[det])
        # Where nothing is valid any more these two only clear what is below the threshold.
        free.index_fill_(0, det, 0.0)
        free.index_fill_(1, gt, 0.0)

    if ignore is not None:
        covered = inter / det_area.clamp(min=torch.finfo(inter.dtype).tiny)
        best, region = covered.masked_fill(~ignore[None, :], 0.0).max(dim=1)
        matched = torch.where((matched < 0) & (best >= iou_thr), region, matched)

    return torch.empty_like(matched).scatter_(0, order, matched)


def judge_matches(
    matched: Tensor, crowd: Tensor, spoken_of: Tensor, loose: Tensor
) -> tuple[Tensor, Tensor]:
    """Which detections of an image can be judged, and which of those are right.

    Not judged are detections of classes that the image says nothing about, those on crowd regions,
    and those that find nothing where the class is not annotated exhaustively (LVIS: Gupta et al.,
    arXiv 1908.03195).

    Args:
        matched: (N,) from :func:`match_indices` with the labels.
        crowd: (M,) bool, the ``ignore`` given there.
        spoken_of: (N,) bool, whether the image speaks of the class of each detection.
        loose: (N,) bool, whether that class is not annotated exhaustively in the image.

    Returns:
        (N,) bool judged, (N,) bool correct (False where not judged). No host synchronisation.
    """
    # Row -1, of what takes nothing, is the one that is added.
    on_crowd = torch.nn.functional.pad(crowd.bool(), (0, 1))[matched]
    judged = spoken_of & ~on_crowd & ((matched >= 0) | ~loose)
    return judged, judged & (matched >= 0)


def _overlaps(bboxes: Tensor, gt_bboxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Intersections (N, M), detection areas (N, 1) and unions (N, M), in square pixels."""
    top_left = torch.maximum(bboxes[:, None, :2], gt_bboxes[None, :, :2])
    bottom_right = torch.minimum(bboxes[:, None, 2:], gt_bboxes[None, :, 2:])
    inter = (bottom_right - top_left).clamp(min=0).prod(dim=2)
    det_area = (bboxes[:, 2:] - bboxes[:, :2]).clamp(min=0).prod(dim=1)[:, None]
    gt_area = (gt_bboxes[:, 2:] - gt_bboxes[:, :2]).clamp(min=0).prod(dim=1)[None, :]
    return inter, det_area, det_area + gt_area - inter
