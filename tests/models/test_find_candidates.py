"""Candidates of one image: what the NMS keeps, by a slow loop."""

from __future__ import annotations

import pytest
import torch
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor

from mmdet_softpl.models.teacher_labels import LabelingCfg, find_candidates


def kept_by_hand(bboxes: Tensor, scores: Tensor, iou_thr: float) -> list[int]:
    kept: list[int] = []
    for i in scores.argsort(descending=True).tolist():
        overlaps = bbox_overlaps(bboxes[i : i + 1], bboxes[kept])[0] if kept else torch.zeros(1)
        if float(overlaps.max()) <= iou_thr:
            kept.append(i)
    return sorted(kept)


@pytest.mark.parametrize('num_classes', [1, 80, 13204])
def test_overlapping_boxes_of_the_last_class(num_classes: int) -> None:
    """Small boxes in a large image: class numbers must not eat up their coordinates."""
    gen = torch.Generator().manual_seed(0)
    for _ in range(30):
        corner = torch.rand(1, 2, generator=gen) * torch.tensor([1200.0, 700.0])
        corner = corner + torch.randn(4, 2, generator=gen).abs() * 5
        small = torch.cat([corner, corner + 8 + torch.rand(4, 2, generator=gen) * 24], 1)
        bboxes = torch.cat([small, torch.tensor([[100.0, 100.0, 1333.0, 800.0]])])
        foreground = torch.zeros(5, num_classes)
        foreground[:4, -1] = torch.rand(4, generator=gen) * 0.8 + 0.1
        foreground[4, 0] = 0.95
        cfg = LabelingCfg()
        found = find_candidates(foreground, lambda rows, _, b=bboxes: b[rows], cfg)
        last = found[(found.labels == num_classes - 1) & (found.roi_inds < 4)]
        expected = kept_by_hand(small, foreground[:4, -1], cfg.iou_thr)
        assert sorted(last.roi_inds.tolist()) == expected
        assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
        assert 4 in found.roi_inds.tolist()


def test_no_candidate() -> None:
    found = find_candidates(
        torch.zeros(3, 5), lambda rows, _: torch.ones(len(rows), 4), LabelingCfg()
    )
    assert len(found) == 0 and found.bboxes.shape == (0, 4)
