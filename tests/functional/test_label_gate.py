"""The gate on given labels against scipy's optimiser, closed forms and brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from mmdet_softpl.functional import (
    balanced_threshold,
    class_importance,
    fit_label_gate,
    label_weights,
    precision_threshold,
)

RIDGE = 0.01


def sample(count: int = 400, columns: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Evidence whose first column says much and whose last one says nothing."""
    rng = np.random.default_rng(seed)
    right = rng.random(count) < 0.6
    strength = np.linspace(2, 0, columns)
    log_odds = rng.normal(size=(count, columns)) + np.where(right, 1, -1)[:, None] * strength
    return torch.from_numpy(1 / (1 + np.exp(-log_odds))), torch.from_numpy(right)


def test_fit_equals_a_general_optimiser() -> None:
    evidence, right = sample()
    share = 0.1
    x = torch.logit(evidence.clamp(1e-4, 1 - 1e-4)).numpy()
    y = right.numpy().astype(float)
    w = np.where(y > 0, (1 - share) / y.sum(), share / (1 - y).sum())
    mean = (w[:, None] * x).sum(0)
    z = (x - mean) / np.sqrt((w[:, None] * (x - mean) ** 2).sum(0))

    def loss(b: np.ndarray) -> float:
        s = b[0] + z @ b[1:]
        nll = (w * (np.logaddexp(0, s) - y * s)).sum()
        return nll + RIDGE / 2 * (b[1:] ** 2).sum()

    best = minimize(loss, np.zeros(4), method='BFGS', options=dict(gtol=1e-10)).x
    expected = 1 / (1 + np.exp(-(best[0] + z @ best[1:])))
    gate = fit_label_gate(evidence, right, share, RIDGE)
    np.testing.assert_allclose(label_weights(evidence, gate).numpy(), expected, atol=1e-4)
    assert gate[1] > gate[2] > 0.1 > abs(float(gate[3]))


@pytest.mark.parametrize('share', [0.05, 0.5, 0.9])
def test_without_information_the_weight_is_the_assumed_share(share: float) -> None:
    evidence = torch.full((30, 2), 0.4)
    right = torch.arange(30) % 3 == 0
    gate = fit_label_gate(evidence, right, share)
    torch.testing.assert_close(
        label_weights(evidence, gate), torch.full((30,), 1 - share, dtype=torch.double)
    )


def test_mean_weight_is_the_assumed_share_of_right_labels() -> None:
    # The likelihood equation of the bias, which is not penalised.
    evidence, right = sample()
    weights = label_weights(evidence, fit_label_gate(evidence, right, 0.3))
    mean = 0.7 * weights[right].mean() + 0.3 * weights[~right].mean()
    assert float(mean) == pytest.approx(0.7, abs=1e-6)


def test_certain_evidence_stays_finite() -> None:
    right = torch.arange(40) < 20
    evidence = right.double()[:, None]
    gate = fit_label_gate(evidence, right, 0.5)
    weights = label_weights(evidence, gate)
    assert gate.isfinite().all() and weights[right].min() > 0.9 and weights[~right].max() < 0.1


def test_no_label() -> None:
    gate = torch.tensor([0.0, 1.0, 1.0], dtype=torch.double)
    assert label_weights(torch.zeros(0, 2), gate).shape == (0,)


@pytest.mark.parametrize(
    ('right', 'share', 'ridge'),
    [
        (torch.ones(4).bool(), 0.5, 0.1),
        (torch.zeros(4).bool(), 0.5, 0.1),
        (torch.zeros(0).bool(), 0.5, 0.1),
        (torch.tensor([True, False, True, False]), 0.0, 0.1),
        (torch.tensor([True, False, True, False]), 1.0, 0.1),
        (torch.tensor([True, False, True, False]), 0.5, 0.0),
    ],
)
def test_errors_of_the_fit(right: torch.Tensor, share: float, ridge: float) -> None:
    with pytest.raises(ValueError, match='the gate needs'):
        fit_label_gate(torch.rand(len(right), 2), right, share, ridge)


