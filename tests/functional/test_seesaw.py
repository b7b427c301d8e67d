"""Seesaw loss on joint logits against mmdet's own class."""

from __future__ import annotations

import pytest
import torch
from mmdet.models.losses import SeesawLoss
from torch import Tensor

from mmdet_softpl.functional import (
    ClassSimilarity,
    joint_logits,
    own_coefficients,
    seesaw_excess,
    smoothing_table,
    soft_cross_entropy,
)
from tests.support.loops import loop_targets

ROWS = (0, 1, 9)


def draw(num_rois: int, num_classes: int, kind: str = 'mixed') -> tuple[Tensor, Tensor, Tensor]:
    """Scores (N, C+2), labels (N,) and counts (C,) of a tail, one of them 0."""
    generator = torch.Generator().manual_seed(7 * num_rois + num_classes)
    scores = 3 * torch.randn(num_rois, num_classes + 2, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, num_classes + 1, (num_rois,), generator=generator)
    if kind == 'background':
        labels = torch.full_like(labels, num_classes)
    counts = torch.tensor([0.0, 3, 50, 400, 12, 1])[-num_classes:]
    return scores.requires_grad_(), labels, counts


def host(p: float, q: float, counts: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    """mmdet's two losses, summed over the RoIs, from what it has counted before them."""
    num_classes = len(counts)
    loss = SeesawLoss(num_classes=num_classes, p=p, q=q, reduction='sum')
    before = counts - labels.bincount(minlength=num_classes + 1)[:num_classes]
    loss.cum_samples = torch.cat([before, torch.zeros(1)]).double()
    return sum(loss(scores, labels).values())


@pytest.mark.parametrize('num_rois', ROWS)
@pytest.mark.parametrize('num_classes', [1, 2, 6])
@pytest.mark.parametrize('kind', ['mixed', 'background'])
@pytest.mark.parametrize(('p', 'q'), [(0.0, 0.0), (0.8, 0.0), (0.0, 2.0), (0.8, 2.0)])
def test_cross_entropy_with_the_excess_is_the_hosts_loss(
    num_rois: int, num_classes: int, kind: str, p: float, q: float
) -> None:
    scores, labels, counts = draw(num_rois, num_classes, kind)
    logits = joint_logits(scores)
    plain = torch.nn.functional.cross_entropy(logits, labels, reduction='none')
    ours = plain + seesaw_excess(scores, labels, counts, p, q, 1e-2)
    assert ours.shape == (num_rois,)
    theirs = host(p, q, counts, scores, labels)
    torch.testing.assert_close(ours.sum(), theirs, check_dtype=False)
    if num_rois:
        (mine,) = torch.autograd.grad(ours.sum(), scores)
        (expected,) = torch.autograd.grad(theirs, scores)
        torch.testing.assert_close(mine, expected, rtol=1e-6, atol=1e-9)
    else:
        (mine,) = torch.autograd.grad(ours.sum(), scores)
        assert mine.shape == scores.shape


def test_background_has_no_excess() -> None:
    scores, labels, counts = draw(9, 6)
    excess = seesaw_excess(scores, labels, counts, 0.8, 2.0, 1e-2)
    assert torch.equal(excess[labels == 6], torch.zeros(int((labels == 6).sum())).double())
    assert (excess[labels < 6] != 0).any()


@pytest.mark.parametrize('num_classes', [1, 2, 6])
def test_the_softmax_of_joint_logits_is_the_hosts_activation(num_classes: int) -> None:
    scores, _, _ = draw(9, num_classes)
    logits = joint_logits(scores)
    expected = SeesawLoss(num_classes=num_classes).get_activation(scores)
    torch.testing.assert_close(logits.softmax(1), expected)
    torch.testing.assert_close(logits.exp(), expected)


def test_soft_targets_split_into_objectness_and_classes() -> None:
    """Closed form: the object's mass against the classes, given that there is an object."""
    scores, _, _ = draw(9, 6)
    targets = torch.rand(9, 7, dtype=torch.float64).softmax(1)
    mass = targets[:, :-1].sum(1)
    objectness = torch.stack([mass, targets[:, -1]], 1)
    expected = soft_cross_entropy(scores[:, -2:], objectness) + mass * soft_cross_entropy(
        scores[:, :-2], targets[:, :-1] / mass[:, None]
    )
    torch.testing.assert_close(soft_cross_entropy(joint_logits(scores), targets), expected)


def test_confident_scores_keep_their_digits() -> None:
    label, counts = torch.tensor([1]), torch.ones(3)
    found = []
    for dtype in (torch.float32, torch.float64):
        scores = torch.tensor([[20.0, -200, 0, 200, -200]], dtype=dtype, requires_grad=True)
        logits = joint_logits(scores)
        excess = seesaw_excess(scores, label, counts, 0.8, 2.0, 1e-2)
        (logits[0, 1] + excess.sum()).backward()
        found.append((logits, excess, scores.grad))
    for single, double in zip(*found, strict=True):
        torch.testing.assert_close(single, double, check_dtype=False, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype: torch.dtype) -> None:
    scores, labels, counts = draw(9, 6)
    narrow = scores.detach().to(dtype)
    for function in (joint_logits, lambda x: seesaw_excess(x, labels, counts, 0.8, 2.0, 1e-2)):
        found = function(narrow)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, function(narrow.float()), rtol=0, atol=0)


def test_without_a_lower_bound_a_class_may_have_no_probability() -> None:
    scores = torch.tensor([[0.0, -300, 1, 0, 0]])
    excess = seesaw_excess(scores, torch.tensor([1]), torch.ones(3), 0.0, 2.0, 0.0)
    # The best class is about exp(301) times as likely as the label, squared.
    assert float(excess) == pytest.approx(2 * 301, rel=0.01)


def test_a_target_with_its_own_class_among_the_neighbours() -> None:
    """What the inflow cap gives back to a class is its own."""
    similarity = ClassSimilarity(
        torch.tensor([[1, 2], [1, 0], [0, 1], [0, 0]]),
        torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.0, 0.0], [1.0, 0.0]]),
    )
    epsilon = torch.tensor([0.1, 0.2, 0.3, 0.0])
    own = own_coefficients(smoothing_table(epsilon, similarity))
    torch.testing.assert_close(own, torch.tensor([0.9, 0.9, 0.7, 1.0, 1.0]))
    dense = loop_targets(torch.arange(5), epsilon, similarity, 4)
    torch.testing.assert_close(own, dense.diagonal())
