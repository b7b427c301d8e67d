"""ClassState: initial values, and what a checkpoint carries."""

from __future__ import annotations

import pytest
import torch

from mmdet_softpl.functional import apply_calibrator
from mmdet_softpl.models import class_state as module
from mmdet_softpl.models.class_state import CONFIDENCE_BINS, ClassState


@pytest.mark.parametrize('num_classes', [1, 7])
def test_without_a_hook_nothing_is_boosted_and_the_threshold_is_fixed(num_classes: int) -> None:
    state = ClassState(num_classes, 0.6)
    assert state.num_classes == num_classes
    assert torch.equal(state.boosts, torch.ones(num_classes))
    assert torch.equal(state.thresholds, torch.full((num_classes,), 0.6))
    assert not state.prototype_weights.any()
    assert not state.offsets.any()
    for name in ClassState.ACCUMULATORS:
        assert not getattr(state, name).any()


def test_the_first_calibration_is_the_identity() -> None:
    state = ClassState(3, 0.5)
    centre = 0.5 / CONFIDENCE_BINS
    scores = torch.linspace(centre, 1 - centre, 50)
    labels = torch.arange(50) % 3
    torch.testing.assert_close(apply_calibrator(scores, labels, state.calibration), scores)


def test_everything_but_what_settings_give_is_in_the_state_dict() -> None:
    state = ClassState(3, 0.5)
    buffers = {name for name, _ in state.named_buffers()}
    assert buffers - {'wanted_boosts'} == set(state.state_dict())
    assert torch.equal(state.wanted_boosts, torch.ones(3))
    assert set(ClassState.ACCUMULATORS) < set(state.state_dict())
    assert not list(state.parameters())


def test_older_checkpoints() -> None:
    saved = ClassState(3, 0.7).state_dict()
    for name in ('own_boosts', 'own_mass', 'confidence_gain'):
        del saved[name]
    state = ClassState(3, 0.5)
    state.load_state_dict(saved)
    assert (state.thresholds == 0.7).all()
    assert (state.own_boosts == 1).all() and state.confidence_gain == 1


@pytest.mark.parametrize('kept', [True, False])
def test_what_is_switched_off_is_not_taken_from_a_checkpoint(kept: bool) -> None:
    source = ClassState(3, 0.5)
    source.calibration *= 0.5
    source.confidence_gain *= 1.1
    source.offsets += 1
    source.thresholds += 0.1
    state = ClassState(3, 0.5, calibrates=kept, corrects=kept)
    fresh = ClassState(3, 0.5)
    state.load_state_dict(source.state_dict())
    for name in ('calibration', 'confidence_gain', 'offsets'):
        assert torch.equal(getattr(state, name), getattr(source if kept else fresh, name))
    assert torch.equal(state.thresholds, source.thresholds)


def test_clear_empties_what_is_named() -> None:
    state = ClassState(2, 0.5)
    state.kept += 3
    state.num_images += 4
    state.clear('kept')
    assert state.kept.sum() == 0
    assert state.num_images == 4


@pytest.mark.parametrize('rank', [0, 1])
def test_only_rank_0_goes_on_with_the_accumulators(monkeypatch, rank: int) -> None:
    """A checkpoint holds rank 0's share; the sum over ranks must count it once."""
    source = ClassState(2, 0.5)
    for _, buffer in source.named_buffers():
        buffer += 1
    monkeypatch.setattr(module, 'get_rank', lambda: rank)
    state = ClassState(2, 0.5)
    state.load_state_dict(source.state_dict())
    for name in source.state_dict():
        buffer = state.get_buffer(name)
        emptied = rank > 0 and name in ClassState.ACCUMULATORS
        expected = torch.zeros_like(buffer) if emptied else source.get_buffer(name)
        assert torch.equal(buffer, expected), name


def test_without_a_labeller_no_class_has_a_group() -> None:
    state, fresh = ClassState(4, 0.5), ClassState(4, 0.6)
    for name in ('boosts', 'prototype_weights', 'thresholds', 'groups'):
        getattr(state, name).add_(2)
    state.forget_labeller(0.6)
    for name in ('boosts', 'prototype_weights', 'thresholds', 'groups'):
        assert torch.equal(getattr(state, name), getattr(fresh, name)), name
