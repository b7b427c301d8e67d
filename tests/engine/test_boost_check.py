"""The bias check leaves the detector as it was, also after an error."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from mmdet_softpl.engine.boost_check import plain_scores
from mmdet_softpl.models.class_state import ClassState


def test_plain_scores_are_put_back() -> None:
    state = ClassState(3, 0.5)
    state.boosts.copy_(torch.tensor([4.0, 2.0, 1.0]))
    state.prototype_weights.copy_(torch.tensor([1.0, 0.5, 0.0]))
    before = {key: value.clone() for key, value in state.state_dict().items()}
    detector = SimpleNamespace(class_state=state)
    with plain_scores(detector):
        assert state.boosts.tolist() == [1, 1, 1]
        assert state.prototype_weights.tolist() == [0, 0, 0]
    with pytest.raises(KeyError), plain_scores(detector):
        raise KeyError
    assert all(torch.equal(before[key], value) for key, value in state.state_dict().items())
