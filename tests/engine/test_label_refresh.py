"""Refreshes of boosts and thresholds: against sorted scores, shares and counts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from mmdet_softpl.engine import RareBoostPseudoLabeler, label_refresh
from mmdet_softpl.models.class_state import SCORE_BINS
from tests.support.tiny_labeller import IMAGES, Ours, make_runner, see, started, write


def test_prior_thresholds_are_those_of_the_sorted_scores(tmp_path: Path) -> None:
    hook, _ = started(tmp_path, alpha=0.5, thr_range=(0.1, 0.95), min_count=20)
    generator = torch.Generator().manual_seed(0)
    images = 90
    scores = {c: torch.rand(200, generator=generator).tolist() for c in (1, 2, 3)}
    see(hook, scores, images)
    hook.refresh()
    for c, values in scores.items():
        wanted = 0.5 * images * 2 * IMAGES[c] / 120
        # The score at which that many detections remain.
        new = sorted(values, reverse=True)[min(round(wanted), 199)]
        new = min(max(new, 0.1), 0.95)
        assert float(hook.class_state.thresholds[c]) == pytest.approx(
            0.5 * 0.7 + 0.5 * new, abs=2 / SCORE_BINS
        )
    # Class 0 was not seen: its group's threshold, here that of class 1 with both rates.
    wanted = 0.5 * images * 2 * (IMAGES[0] + IMAGES[1]) / 120
    pooled = sorted(scores[1], reverse=True)[round(wanted)]
    assert float(hook.class_state.thresholds[0]) == pytest.approx(
        0.35 + 0.5 * pooled, abs=2 / SCORE_BINS
    )
    assert not hook.class_state.score_histogram.any()
    assert hook.class_state.num_images == 0


def test_old_scores_count_half(tmp_path: Path) -> None:
    hook, _ = started(tmp_path)
    see(hook, {3: [0.95] * 8}, 4)
    hook.refresh()
    see(hook, {3: [0.15] * 2}, 4)
    hook.refresh()
    histogram = hook.history['histogram'][3]
    assert histogram[95] == 4
    assert histogram[15] == 2
    assert hook.history['histogram_images'] == 6
    assert hook.history['total_kept'].tolist() == [0, 0, 0, 8]
    assert hook.history['total_images'] == 8


def test_fixed_mode_keeps_its_threshold(tmp_path: Path) -> None:
    hook, _ = started(tmp_path, threshold_mode='fixed', fixed_thr=0.42)
    see(hook, {c: [0.1, 0.9] * 50 for c in range(4)}, 10)
    hook.refresh()
    assert torch.equal(hook.class_state.thresholds, torch.full((4,), 0.42))


def test_a_class_labelled_too_often_loses_boost_then_gains_threshold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_refresh, 'THRESHOLD_STEP', 1.0)
    hook, _ = started(tmp_path, damp_factor=2.0, damp_patience=2, max_boost=1.3)
    boosts, thresholds = [], []
    for _ in range(4):
        # 10 an image, where 2 * 2 / 120 are labelled.
        see(hook, {0: [0.99] * 100}, 10)
        hook.refresh()
        boosts.append(float(hook.class_state.boosts[0]))
        thresholds.append(float(hook.class_state.thresholds[0]))
    assert boosts == pytest.approx([1.3, 1.3 * 0.8 if 1.3 * 0.8 > 1 else 1.0, 1.0, 1.0])
    # 0.9 is the upper bound, which neither the mode nor damping exceeds.
    assert thresholds == pytest.approx([0.9] * 4)
    assert hook.history['damped'].tolist() == [3, 0, 0, 0]
    see(hook, {0: [0.1]}, 1000)
    hook.refresh()
    assert hook.history['strikes'][0] == 0


def test_damping_raises_the_threshold_of_an_unboosted_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_refresh, 'THRESHOLD_STEP', 1.0)
    hook, _ = started(tmp_path, damp_patience=1, boost_gamma=0.0, min_count=1000)
    see(hook, {0: [0.99] * 100}, 10)
    hook.refresh()
    assert hook.class_state.thresholds.tolist() == pytest.approx([0.7 * 1.1, 0.7, 0.7, 0.7])


def test_boosts_follow_the_soft_labels(tmp_path: Path) -> None:
    """Ants get 200 of 1,000 labels where 4 x 4 instances of 352 in all are meant to be theirs."""
    hook, _ = started(tmp_path, align_rate=0.5, max_boost=4.0, min_count=1000)
    first = hook.class_state.boosts.clone()
    hook.class_state.mass += torch.tensor([200.0, 50.0, 250.0, 500.0])
    hook.class_state.num_images += 100
    hook.refresh()
    counts = 2 * np.array(IMAGES, dtype=float)
    wanted = counts * first.numpy()
    wanted = 1000 * wanted / wanted.sum()
    ratio = wanted / np.array([200.0, 50.0, 250.0, 500.0])
    found = (hook.class_state.boosts / first).numpy()
    # Shrinkage by 20 pseudo-counts moves ratios of hundreds little.
    assert found[0] == pytest.approx(ratio[0] ** 0.5, rel=0.1)
    assert found[3] == pytest.approx(ratio[3] ** 0.5, rel=0.1)
    assert found[0] < 1 < found[3]
    assert not hook.class_state.mass.any()
    assert torch.equal(hook.class_state.own_boosts, torch.ones(4))
    # Nothing seen, nothing done.
    before = hook.class_state.boosts.clone()
    hook.refresh()
    assert torch.equal(hook.class_state.boosts, before)


def test_own_boosts_follow_what_the_network_says(tmp_path: Path) -> None:
    """To the labelled shares, whatever boosts are wanted."""
    hook, _ = started(tmp_path, align_rate=0.5, max_boost=4.0, min_count=1000)
    state = hook.class_state
    assert state.wanted_boosts.max() > 1
    # So many that shrinkage by 20 pseudo-counts moves nothing.
    seen = torch.tensor([2e6, 5e5, 2.5e6, 5e6])
    state.mass += 1
    state.own_mass += seen
    state.num_images += 100
    hook.refresh()
    counts = torch.tensor(IMAGES, dtype=torch.float32)
    ratio = (seen.sum() * counts / counts.sum() / seen) ** 0.5
    torch.testing.assert_close(state.own_boosts, ratio, rtol=0.01, atol=0)
    assert not state.own_mass.any()


def test_without_alignment_boosts_stay(tmp_path: Path) -> None:
    hook, _ = started(tmp_path, align_rate=0.0)
    first = hook.class_state.boosts.clone()
    hook.class_state.mass += torch.tensor([200.0, 50.0, 250.0, 500.0])
    hook.class_state.num_images += 100
    hook.refresh()
    assert torch.equal(hook.class_state.boosts, first)


@pytest.mark.parametrize('partial', [False, True])
def test_frequent_classes_of_federated_sets_keep_their_boost(tmp_path: Path, partial: bool) -> None:
    """Where images say nothing of some classes, nothing says how many labels they should have."""
    hook = RareBoostPseudoLabeler(write(tmp_path / 'train.json', lvis=True), align_rate=1.0)
    hook.before_train(make_runner(tmp_path, Ours()))
    known = {0: {0, 1, 2, 3}, 1: {0, 1, 2} if partial else {0, 1, 2, 3}}
    hook.summary = dataclasses.replace(hook.summary, federated=True, known_classes=known)
    assert hook.summary.partial is partial
    first = hook.class_state.boosts.clone()
    hook.class_state.mass += torch.tensor([800.0, 150.0, 5.0, 95.0])
    hook.class_state.num_images += 100
    hook.refresh()
    groups = hook.class_state.groups
    assert groups.tolist() == [2, 2, 0, 1]
    found = hook.class_state.boosts / first
    assert torch.allclose(found[groups == 2], torch.ones(2))
    # The other two share what they have between them, or what all have.
    assert found[2] > 1.2 and bool(found[3] < 1) is partial


def test_a_replaced_teacher_leaves_its_labels_in_the_sums_alone(tmp_path: Path) -> None:
    hook, _ = started(tmp_path, interval=2)
    see(hook, {1: [0.95] * 30, 3: [0.99] * 30}, 4)
    hook.refresh()
    see(hook, {1: [0.95] * 6, 3: [0.99] * 4}, 2)
    state = hook.class_state
    before = state.thresholds.clone(), state.boosts.clone()
    hook.forget_teacher()
    assert float(hook.history['total_kept'].sum()) == 70
    assert float(hook.history['total_images']) == 6
    assert not hook.history['histogram'].any() and not state.score_histogram.any()
    # Due at once, it has nothing to go by and moves nothing.
    hook.refresh()
    assert torch.equal(state.thresholds, before[0]) and torch.equal(state.boosts, before[1])
    assert float(hook.history['total_images']) == 6


def test_frequent_classes_of_federated_sets_are_not_damped(tmp_path: Path) -> None:
    hook, _ = started(tmp_path, damp_factor=0.01, damp_patience=1)
    frequent = hook.class_state.groups == 2
    assert frequent.any()
    for federated in (False, True):
        hook.summary = dataclasses.replace(hook.summary, federated=federated)
        hook.history['strikes'].zero_()
        hook.class_state.kept.fill_(1000)
        hook.class_state.num_images.fill_(1)
        hook.refresh()
        assert bool((hook.history['strikes'][frequent] == 0).all()) is federated
        assert (hook.history['strikes'][~frequent] == 1).all()


def test_a_damped_class_that_has_boost_left_keeps_its_threshold(tmp_path: Path) -> None:
    hook, _ = started(tmp_path, damp_patience=1, min_count=1000)
    first = hook.class_state.boosts.clone()
    see(hook, {0: [0.99] * 100}, 10)
    hook.refresh()
    assert first[0] > 1.25
    assert float(hook.class_state.boosts[0]) == pytest.approx(0.8 * float(first[0]))
    assert hook.class_state.thresholds.tolist() == pytest.approx([0.7] * 4)


def test_damping_leaves_a_fixed_threshold_alone(tmp_path: Path) -> None:
    hook, _ = started(tmp_path, damp_patience=1, boost_gamma=0.0, threshold_mode='fixed')
    see(hook, {0: [0.99] * 100}, 10)
    hook.refresh()
    assert hook.history['damped'].tolist() == [1, 0, 0, 0]
    assert hook.class_state.thresholds.tolist() == pytest.approx([0.7] * 4)


@pytest.mark.parametrize(('factor', 'damped'), [(2.0, 1), (1e6, 0)])
def test_too_many_is_what_the_factor_says(tmp_path: Path, factor: float, damped: int) -> None:
    hook, _ = started(tmp_path, damp_factor=factor, damp_patience=1)
    see(hook, {0: [0.99] * 100}, 10)
    hook.refresh()
    assert hook.history['damped'].tolist() == [damped, 0, 0, 0]
