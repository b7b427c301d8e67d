"""SmoothedCEHead against mmdet's head and dense targets."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead
from mmdet.registry import MODELS as MMDET_MODELS
from torch import Tensor

from mmdet_softpl.models.class_logits import objectness_accuracy
from mmdet_softpl.models.smoothed_ce_head import SmoothedCEHead
from tests.support.loops import loop_targets

SHAPE = dict(in_channels=8, fc_out_channels=16, roi_feat_size=7)
COMMON = dict(
    **SHAPE,
    loss_cls=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False, loss_weight=1.5),
    loss_bbox=dict(type='mmdet.L1Loss', loss_weight=1.0),
    bbox_coder=dict(
        type='mmdet.DeltaXYWHBBoxCoder',
        target_means=[0.0, 0.0, 0.0, 0.0],
        target_stds=[0.1, 0.1, 0.2, 0.2],
    ),
)


def batch(num_rois: int, num_classes: int, kind: str = 'mixed') -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(num_rois + num_classes)
    labels = torch.randint(0, num_classes + 1, (num_rois,), generator=generator)
    if kind == 'background':
        labels = torch.full((num_rois,), num_classes)
    positive = (labels < num_classes).float()
    return dict(
        rois=torch.cat([torch.zeros(num_rois, 1), torch.rand(num_rois, 4) * 10], 1),
        labels=labels,
        label_weights=torch.rand(num_rois, generator=generator),
        bbox_targets=torch.randn(num_rois, 4, generator=generator),
        bbox_weights=positive[:, None].expand(-1, 4).clone(),
    )


def run(head: torch.nn.Module, feats: Tensor, targets: dict[str, Tensor]) -> tuple[dict, dict]:
    head.zero_grad()
    losses = head.loss(*head(feats), **targets)
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    grads = {k: p.grad.clone() for k, p in head.named_parameters() if p.grad is not None}
    return {k: v.detach() for k, v in losses.items()}, grads


@pytest.mark.parametrize('num_classes', [1, 2, 7])
@pytest.mark.parametrize('kind', ['mixed', 'background'])
@pytest.mark.parametrize('off', [dict(smoothing=0.0), dict(smoothing_mode='none')])
def test_without_smoothing_it_is_the_hosts_head(num_classes: int, kind: str, off: dict) -> None:
    torch.manual_seed(0)
    host = Shared2FCBBoxHead(num_classes=num_classes, **copy.deepcopy(COMMON))
    ours = SmoothedCEHead(num_classes=num_classes, **copy.deepcopy(COMMON), **off)
    ours.load_state_dict(host.state_dict())
    feats, targets = torch.randn(12, 8, 7, 7), batch(12, num_classes, kind)
    for (a, a_grads), (b, b_grads) in [(run(host, feats, targets), run(ours, feats, targets))]:
        assert a.keys() == b.keys()
        for key in a:
            torch.testing.assert_close(b[key], a[key], rtol=1e-6, atol=1e-6)
        assert a_grads.keys() == b_grads.keys()
        for key in a_grads:
            torch.testing.assert_close(b_grads[key], a_grads[key], rtol=1e-6, atol=1e-6)


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
        feats, targets = torch.randn(num_rois, 8, 7, 7), batch(num_rois, num_classes, kind)
        (a, a_grads), (b, b_grads) = run(host, feats, targets), run(ours, feats, targets)
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
    targets = dict(batch(10, 2), labels=torch.zeros(10, dtype=torch.long))
    head.loss(*head(torch.randn(10, 8, 7, 7)), **targets)
    assert head.loss_cls.cum_samples.tolist() == [2**24 + 10, 2**24, 2**24]


@pytest.mark.parametrize('num_rois', [0, 9])
@pytest.mark.parametrize('reduction', [None, 'sum', 'none'])
def test_soft_targets_of_seesaw_are_cross_entropy_of_its_activation(
    num_rois: int, reduction: str | None
) -> None:
    head = seesaw_head(SmoothedCEHead, 4)
    feats, targets = torch.randn(num_rois, 8, 7, 7), batch(num_rois, 4)
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
        outputs, targets = head(torch.randn(40, 8, 7, 7)), batch(40, 6)
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
        run(head, torch.randn(40, 8, 7, 7), batch(40, 6))
    if mode != 'uniform':
        assert (head.similarity.weights.sum(1) > 0.99).any()
    feats, targets = torch.randn(20, 8, 7, 7), batch(20, 6)
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
    feats, targets = torch.randn(20, 8, 7, 7), batch(20, 6)
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
        run(head, torch.randn(40, 8, 7, 7), batch(40, 6))
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
    losses, grads = run(head, torch.zeros(0, 8, 7, 7), batch(0, num_classes))
    assert losses['loss_cls'] == 0
    assert losses['loss_bbox'] == 0
    assert all((g == 0).all() for g in grads.values())
    assert grads


def test_prototypes_are_class_means_of_the_penultimate_features() -> None:
    torch.manual_seed(0)
    head = SmoothedCEHead(
        num_classes=3, warmup_iters=0, refresh_interval=3, **copy.deepcopy(COMMON)
    )
    features, labels = [], []
    for seed in range(3):
        torch.manual_seed(seed)
        feats, targets = torch.randn(10, 8, 7, 7), batch(10, 3)
        with torch.no_grad():
            hidden = feats.flatten(1)
            for fc in head.shared_fcs:
                hidden = torch.relu(fc(hidden))
        run(head, feats, targets)
        features.append(hidden.numpy())
        labels.append(targets['labels'].numpy())
    x, y = np.concatenate(features), np.concatenate(labels)
    for c in range(3):
        assert (y == c).sum() == head.prototype_counts[c]
        np.testing.assert_allclose(
            head.prototypes[c].numpy(), x[y == c].mean(0), rtol=1e-4, atol=1e-6
        )


def test_state_survives_a_checkpoint() -> None:
    make = lambda: SmoothedCEHead(  # noqa: E731
        num_classes=4, warmup_iters=2, refresh_interval=3, **copy.deepcopy(COMMON)
    )
    torch.manual_seed(0)
    a = make()
    for seed in range(5):
        torch.manual_seed(seed)
        run(a, torch.randn(10, 8, 7, 7), batch(10, 4))
    b = make()
    b.load_state_dict(a.state_dict())
    assert b.current_smoothing() == a.current_smoothing() > 0
    for seed in range(5, 9):
        torch.manual_seed(seed)
        feats, targets = torch.randn(10, 8, 7, 7), batch(10, 4)
        torch.testing.assert_close(run(a, feats, targets)[0], run(b, feats, targets)[0])
    for key, value in a.state_dict().items():
        torch.testing.assert_close(b.state_dict()[key], value)


def test_smoothing_ramps_in() -> None:
    head = SmoothedCEHead(num_classes=4, warmup_iters=10, **copy.deepcopy(COMMON))
    strengths = []
    for head._iter in (0, 10, 15, 20, 1000):
        strengths.append(head.current_smoothing())
    np.testing.assert_allclose(strengths, [0, 0, 0.05, 0.1, 0.1])


def test_soft_targets_are_taken_as_they_are() -> None:
    torch.manual_seed(0)
    head = SmoothedCEHead(num_classes=4, warmup_iters=0, **copy.deepcopy(COMMON))
    feats, targets = torch.randn(6, 8, 7, 7), batch(6, 4)
    soft = torch.rand(6, 5).softmax(1)
    targets['labels'] = soft
    logits, _ = head(feats)
    losses = head.loss(logits, None, **targets)
    raw = torch.nn.functional.cross_entropy(logits, soft, reduction='none')
    expected = 1.5 * (raw * targets['label_weights']).sum() / (targets['label_weights'] > 0).sum()
    torch.testing.assert_close(losses['loss_cls'], expected)
    assert head.feature_counts.sum() == 0


def test_similarity_follows_features() -> None:
    """Two families of classes with a common direction each: the mass goes to the sibling."""
    head = SmoothedCEHead(
        num_classes=4, warmup_iters=0, refresh_interval=1, **copy.deepcopy(COMMON)
    )
    torch.manual_seed(0)
    direction = torch.eye(16)[:2].repeat_interleave(2, 0) * 5
    head.feature_sums += (direction + torch.randn(4, 16)) * 10
    head.feature_counts += 10
    head.refresh()
    dense = torch.zeros(4, 4).scatter(1, head.similarity.indices, head.similarity.weights)
    assert dense.argmax(1).tolist() == [1, 0, 3, 2]


@pytest.mark.parametrize('suffix', ['.npy', '.npz', '.pt'])
@pytest.mark.parametrize('width', [5, 9])
def test_similarity_file(tmp_path, suffix: str, width: int) -> None:
    rng = np.random.default_rng(0)
    array = rng.normal(size=(5, width)).astype(np.float32)
    path = tmp_path / f'similarity{suffix}'
    if suffix == '.npy':
        np.save(path, array)
    elif suffix == '.npz':
        np.savez(path, array)
    else:
        torch.save(torch.from_numpy(array), path)
    head = SmoothedCEHead(
        num_classes=5,
        smoothing_mode='file',
        similarity_file=str(path),
        topk=4,
        **copy.deepcopy(COMMON),
    )
    dense = torch.zeros(5, 5).scatter(1, head.similarity.indices, head.similarity.weights)
    if width == 5:
        reference = array
    else:
        unit = array / np.linalg.norm(array, axis=1, keepdims=True)
        centred = unit - unit.mean(0)
        centred /= np.linalg.norm(centred, axis=1, keepdims=True)
        reference = centred @ centred.T
    reference = reference.copy()
    np.fill_diagonal(reference, -np.inf)
    weights = np.exp((reference - reference.max(1, keepdims=True)) / 0.1)
    weights /= weights.sum(1, keepdims=True)
    np.testing.assert_allclose(dense.numpy(), weights, atol=2e-4)


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
        (dict(smoothing_mode='file', similarity_file='x.txt'), ['x.txt']),
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
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        SmoothedCEHead(**{'num_classes': 4, **copy.deepcopy(COMMON), **kwargs})
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize('topk', [1, 2, 3])
def test_written_similarity_is_taken_as_it_is(tmp_path, topk: int) -> None:
    """With what a row gives back to its own class, and with a uniform row."""
    indices = np.array([[1, 2], [1, 3], [0, 0], [0, 2]])
    weights = np.array([[0.75, 0.25], [0.6, 0.4], [0, 0], [0.1, 0.9]])
    path = tmp_path / 'similarity.npz'
    np.savez(path, indices=indices, weights=weights, classes=np.array(list('abcd')))
    head = SmoothedCEHead(
        num_classes=4,
        smoothing_mode='file',
        similarity_file=str(path),
        topk=topk,
        **copy.deepcopy(COMMON),
    )
    dense = torch.zeros(4, 4).scatter_add(1, head.similarity.indices, head.similarity.weights)
    expected = np.zeros((4, 4))
    np.put_along_axis(expected, indices, weights, 1)
    expected[2] = 0
    if topk == 1:
        # The largest alone, made to sum to 1 again.
        expected = (expected == expected.max(1, keepdims=True)) * (expected > 0)
    np.testing.assert_allclose(dense.numpy(), expected, atol=1e-7)


@pytest.mark.parametrize(
    'arrays, words',
    [
        (dict(indices=np.zeros((3, 2), int), weights=np.zeros((3, 2))), r'\(4, k\)'),
        (dict(indices=np.zeros((4, 2), int), weights=np.zeros((4, 3))), r'\(4, 3\)'),
        (dict(indices=np.full((4, 1), 4), weights=np.ones((4, 1))), r'\[0, 4\)'),
        (dict(indices=np.zeros((4, 1), int), weights=np.full((4, 1), 0.5)), 'sum to 1'),
    ],
)
def test_broken_written_similarity_is_named(tmp_path, arrays: dict, words: str) -> None:
    path = tmp_path / 'similarity.npz'
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=words):
        SmoothedCEHead(
            num_classes=4,
            smoothing_mode='file',
            similarity_file=str(path),
            **copy.deepcopy(COMMON),
        )


def test_similarity_file_with_a_broken_row_is_named(tmp_path) -> None:
    """Through the centre it would make all rows uniform."""
    array = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    array[3, 1] = np.nan
    np.save(tmp_path / 'broken.npy', array)
    torch.save(dict(a=torch.zeros(5, 3)), tmp_path / 'dict.pt')
    for name, words in (('broken.npy', 'nan in row 3'), ('dict.pt', 'holds a dict')):
        with pytest.raises(ValueError, match=rf'{name}.*{words}'):
            SmoothedCEHead(
                num_classes=5,
                smoothing_mode='file',
                similarity_file=str(tmp_path / name),
                **copy.deepcopy(COMMON),
            )


@pytest.mark.parametrize('mode', ['similarity', 'confusion'])
def test_one_overflowing_batch_does_not_end_the_statistics(mode: str) -> None:
    """A gradient scaler skips the step of such a batch, and so must they."""
    torch.manual_seed(0)
    settings = dict(num_classes=4, smoothing_mode=mode, refresh_interval=1, warmup_iters=0)
    head = SmoothedCEHead(**settings, **copy.deepcopy(COMMON))
    feats = torch.randn(40, 8, 7, 7)
    feats[7] = torch.inf
    run(head, feats, batch(40, 4))
    run(head, torch.randn(40, 8, 7, 7), batch(40, 4))
    assert all(buffer.isfinite().all() for buffer in head.buffers() if buffer.is_floating_point())
    assert (head.similarity.weights.sum(1) > 0.99).all()


def test_similarity_file_of_other_classes_is_named(tmp_path) -> None:
    path = tmp_path / 'other.npy'
    np.save(path, np.zeros((7, 3), dtype=np.float32))
    with pytest.raises(ValueError, match=r'other\.npy.*\(7, 3\).*num_classes=5'):
        SmoothedCEHead(
            num_classes=5, smoothing_mode='file', similarity_file=str(path), **copy.deepcopy(COMMON)
        )


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
        losses, grads = run(head, torch.randn(8, 8, 7, 7), batch(8, 4))
    assert torch.isfinite(losses['loss_cls'])
    assert head.prototypes.dtype == torch.float32
    assert any((g != 0).any() for g in grads.values())


@pytest.mark.parametrize('mode', ['uniform', 'file'])
def test_weights_of_another_mode_leave_the_similarity_of_the_config(tmp_path, mode: str) -> None:
    source = SmoothedCEHead(num_classes=4, warmup_iters=0, **copy.deepcopy(COMMON))
    source.similarity_weights.fill_(1 / 3)
    np.save(tmp_path / 'file.npy', np.eye(4, dtype=np.float32)[::-1].copy())
    head = SmoothedCEHead(
        num_classes=4,
        smoothing_mode=mode,
        similarity_file=str(tmp_path / 'file.npy'),
        **copy.deepcopy(COMMON),
    )
    before = head.similarity_weights.clone()
    head.load_state_dict(source.state_dict(), strict=False)
    assert torch.equal(head.similarity_weights, before)


def test_confusions_fade() -> None:
    head = SmoothedCEHead(
        num_classes=3, smoothing_mode='confusion', warmup_iters=0, **copy.deepcopy(COMMON)
    )
    for seen in (torch.eye(3) * 4, torch.ones(3, 3)):
        head.confusion_sums += seen
        head.refresh()
    torch.testing.assert_close(head.confusion, 0.9 * torch.eye(3) * 4 + 1)


def test_no_class_gets_more_mass_than_it_may() -> None:
    """Everybody's sibling is class 0; ``max_inflow`` limits what it is given."""
    inflow = {}
    for limit in (0.1, 100.0):
        head = SmoothedCEHead(
            num_classes=6, warmup_iters=0, max_inflow=limit, **copy.deepcopy(COMMON)
        )
        torch.manual_seed(0)
        others = torch.eye(16)[1:6] + 2 * torch.eye(16)[:1]
        head.feature_sums += torch.cat([others.mean(0, keepdim=True), others])
        head.feature_counts += 1
        head.refresh()
        dense = torch.zeros(6, 6).scatter(1, head.similarity.indices, head.similarity.weights)
        # One instance each; what a class gives itself is no inflow. Smoothing is 0.1.
        inflow[limit] = float(0.1 * dense.fill_diagonal_(0).sum(0).max())
    assert inflow[100.0] > 0.15
    assert inflow[0.1] == pytest.approx(0.1, abs=1e-5)


