"""Where SmoothedCEHead's similarities come from: features, confusions, a file, a checkpoint."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from mmdet_softpl.models.similarity_file import read_similarity
from mmdet_softpl.models.smoothed_ce_head import SmoothedCEHead
from tests.support.box_heads import COMMON, head_step, roi_batch


def test_prototypes_are_class_means_of_the_penultimate_features() -> None:
    torch.manual_seed(0)
    head = SmoothedCEHead(
        num_classes=3, warmup_iters=0, refresh_interval=3, **copy.deepcopy(COMMON)
    )
    features, labels = [], []
    for seed in range(3):
        torch.manual_seed(seed)
        feats, targets = torch.randn(10, 8, 7, 7), roi_batch(10, 3)
        with torch.no_grad():
            hidden = feats.flatten(1)
            for fc in head.shared_fcs:
                hidden = torch.relu(fc(hidden))
        head_step(head, feats, targets)
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
        head_step(a, torch.randn(10, 8, 7, 7), roi_batch(10, 4))
    b = make()
    b.load_state_dict(a.state_dict())
    assert b.current_smoothing() == a.current_smoothing() > 0
    for seed in range(5, 9):
        torch.manual_seed(seed)
        feats, targets = torch.randn(10, 8, 7, 7), roi_batch(10, 4)
        torch.testing.assert_close(head_step(a, feats, targets)[0], head_step(b, feats, targets)[0])
    for key, value in a.state_dict().items():
        torch.testing.assert_close(b.state_dict()[key], value)


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
    if width == 5:
        array = array + array.T
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


def test_a_square_array_is_what_its_name_says(tmp_path) -> None:
    """As many numbers a class as classes: class 1 is nearly class 0."""
    rng = np.random.default_rng(0)
    array = rng.normal(size=(5, 5)).astype(np.float32)
    array[1] = array[0] + 0.01
    # Of the embeddings the nearest is the copy, of the similarities the largest in the row.
    order = array.copy()
    np.fill_diagonal(order, -np.inf)
    for name, nearest in (('embeddings', 1), ('similarities', int(order[0].argmax()))):
        path = tmp_path / f'{name}.npz'
        np.savez(path, **{name: array})
        found = read_similarity(str(path), 5, 4, 0.1)
        assert int(found.indices[0, found.weights[0].argmax()]) == nearest, name
    assert int(order[0].argmax()) != 1
    path = tmp_path / 'unnamed.npz'
    np.savez(path, array)
    with pytest.raises(ValueError, match=r'unnamed.npz.*not symmetric.*embeddings=array'):
        read_similarity(str(path), 5, 4, 0.1)
    np.savez(path, similarities=array[:, :4])
    with pytest.raises(ValueError, match=r'`similarities` of shape \(5, 4\)'):
        read_similarity(str(path), 5, 4, 0.1)


def test_an_archive_of_several_arrays_is_not_guessed_at(tmp_path) -> None:
    path = tmp_path / 'several.npz'
    np.savez(path, ids=np.eye(5), text=np.ones((5, 9)))
    with pytest.raises(ValueError, match=r'several.npz.*several arrays \(ids, text\)'):
        read_similarity(str(path), 5, 4, 0.1)
    np.savez(path, ids=np.eye(5), embeddings=np.ones((5, 9)))
    assert read_similarity(str(path), 5, 4, 0.1).indices.shape == (5, 4)


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
    head_step(head, feats, roi_batch(40, 4))
    head_step(head, torch.randn(40, 8, 7, 7), roi_batch(40, 4))
    assert all(buffer.isfinite().all() for buffer in head.buffers() if buffer.is_floating_point())
    assert (head.similarity.weights.sum(1) > 0.99).all()


def test_only_training_needs_the_similarity_file(tmp_path) -> None:
    """A detector is tested where it was not trained."""
    np.save(tmp_path / 'file.npy', np.eye(4, 6, dtype=np.float32))
    settings = dict(num_classes=4, smoothing_mode='file', **copy.deepcopy(COMMON))
    trained = SmoothedCEHead(similarity_file=str(tmp_path / 'file.npy'), **settings).train()
    other = SmoothedCEHead(similarity_file=str(tmp_path / 'no.npy'), **settings)
    other.load_state_dict(trained.state_dict())
    feats = torch.randn(3, 8, 7, 7)
    assert torch.equal(other.eval()(feats)[0], trained.eval()(feats)[0])
    with pytest.raises(FileNotFoundError, match=r"similarity_file='.*no\.npy' does"):
        nn.Sequential(other).train()


def test_similarity_file_of_other_classes_is_named(tmp_path) -> None:
    path = tmp_path / 'other.npy'
    np.save(path, np.zeros((7, 3), dtype=np.float32))
    with pytest.raises(ValueError, match=r'other\.npy.*\(7, 3\).*num_classes=5'):
        SmoothedCEHead(
            num_classes=5, smoothing_mode='file', similarity_file=str(path), **copy.deepcopy(COMMON)
        )


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
    outputs, targets = head(torch.randn(20, 8, 7, 7)), roi_batch(20, 6)
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


def test_several_refreshes_count_every_feature_once() -> None:
    heads = []
    for interval in (1, 2, 6):
        torch.manual_seed(0)
        head = SmoothedCEHead(
            num_classes=3, warmup_iters=0, refresh_interval=interval, **copy.deepcopy(COMMON)
        )
        for seed in range(6):
            torch.manual_seed(seed)
            feats, targets = torch.randn(10, 8, 7, 7), roi_batch(10, 3)
            features = feats.flatten(1)[:, : head.cls_last_dim]
            head.observe_classes(features, feats[:, 0, 0, :4], targets['labels'])
        heads.append(head)
    for head in heads[:2]:
        torch.testing.assert_close(head.prototype_counts, heads[2].prototype_counts)
        torch.testing.assert_close(head.prototypes, heads[2].prototypes, rtol=1e-4, atol=1e-5)