def test_importance_gives_a_sample_the_mix_of_classes_elsewhere() -> None:
    many = 10**6  # beside which five labels are nothing
    labels = torch.tensor([0, 1, 2]).repeat_interleave(torch.tensor([many, 2 * many, many]))
    elsewhere = torch.tensor([2, 2, 2, 0]).repeat(many)
    importance = class_importance(labels, elsewhere, num_classes=4)
    mass = [float(importance[labels == c].sum()) / len(labels) for c in range(3)]
    assert mass == pytest.approx([0.25, 0, 0.75], abs=1e-4)
    assert importance.min() > 0


def test_importance_of_few_labels_is_near_one() -> None:
    # (1 * 2 / 2 + 5) / (2 + 5) and (1 + 5) / (0 + 5), by hand.
    importance = class_importance(torch.tensor([0, 0]), torch.tensor([0, 1]), num_classes=2)
    torch.testing.assert_close(importance, torch.full((2,), 6 / 7, dtype=torch.double))
    one_class = class_importance(torch.zeros(3).long(), torch.zeros(9).long(), num_classes=1)
    torch.testing.assert_close(one_class, torch.ones(3, dtype=torch.double))


def test_importance_without_labels() -> None:
    none = torch.zeros(0, dtype=torch.long)
    assert class_importance(none, torch.tensor([1]), num_classes=2).shape == (0,)
    ones = class_importance(torch.tensor([0, 1, 1]), none, num_classes=2)
    torch.testing.assert_close(ones, torch.ones(3, dtype=torch.double))


@pytest.mark.parametrize('uneven', [False, True])
def test_balanced_threshold_by_brute_force(uneven: bool) -> None:
    evidence, right = sample(60)
    weights = evidence[:, 0].round(decimals=1)  # with ties
    importance = 1 + uneven * torch.arange(60).double()
    found = balanced_threshold(weights, right, importance)

    def mean(values: torch.Tensor, of: torch.Tensor) -> float:
        return float((values * importance)[of].sum() / importance[of].sum())

    def worse_side(threshold: float) -> float:
        keep = weights >= threshold
        return min(mean(keep, right), mean(~keep, ~right))

    best = max(worse_side(float(t)) for t in weights)
    assert worse_side(found) == pytest.approx(best) and best > 0.6


def test_balanced_threshold_lies_between_what_is_kept_and_dropped() -> None:
    weights = torch.tensor([0.1, 0.2, 0.6, 0.9], dtype=torch.double)
    right = torch.tensor([False, False, True, True])
    ones = torch.ones_like(weights)
    assert balanced_threshold(weights, right, ones) == pytest.approx(0.4)
    # All labels of one weight: there is nothing between.
    assert balanced_threshold(0.3 * ones, right, ones) == pytest.approx(0.3)


def test_labels_that_count_more_move_the_threshold() -> None:
    # The wrong label of 0.7 is of a class that hardly occurs elsewhere, then of one that does.
    weights = torch.tensor([0.1, 0.2, 0.4, 0.6, 0.7, 0.9], dtype=torch.double)
    right = torch.tensor([False, False, True, True, False, True])
    importance = torch.ones_like(weights)
    importance[4] = 0.01
    assert balanced_threshold(weights, right, importance) == pytest.approx(0.3)
    importance[4] = 100
    assert balanced_threshold(weights, right, importance) == pytest.approx(0.8)


@pytest.mark.parametrize('uneven', [False, True])
@pytest.mark.parametrize('precision', [0.5, 0.9, 1.0])
def test_precision_threshold_by_brute_force(precision: float, uneven: bool) -> None:
    weights = torch.tensor([0.1, 0.2, 0.2, 0.5, 0.6, 0.9], dtype=torch.double)
    importance = 1 + uneven * torch.arange(6).double()
    right = torch.tensor([False, True, False, False, True, True])

    def reached(threshold: float) -> float:
        keep = weights >= threshold
        kept = keep * importance
        good = 0.6 * float(kept[right].sum() / importance[right].sum())
        bad = 0.4 * float(kept[~right].sum() / importance[~right].sum())
        return good / (good + bad)

    found = precision_threshold(weights, right, importance, precision, wrong_share=0.4)
    possible = [float(t) for t in weights if reached(float(t)) >= precision]
    assert found == min(possible)


def test_precision_out_of_reach() -> None:
    weights = torch.tensor([0.1, 0.9], dtype=torch.double)
    right = torch.tensor([True, False])
    assert precision_threshold(weights, right, torch.ones_like(weights), 0.9) is None
