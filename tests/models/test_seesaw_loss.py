"""SmoothedCEHead with mmdet's Seesaw loss, against mmdet's head and dense targets."""

from __future__ import annotations

import copy

import pytest
import torch
from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead

from mmdet_softpl.models.class_logits import objectness_accuracy
from mmdet_softpl.models.smoothed_ce_head import SmoothedCEHead
from tests.support.box_heads import COMMON, head_step, roi_batch
from tests.support.loops import loop_targets

SEESAW = dict(
    # None of them the default, so that none is taken for it.
    loss_cls=dict(type='mmdet.SeesawLoss', p=0.6, q=1.5, eps=0.05, loss_weight=1.5),
    cls_predictor_cfg=dict(type='NormedLinear'),
)


def seesaw_head(cls: type, num_classes: int, **kwargs) -> torch.nn.Module:
    settings = copy.deepcopy({**COMMON, **SEESAW, **kwargs})
    settings['loss_cls']['num_classes'] = num_classes
    return cls(num_classes=num_classes, **settings)


@pytest.mark.parametrize('num_rois', [0, 12])
@pytest.mark.parametrize('num_classes', [1, 2, 7])
@pytest.mark.parametrize('kind', ['mixed', 'background'])
@pytest.mark.parametrize('how', ['off', 'warming up'])
def test_seesaw_without_smoothing_is_the_hosts(
    num_rois: int, num_classes: int, kind: str, how: str
) -> None:
    torch.manual_seed(0)
    host = seesaw_head(Shared2FCBBoxHead, num_classes)
    off = dict(smoothing_mode='none') if how == 'off' else dict(warmup_iters=100)
    ours = seesaw_head(SmoothedCEHead, num_classes, **off)
    ours.load_state_dict(host.state_dict(), strict=how == 'off')
    for seed in range(3):
        torch.manual_seed(seed)
        feats, targets = torch.randn(num_rois, 8, 7, 7), roi_batch(num_rois, num_classes, kind)
        (a, a_grads), (b, b_grads) = (
            head_step(host, feats, targets),
            head_step(ours, feats, targets),
        )
        theirs, mine = (
            sum((v for k, v in losses.items() if 'loss_cls' in k), torch.zeros(()))
            for losses in (a, b)
        )
        torch.testing.assert_close(mine, theirs)
        for key, grad in a_grads.items():
            torch.testing.assert_close(b_grads[key], grad, rtol=1e-4, atol=1e-5)
        assert torch.equal(ours.loss_cls.cum_samples, host.loss_cls.cum_samples)
        if how == 'warming up' and num_rois and kind == 'mixed':
            for key in ('acc_objectness', 'acc_classes'):
                torch.testing.assert_close(b[key].reshape(-1), a[key].reshape(-1))
    assert not num_rois or host.loss_cls.cum_samples.sum() == 3 * num_rois


@pytest.mark.parametrize('num_rois', [0, 5])
def test_accuracy_of_nothing_is_zero(num_rois: int) -> None:
    found = objectness_accuracy(torch.zeros(num_rois, 6), torch.full((num_rois,), 4))
    assert float(found['acc_classes']) == 0 and found['acc_classes'].shape == (1,)


def test_counts_go_on_beyond_what_a_float_can_count_one_by_one() -> None:
    head = seesaw_head(SmoothedCEHead, 2)
    head.loss_cls.cum_samples.fill_(2.0**24)
    targets = dict(roi_batch(10, 2), labels=torch.zeros(10, dtype=torch.long))
    head.loss(*head(torch.randn(10, 8, 7, 7)), **targets)
    assert head.loss_cls.cum_samples.tolist() == [2**24 + 10, 2**24, 2**24]


@pytest.mark.parametrize('num_rois', [0, 9])
@pytest.mark.parametrize('reduction', [None, 'sum', 'none'])
def test_soft_targets_of_seesaw_are_cross_entropy_of_its_activation(
    num_rois: int, reduction: str | None
) -> None:
    head = seesaw_head(SmoothedCEHead, 4)
    feats, targets = torch.randn(num_rois, 8, 7, 7), roi_batch(num_rois, 4)
    soft = torch.rand(num_rois, 5).softmax(1)
    cls_score, _ = head(feats)
    found = head.loss(cls_score, None, **dict(targets, labels=soft), reduction_override=reduction)[
        'loss_cls'
    ]
    log_probs = head.loss_cls.get_activation(cls_score).log()
    weights = targets['label_weights']
    expected = -1.5 * weights * (soft * log_probs).sum(1)
    if reduction is None:
        expected = expected.sum() / max(len(weights), 1)
    elif reduction == 'sum':
        expected = expected.sum()
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert head.loss_cls.cum_samples.sum() == 0


@pytest.mark.parametrize('mode', ['uniform', 'similarity', 'confusion'])
@pytest.mark.parametrize('max_inflow', [1.0, 0.02])
def test_smoothed_seesaw_is_a_mixture(mode: str, max_inflow: float) -> None:
    """Seesaw for what the target leaves to the label, cross entropy for its neighbours."""
    head = seesaw_head(
        SmoothedCEHead,
        6,
        smoothing_mode=mode,
        topk=3,
        warmup_iters=0,
        refresh_interval=2,
        max_inflow=max_inflow,
    )
    for i in range(5):
        torch.manual_seed(i)
        outputs, targets = head(torch.randn(40, 8, 7, 7)), roi_batch(40, 6)
        found = head.loss(*outputs, **targets)['loss_cls']
        dense = loop_targets(
            targets['labels'], torch.full((6,), 0.1), head.similarity, num_classes=6
        )
        own = dense.gather(1, targets['labels'][:, None])[:, 0]
        host = copy.deepcopy(head.loss_cls)
        counts = targets['labels'].bincount(minlength=7)
        host.cum_samples = head.loss_cls.cum_samples - counts
        weights = targets['label_weights']
        terms = host(outputs[0], targets['labels'], weights * own, reduction_override='sum')
        log_probs = host.get_activation(outputs[0]).log()
        rest = dense.scatter(1, targets['labels'][:, None], 0)
        neighbours = -(rest * log_probs).sum(1)
        # Its objectness counts for the whole target, so the neighbours' share of it is in ``rest``.
        expected = sum(terms.values()) + 1.5 * (weights * neighbours).sum()
        torch.testing.assert_close(found, expected / (weights > 0).sum())
    assert mode == 'uniform' or head.similarity.weights.sum() > 0
