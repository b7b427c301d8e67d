"""The gate on given labels against scipy's optimiser, closed forms and brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from mmdet_softpl.functional.label_gate import (
    balanced_threshold,
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


def test_balanced_threshold_by_brute_force() -> None:
    evidence, right = sample(60)
    weights = evidence[:, 0].round(decimals=1)  # with ties
    found = balanced_threshold(weights, right)

    def worse_side(threshold: float) -> float:
        keep = weights >= threshold
        return min(float(keep[right].double().mean()), float((~keep[~right]).double().mean()))

    best = max(worse_side(float(t)) for t in weights)
    assert worse_side(found) == pytest.approx(best) and best > 0.6


def test_balanced_threshold_lies_between_what_is_kept_and_dropped() -> None:
    weights = torch.tensor([0.1, 0.2, 0.6, 0.9], dtype=torch.double)
    right = torch.tensor([False, False, True, True])
    assert balanced_threshold(weights, right) == pytest.approx(0.4)
    # All labels of one weight: there is nothing between.
    assert balanced_threshold(torch.full_like(weights, 0.3), right) == pytest.approx(0.3)


@pytest.mark.parametrize('precision', [0.5, 0.9, 1.0])
def test_precision_threshold_by_brute_force(precision: float) -> None:
    weights = torch.tensor([0.1, 0.2, 0.2, 0.5, 0.6, 0.9], dtype=torch.double)
    right = torch.tensor([False, True, False, False, True, True])

    def reached(threshold: float) -> float:
        keep = weights >= threshold
        good = 0.6 * float(keep[right].double().mean())
        bad = 0.4 * float(keep[~right].double().mean())
        return good / (good + bad)

    found = precision_threshold(weights, right, precision, wrong_share=0.4)
    possible = [float(t) for t in weights if reached(float(t)) >= precision]
    assert found == min(possible)


def test_precision_out_of_reach() -> None:
    weights = torch.tensor([0.1, 0.9], dtype=torch.double)
    assert precision_threshold(weights, torch.tensor([True, False]), 0.9) is None
