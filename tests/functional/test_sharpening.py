"""sharpen_scores: shares to the power of 1 / T."""

from __future__ import annotations

import pytest
import torch

from mmdet_softpl.functional import sharpen_scores


def scores_of(rows: int, num_classes: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, num_classes + 1, generator=generator, dtype=torch.float64).softmax(1)


@pytest.mark.parametrize('temperature', [0.25, 0.5, 2.0])
def test_is_the_formula(temperature: float) -> None:
    scores = scores_of(7, 5)
    found = sharpen_scores(scores, temperature)
    for row, mine in zip(scores.tolist(), found.tolist(), strict=True):
        *foreground, background = row
        powers = [p ** (1 / temperature) for p in foreground]
        expected = [(1 - background) * power / sum(powers) for power in powers]
        assert mine == pytest.approx([*expected, background])


def test_is_a_temperature_of_the_logits_among_the_classes() -> None:
    logits = torch.randn(9, 4)
    scores = logits.softmax(1)
    found = sharpen_scores(scores, 0.5)
    shares = found[:, :-1] / found[:, :-1].sum(1, keepdim=True)
    torch.testing.assert_close(shares, (logits[:, :-1] / 0.5).softmax(1))
    torch.testing.assert_close(found[:, -1], scores[:, -1])


def test_one_is_the_scores_themselves() -> None:
    scores = scores_of(3, 4)
    assert sharpen_scores(scores, 1.0) is scores


def test_tiny_scores_do_not_underflow() -> None:
    found = sharpen_scores(torch.tensor([[1e-30, 2e-30, 0.0, 0.5]]), 0.25)
    torch.testing.assert_close(found, torch.tensor([[0.5 / 17, 0.5 * 16 / 17, 0.0, 0.5]]))


def test_half_precision_becomes_float32() -> None:
    found = sharpen_scores(scores_of(4, 3).half(), 0.5)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.sum(1), torch.ones(4), atol=1e-3, rtol=0)


def test_no_row_one_class_and_background_alone() -> None:
    assert sharpen_scores(torch.zeros(0, 6), 0.5).shape == (0, 6)
    torch.testing.assert_close(
        sharpen_scores(torch.tensor([[0.3, 0.7]]), 0.5), torch.tensor([[0.3, 0.7]])
    )
    background = torch.tensor([[0.0, 0.0, 1.0]])
    torch.testing.assert_close(sharpen_scores(background, 0.5), background)


@pytest.mark.parametrize('rows, num_classes', [(3, 4), (0, 4), (3, 1)])
def test_gradients(rows: int, num_classes: int) -> None:
    scores = scores_of(rows, num_classes).requires_grad_()
    if rows:
        assert torch.autograd.gradcheck(lambda p: sharpen_scores(p, 0.5), (scores,))
    else:
        sharpen_scores(scores, 0.5).sum().backward()
        assert scores.grad is not None and scores.grad.shape == scores.shape


def test_gradient_of_background_alone_is_finite() -> None:
    scores = torch.tensor([[0.0, 0.0, 1.0]], requires_grad=True)
    sharpen_scores(scores, 0.5).sum().backward()
    assert scores.grad is not None and scores.grad.isfinite().all()


@pytest.mark.parametrize('temperature', [0.0, -1.0])
def test_a_temperature_that_is_not_above_zero(temperature: float) -> None:
    with pytest.raises(ValueError, match=f'must be > 0, got {temperature}'):
        sharpen_scores(scores_of(1, 2), temperature)
