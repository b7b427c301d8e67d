"""Weights of another mix of classes, against closed forms."""

from __future__ import annotations

import pytest
import torch

from mmdet_softpl.evaluation.class_mix import mix_difference, mix_weights
from tests.support import tiny_labelling

STATISTICS = tiny_labelling.statistics()


def test_weights_stand_for_another_mix() -> None:
    objects = torch.as_tensor(STATISTICS.instance_counts)
    weights = mix_weights(STATISTICS, objects, STATISTICS.num_images, prior=1e-6)
    torch.testing.assert_close(weights, torch.ones(5))
    # Twice as many objects on half of the images: one in four counts.
    weights = mix_weights(STATISTICS, objects * 2, STATISTICS.num_images // 2, prior=1e-6)
    torch.testing.assert_close(weights, torch.full((5,), 0.25))
    assert mix_difference(STATISTICS, objects * 3) == pytest.approx(0)
    other = torch.tensor([0, 0, 0, 0, 10])
    assert mix_difference(STATISTICS, other) == pytest.approx(90 / 290)
