"""Pasting of RoI masks against mmdet's own."""

from __future__ import annotations

import pytest
import torch
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

from mmdet_softpl.functional import paste_roi_masks


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_paste_equals_the_host(dtype: torch.dtype) -> None:
    gen = torch.Generator().manual_seed(0)
    masks = torch.rand(5, 28, 28, generator=gen).to(dtype)
    corner = torch.rand(5, 2, generator=gen) * 40 - 5
    bboxes = torch.cat([corner, corner + 3 + torch.rand(5, 2, generator=gen) * 40], dim=1)
    host, _ = _do_paste_mask(masks[:, None].float(), bboxes, 50, 70, skip_empty=False)
    ours = paste_roi_masks(masks, bboxes, (50, 70))
    assert ours.shape == (5, 50, 70)
    assert torch.equal(ours, host >= 0.5) and ours.any()


def test_nothing_to_paste() -> None:
    found = paste_roi_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), (50, 70))
    assert found.shape == (0, 50, 70) and found.dtype == torch.bool


def test_paste_into_a_box_without_area() -> None:
    box = torch.tensor([[5.0, 5, 5, 5]])
    assert not paste_roi_masks(torch.ones(1, 4, 4), box, (10, 10)).any()
