"""Each shortcut against the host's own way."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from mmdet.models.task_modules.assigners import MaxIoUAssigner
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_softpl.models.host_shortcuts import (
    AllValid,
    JointRPNLoss,
    OneWaitAssigner,
    RememberedGrids,
)
from tests.support.tiny import detector_config, multi_batch, semi_config


def random_boxes(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    # Whole pixels: many overlaps are equal then.
    corners = torch.randint(0, 12, (count, 2), generator=generator)
    sides = torch.randint(1, 12, (count, 2), generator=generator)
    return torch.cat([corners, corners + sides], dim=1).float()


@pytest.mark.parametrize('num_gts', [0, 1, 2, 40])
@pytest.mark.parametrize('num_priors', [0, 1, 300])
@pytest.mark.parametrize(
    'settings',
    [
        dict(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3),
        dict(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, match_low_quality=False),
        dict(pos_iou_thr=0.9, neg_iou_thr=(0.1, 0.4), min_pos_iou=0.0),
        dict(pos_iou_thr=0.6, neg_iou_thr=0.3, ignore_iof_thr=0.4, min_pos_iou=0.1),
    ],
)
def test_assigner_decides_as_the_host(num_gts: int, num_priors: int, settings: dict) -> None:
    host = MaxIoUAssigner(**settings)
    ours = OneWaitAssigner.of(host)
    assert type(ours) is OneWaitAssigner
    low_quality = 0
    for seed in range(5):
        gts = InstanceData(
            bboxes=random_boxes(num_gts, seed),
            labels=torch.randint(0, 7, (num_gts,), generator=torch.Generator().manual_seed(seed)),
        )
        priors = InstanceData(priors=random_boxes(num_priors, seed + 100))
        ignored = InstanceData(bboxes=random_boxes(3, seed + 200))
        expected, found = (part.assign(priors, gts, ignored) for part in (host, ours))
        assert found.num_gts == expected.num_gts
        for name in ('gt_inds', 'max_overlaps', 'labels'):
            torch.testing.assert_close(
                getattr(found, name), getattr(expected, name), rtol=0, atol=0
            )
        low = (expected.gt_inds > 0) & (expected.max_overlaps < settings['pos_iou_thr'])
        low_quality += int(low.sum())
    if num_gts == 40 and num_priors == 300 and settings.get('match_low_quality', True):
        assert low_quality > 10


def test_other_assigners_stay_as_they_are() -> None:
    class Other(MaxIoUAssigner):
        pass

    settings: dict[str, Any] = dict(pos_iou_thr=0.7, neg_iou_thr=0.3)
    for assigner in (
        None,
        Other(**settings),
        MaxIoUAssigner(**settings, gt_max_assign_all=False),
        MaxIoUAssigner(pos_iou_thr=0.7, neg_iou_thr=0),
    ):
        assert OneWaitAssigner.of(assigner) is assigner


def generator() -> AnchorGenerator:
    return AnchorGenerator(strides=[4, 8], ratios=[0.5, 1.0, 2.0], scales=[8], center_offset=0.0)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_grids_are_those_of_the_host(dtype: torch.dtype) -> None:
    host, ours = generator(), generator()
    ours.single_level_grid_priors = RememberedGrids(ours)
    # Growing in one side, in the other, shrinking, the same again, nothing at all.
    for sizes in (
        [(0, 3), (2, 3)],
        [(3, 5), (2, 3)],
        [(7, 4), (2, 9)],
        [(1, 1), (1, 2)],
        [(7, 5), (0, 3)],
    ):
        for _ in range(2):
            expected = host.grid_priors(sizes, dtype=dtype, device='cpu')
            found = ours.grid_priors(sizes, dtype=dtype, device='cpu')
            for a, b in zip(found, expected, strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=0)
            # What a caller does to its anchors does nothing to the next one's.
            found[0].zero_()


def test_a_trace_is_good_for_other_sizes() -> None:
    host, ours = generator(), generator()
    ours.single_level_grid_priors = RememberedGrids(ours)

    def anchors(x: Tensor) -> Tensor:
        return ours.single_level_grid_priors(x.shape[-2:], 0, device='cpu')

    ours.grid_priors([(9, 9), (2, 2)], device='cpu')
    traced = torch.jit.trace(anchors, torch.zeros(1, 1, 3, 5))
    expected = host.single_level_grid_priors((6, 7), 0, device='cpu')
    torch.testing.assert_close(traced(torch.zeros(1, 1, 6, 7)), expected)


def test_flags_are_those_of_the_host() -> None:
    host, ours = generator(), generator()
    ours.single_level_valid_flags = AllValid(ours)
    sizes = [(6, 8), (3, 4)]
    for shape in ((24, 32), (20, 32), (24, 9), (100, 100)):
        expected, found = (g.valid_flags(sizes, shape, device='cpu') for g in (host, ours))
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize('counts', [(3, 2), (0, 1), (0, 0)])
def test_rpn_loss_and_gradients_are_those_of_the_host(counts: tuple[int, int]) -> None:
    torch.manual_seed(0)
    host = MODELS.build(detector_config()).rpn_head
    # Sampling is random where there are more anchors than it takes.
    host.sampler.num = 10**6
    ours = copy.deepcopy(host)
    assert JointRPNLoss.fits(ours)
    ours.loss_by_feat = JointRPNLoss(ours)
    x = [torch.randn(2, 16, 16 // 2**i, 24 // 2**i, requires_grad=True) for i in range(5)]
    metas = [
        dict(img_shape=(64, 96), pad_shape=(64, 96)),
        dict(img_shape=(50, 80), pad_shape=(64, 96)),
    ]
    truth = [
        InstanceData(bboxes=4 * random_boxes(n, n), labels=torch.zeros(n, dtype=torch.long))
        for n in counts
    ]
    results = []
    for head in (host, ours):
        leaves = [*x, *head.parameters()]
        losses = head.loss_by_feat(*head(x), truth, metas)
        total = [sum(losses[name]) for name in ('loss_rpn_cls', 'loss_rpn_bbox')]
        gradients = torch.autograd.grad(total[0] + 2 * total[1], leaves, allow_unused=True)
        results.append([*total, *gradients])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-6)
    # The one small box of the second case has no anchor.
    assert (results[0][1] > 0) == (sum(counts) > 1)


def test_losses_that_are_no_sums_over_anchors_are_the_hosts() -> None:
    torch.manual_seed(0)
    host = MODELS.build(detector_config()).rpn_head
    host.sampler.num = 10**6
    # Replaced after the detector was built.
    host.loss_bbox, host.reg_decoded_bbox = MODELS.build(dict(type='GIoULoss')), True
    ours = copy.deepcopy(host)
    ours.loss_by_feat = JointRPNLoss(ours)
    assert not JointRPNLoss.fits(ours)
    x = [torch.randn(1, 16, 16 // 2**i, 24 // 2**i) for i in range(5)]
    truth = [InstanceData(bboxes=4 * random_boxes(3, 3), labels=torch.zeros(3, dtype=torch.long))]
    metas = [dict(img_shape=(64, 96), pad_shape=(64, 96))]
    expected, found = (head.loss_by_feat(*head(x), truth, metas) for head in (host, ours))
    for name, levels in expected.items():
        assert [float(level) for level in levels] == [float(level) for level in found[name]]


@pytest.mark.parametrize('name', ['mask-rcnn', 'cascade-mask-rcnn'])
def test_an_iteration_comes_to_the_same_losses(name: str, monkeypatch: Any) -> None:
    from mmdet_softpl.models import calibrated_soft_teacher

    results = []
    for shortcuts in (True, False):
        with monkeypatch.context() as patch:
            if not shortcuts:
                patch.setattr(calibrated_soft_teacher, 'take_shortcuts', lambda detector: None)
            torch.manual_seed(0)
            model = MODELS.build(semi_config(detector_config(name), score_thr=0.0))
        stages = model.student.roi_head.bbox_assigner
        stages = stages if isinstance(stages, list) else [stages]
        for assigner in (model.student.rpn_head.assigner, *stages):
            assert isinstance(assigner, OneWaitAssigner) is shortcuts
        torch.manual_seed(1)
        results.append(model.parse_losses(model.loss(*multi_batch()))[1])
    for key, value in results[0].items():
        torch.testing.assert_close(value, results[1][key], rtol=1e-4, atol=1e-6, msg=key)
