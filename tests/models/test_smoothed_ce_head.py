"""SmoothedCEHead against mmdet's head and dense targets."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead
from mmdet.registry import MODELS as MMDET_MODELS

from mmdet_softpl.models.smoothed_ce_head import SmoothedCEHead
from tests.support.box_heads import COMMON, head_step, roi_batch
from tests.support.loops import loop_targets


@pytest.mark.parametrize('num_classes', [1, 2, 7])
@pytest.mark.parametrize('kind', ['mixed', 'background'])
@pytest.mark.parametrize('off', [dict(smoothing=0.0), dict(smoothing_mode='none')])
def test_without_smoothing_it_is_the_hosts_head(num_classes: int, kind: str, off: dict) -> None:
    torch.manual_seed(0)
    host = Shared2FCBBoxHead(num_classes=num_classes, **copy.deepcopy(COMMON))
    ours = SmoothedCEHead(num_classes=num_classes, **copy.deepcopy(COMMON), **off)
    ours.load_state_dict(host.state_dict())
    feats, targets = torch.randn(12, 8, 7, 7), roi_batch(12, num_classes, kind)
    for (a, a_grads), (b, b_grads) in [
        (head_step(host, feats, targets), head_step(ours, feats, targets))
    ]:
        assert a.keys() == b.keys()
        for key in a:
            torch.testing.assert_close(b[key], a[key], rtol=1e-6, atol=1e-6)
        assert a_grads.keys() == b_grads.keys()
        for key in a_grads:
            torch.testing.assert_close(b_grads[key], a_grads[key], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('mode', ['uniform', 'similarity', 'confusion'])
def test_loss_is_the_dense_targets_cross_entropy(mode: str) -> None:
    torch.manual_seed(1)
    head = SmoothedCEHead(
        num_classes=6,
        smoothing_mode=mode,
        topk=3,
        warmup_iters=0,
        refresh_interval=2,
        **copy.deepcopy(COMMON),
    )
    head.train()
    for seed in range(4):
        torch.manual_seed(seed)
        head_step(head, torch.randn(40, 8, 7, 7), roi_batch(40, 6))
    if mode != 'uniform':
        assert (head.similarity.weights.sum(1) > 0.99).any()
    feats, targets = torch.randn(20, 8, 7, 7), roi_batch(20, 6)
    head.eval()
    logits, _ = head(feats)
    losses = head.loss(logits, None, **targets)
    dense = loop_targets(targets['labels'], torch.full((6,), 0.1), head.similarity, 6)
    raw = -(dense * logits.log_softmax(1)).sum(1) * targets['label_weights']
    expected = 1.5 * raw.sum() / (targets['label_weights'] > 0).sum()
    torch.testing.assert_close(losses['loss_cls'], expected)
    background = targets['labels'] == 6
    assert background.any()
    torch.testing.assert_close(
        dense[background],
        torch.nn.functional.one_hot(torch.tensor(6), 7).float().expand_as(dense[background]),
    )


def test_targets_follow_whatever_changes_them() -> None:
    """They are kept between batches, so each change has to be noticed."""
    torch.manual_seed(1)
    settings = dict(num_classes=6, topk=3, warmup_iters=2, **copy.deepcopy(COMMON))
    head = SmoothedCEHead(refresh_interval=3, **settings)
    other = SmoothedCEHead(refresh_interval=3, **settings)
    other.similarity_weights.uniform_()
    feats, targets = torch.randn(20, 8, 7, 7), roi_batch(20, 6)
    seen = []

    def compare(head: SmoothedCEHead) -> None:
        head.eval()
        logits, _ = head(feats)
        loss = head.loss(logits, None, **targets)['loss_cls']
        epsilon = torch.full((6,), head.current_smoothing())
        dense = loop_targets(targets['labels'], epsilon, head.similarity, 6)
        raw = -(dense * logits.log_softmax(1)).sum(1) * targets['label_weights']
        torch.testing.assert_close(loss, 1.5 * raw.sum() / (targets['label_weights'] > 0).sum())
        seen.append(dense)
        head.train()

    compare(head)
    for seed in range(6):
        torch.manual_seed(seed)
        head_step(head, torch.randn(40, 8, 7, 7), roi_batch(40, 6))
        compare(head)
    head.similarity_weights[1] = head.similarity_weights[2]
    compare(head)
    kept = head.similarity_weights[3].clone()
    for row in (torch.zeros(3), kept):
        head.similarity_weights[3] = row
        compare(head)
    compare(copy.deepcopy(head))
    head.load_state_dict(other.state_dict())
    compare(head)
    head.double().float()
    compare(head)
    changes = sum(not torch.equal(a, b) for a, b in itertools.pairwise(seen))
    # The ramp, two refreshes, the rows by hand, the other head.
    assert changes >= 7


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
@pytest.mark.parametrize('num_classes', [1, 4])
def test_no_roi_still_gives_losses_that_backpropagate(smoothing: float, num_classes: int) -> None:
    head = SmoothedCEHead(num_classes=num_classes, smoothing=smoothing, **copy.deepcopy(COMMON))
    losses, grads = head_step(head, torch.zeros(0, 8, 7, 7), roi_batch(0, num_classes))
    assert losses['loss_cls'] == 0
    assert losses['loss_bbox'] == 0
    assert all((g == 0).all() for g in grads.values())
    assert grads


def test_smoothing_ramps_in() -> None:
    head = SmoothedCEHead(num_classes=4, warmup_iters=10, **copy.deepcopy(COMMON))
    strengths = []
    for head._iter in (0, 10, 15, 20, 1000):
        strengths.append(head.current_smoothing())
    np.testing.assert_allclose(strengths, [0, 0, 0.05, 0.1, 0.1])


def test_soft_targets_are_taken_as_they_are() -> None:
    torch.manual_seed(0)
    head = SmoothedCEHead(num_classes=4, warmup_iters=0, **copy.deepcopy(COMMON))
    feats, targets = torch.randn(6, 8, 7, 7), roi_batch(6, 4)
    soft = torch.rand(6, 5).softmax(1)
    targets['labels'] = soft
    logits, _ = head(feats)
    losses = head.loss(logits, None, **targets)
    raw = torch.nn.functional.cross_entropy(logits, soft, reduction='none')
    expected = 1.5 * (raw * targets['label_weights']).sum() / (targets['label_weights'] > 0).sum()
    torch.testing.assert_close(losses['loss_cls'], expected)
    assert head.feature_counts.sum() == 0


@pytest.mark.parametrize(
    'kwargs, words',
    [
        (dict(smoothing=1.0), ['smoothing', '1.0', '[0, 1)']),
        (dict(smoothing=-0.1), ['smoothing', '-0.1']),
        (dict(smoothing_mode='similar'), ['similar', "'similarity'", "'confusion'"]),
        (dict(temperature=0.0), ['temperature', '0.0']),
        (dict(topk=0), ['topk', '0']),
        (dict(topk=3.5), ['topk', 'whole number', '3.5']),
        (dict(refresh_interval=100.5), ['refresh_interval', 'whole number']),
        (dict(warmup_iters=True), ['warmup_iters', 'whole number']),
        (dict(refresh_interval=0), ['refresh_interval']),
        (dict(max_inflow=0), ['max_inflow']),
        (dict(smoothing_mode='file'), ['similarity_file', 'None']),
        (
            dict(loss_cls=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True)),
            ['loss_cls', 'use_sigmoid=False'],
        ),
        (
            dict(loss_cls=dict(type='mmdet.SeesawLoss', num_classes=5, p=0.8, q=2.0)),
            ['loss_cls', 'num_classes=5', 'has 4'],
        ),
        (
            dict(loss_cls=dict(type='mmdet.SeesawLoss')),
            ['num_classes=1203', 'set loss_cls.num_classes=4'],
        ),
        (
            dict(loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True)),
            ['loss_cls', 'FocalLoss', 'SeesawLoss'],
        ),
        (
            dict(loss_cls=dict(type='mmdet.CrossEntropyLoss', class_weight=[1.0] * 5)),
            ['class_weight'],
        ),
        (
            dict(loss_cls=dict(type='mmdet.CrossEntropyLoss', ignore_index=2)),
            ['ignore_index=2'],
        ),
    ],
)
def test_bad_arguments_are_named(kwargs: dict, words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        SmoothedCEHead(**{'num_classes': 4, **copy.deepcopy(COMMON), **kwargs})
    for word in words:
        assert word in str(error.value)


def test_both_names_build_the_same_class() -> None:
    from mmengine.registry import MODELS as ROOT

    for registry, name in [(ROOT, 'mmdet_softpl.SmoothedCEHead'), (MMDET_MODELS, 'SmoothedCEHead')]:
        assert registry.get(name) is SmoothedCEHead


def test_bfloat16_autocast_trains() -> None:
    torch.manual_seed(0)
    head = SmoothedCEHead(
        num_classes=4, warmup_iters=0, refresh_interval=1, **copy.deepcopy(COMMON)
    )
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses, grads = head_step(head, torch.randn(8, 8, 7, 7), roi_batch(8, 4))
    assert torch.isfinite(losses['loss_cls'])
    assert head.prototypes.dtype == torch.float32
    assert any((g != 0).any() for g in grads.values())