def test_a_class_keeps_its_neighbours_when_it_gives_back() -> None:
    """Of two classes, the frequent one hands over as much as it may, not all or nothing."""
    head = SmoothedCEHead(num_classes=2, warmup_iters=0, max_inflow=1.0, **copy.deepcopy(COMMON))
    head.feature_sums += torch.eye(16)[:2] * torch.tensor([[1000.0], [50.0]])
    head.feature_counts += torch.tensor([1000.0, 50.0])
    head.refresh()
    dense = torch.zeros(2, 2).scatter_add(1, head.similarity.indices, head.similarity.weights)
    # 0.1 * 1000 * share = 50; the rare class may give the frequent one all of its 0.1 * 50.
    torch.testing.assert_close(dense, torch.tensor([[0.5, 0.5], [1.0, 0.0]]))


def test_features_count_once() -> None:
    """Another loss of the same forward, such as OHEM asks for, sees no new features."""
    head = SmoothedCEHead(num_classes=6, warmup_iters=0, **copy.deepcopy(COMMON))
    head.train()
    outputs, targets = head(torch.randn(20, 8, 7, 7)), batch(20, 6)
    head.loss(*outputs, **targets)
    counts = head.feature_counts.clone()
    assert counts.sum() == (targets['labels'] < 6).sum()
    head.loss(*outputs, **targets)
    assert torch.equal(head.feature_counts, counts)


@pytest.mark.parametrize('wrapped', [False, True])
def test_a_similarity_of_another_topk_is_left_out(wrapped: bool) -> None:
    source = SmoothedCEHead(num_classes=6, topk=3, **copy.deepcopy(COMMON))
    source.prototypes += 1
    source.similarity_weights += 1 / 3
    head = SmoothedCEHead(num_classes=6, topk=2, **copy.deepcopy(COMMON))
    target, state = head, source.state_dict()
    if wrapped:
        target = torch.nn.ModuleDict(dict(bbox_head=head))
        state = {f'bbox_head.{key}': value for key, value in state.items()}
    target.load_state_dict(state)
    assert head.similarity_weights.shape == (6, 2) and not head.similarity_weights.any()
    assert torch.equal(head.prototypes, source.prototypes)
    assert torch.equal(head.fc_cls.weight, source.fc_cls.weight)
    assert state[next(k for k in state if k.endswith('similarity_weights'))].shape == (6, 3)
    # Fewer neighbours are neighbours still.
    wider = SmoothedCEHead(num_classes=6, topk=5, **copy.deepcopy(COMMON))
    wider.load_state_dict(source.state_dict())
    assert torch.equal(wider.similarity_weights[:, :3], source.similarity_weights)
    assert torch.equal(wider.similarity_indices[:, :3], source.similarity_indices)
    assert not wider.similarity_weights[:, 3:].any()
