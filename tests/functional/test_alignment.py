"""Alignment of boosts against closed forms and against a teacher that learns its own labels."""

from __future__ import annotations

import pytest
import torch

from mmdet_softpl.functional import (
    align_boosts,
    boost_scores,
    follow_labelled_shares,
    wanted_mass,
)

GROUPS = torch.tensor([0, 0, 1, 2])


@pytest.mark.parametrize('factor', [1, 5, 15])
def test_more_frequent_objects_than_labelled_ones_boost_nobody(factor: int) -> None:
    """LVIS annotates frequent classes in some of their images. A teacher that knows the truth."""
    generator = torch.Generator().manual_seed(0)
    groups, images = torch.tensor([0, 0, 1, 1, 2, 2]), 2000
    rate = torch.tensor([0.01, 0.01, 0.1, 0.1, 0.5, 0.5])
    true = rate * torch.tensor([1, 1, 1, 1, factor, factor])
    labels = torch.repeat_interleave(torch.arange(6), (true * images).round().long())
    seen = torch.randn(len(labels), 6, generator=generator)
    seen[torch.arange(len(labels)), labels] += 3
    # The exact posterior of unit normals around 3 on the axis of each class.
    posterior = (3 * seen + true.log()).softmax(1)
    scores = torch.cat([0.9 * posterior, torch.full((len(labels), 1), 0.1)], 1)
    boosts = torch.ones(6)
    for _ in range(60):
        mass = boost_scores(scores, boosts)[:, :-1].sum(0)
        boosts = follow_labelled_shares(
            boosts, mass, rate, torch.ones(6), groups, 0.5, groups == 2, images
        )
    assert boosts.min() > 0.3 and boosts.max() < 2
    assert torch.equal(boosts[4:], torch.ones(2))
    torch.testing.assert_close(
        mass[:4] / (0.9 * true[:4] * images), torch.ones(4), atol=0.2, rtol=0
    )


def test_boosted_labels_do_not_multiply_where_frequent_shares_are_unknown() -> None:
    """The next teacher has learnt the boosted labels."""
    rate, groups = torch.tensor([0.1, 0.1, 0.2, 1.0]), GROUPS
    mass, boosts = 1000 * rate, torch.ones(4)
    for _ in range(100):
        boosts = follow_labelled_shares(
            boosts,
            mass * boosts,
            rate,
            torch.tensor([3.0, 3, 1, 1]),
            groups,
            0.5,
            groups == 2,
            1000,
        )
        mass = mass * boosts
    assert (mass[:3] <= 1.1 * 1000 * rate[:3] * torch.tensor([3.0, 3, 1])).all()


def test_classes_of_unknown_share_keep_their_boost_and_pull_no_one() -> None:
    boosts = torch.tensor([2.0, 1.0, 1.0, 3.0])
    mass = torch.tensor([10.0, 20.0, 30.0, 40.0])
    rate, wanted_boosts = torch.tensor([1.0, 2.0, 3.0, 0.01]), torch.ones(4)
    none = torch.zeros(4, dtype=torch.bool)
    last = torch.tensor([False, False, False, True])

    def step(unknown: torch.Tensor, images: float | None) -> torch.Tensor:
        return follow_labelled_shares(
            boosts, mass, rate, wanted_boosts, GROUPS, 0.5, unknown, images
        )

    def stepped(*wanted: float) -> torch.Tensor:
        return align_boosts(boosts, mass, torch.tensor(wanted), GROUPS, 0.5)

    whole = wanted_mass(mass, rate, wanted_boosts)
    for images in (None, 5.0, 1000.0):
        assert torch.equal(step(none, images), align_boosts(boosts, mass, whole, GROUPS, 0.5))
        assert step(none, images)[3] < boosts[3] and step(last, images)[3] == boosts[3]
    # As if it had exactly what it wants.
    torch.testing.assert_close(step(last, None)[:3], stepped(*whole[:3].tolist(), 40.0)[:3])
    # Where its rate is a lower bound the others share what is theirs, and no more than they have.
    torch.testing.assert_close(step(last, 1000.0)[:3], stepped(10, 20, 30, 40)[:3])
    torch.testing.assert_close(step(last, 5.0)[:3], stepped(5, 10, 15, 40)[:3])


def test_wanted_mass_by_hand() -> None:
    mass = torch.tensor([1.0, 2.0, 3.0, 94.0])
    rate = torch.tensor([0.1, 0.1, 0.2, 1.2])
    boost = torch.tensor([4.0, 1.0, 1.0, 1.0])
    expected = 100 * torch.tensor([0.4, 0.1, 0.2, 1.2]) / 1.9
    assert torch.allclose(wanted_mass(mass, rate, boost), expected)


def test_one_step_without_shrinkage_is_the_ratio() -> None:
    boosts = torch.tensor([2.0, 1.0, 0.5, 1.0])
    mass = torch.tensor([100.0, 400.0, 900.0, 100.0])
    wanted = torch.tensor([400.0, 100.0, 900.0, 100.0])
    whole = align_boosts(boosts, mass, wanted, GROUPS, rate=1.0, prior=1e-6)
    assert torch.allclose(whole, torch.tensor([8.0, 0.25, 0.5, 1.0]), rtol=1e-4)
    half = align_boosts(boosts, mass, wanted, GROUPS, rate=0.5, prior=1e-6)
    assert torch.allclose(half, torch.tensor([4.0, 0.5, 0.5, 1.0]), rtol=1e-4)
    assert torch.equal(align_boosts(boosts, mass, wanted, GROUPS, rate=0.0), boosts)


def test_few_labels_move_little() -> None:
    one = torch.ones(4)
    few = align_boosts(one, torch.full((4,), 0.1), torch.tensor([1.0, 0.1, 0.1, 0.1]), GROUPS)
    many = align_boosts(one, torch.full((4,), 1e3), torch.tensor([1e4, 1e3, 1e3, 1e3]), GROUPS)
    assert 1 < few[0] < 1.1
    assert many[0] > 3


@pytest.mark.parametrize('limit', [1.0, 4.0])
def test_stays_within_the_limit(limit: float) -> None:
    mass, wanted = torch.tensor([1e6, 1.0, 1.0, 1.0]), torch.tensor([1.0, 1e6, 1.0, 1.0])
    boosts = torch.ones(4)
    for _ in range(20):
        boosts = align_boosts(boosts, mass, wanted, GROUPS, limit=limit)
    assert boosts[0] == pytest.approx(1 / limit)
    assert boosts[1] == pytest.approx(limit)


def test_nothing_seen_and_one_class() -> None:
    assert torch.equal(
        align_boosts(torch.ones(4), torch.zeros(4), torch.zeros(4), GROUPS), torch.ones(4)
    )
    one = torch.tensor([7.0])
    assert torch.equal(wanted_mass(one, torch.tensor([0.3]), torch.tensor([4.0])), one)
    assert torch.equal(align_boosts(torch.ones(1), one, one, torch.tensor([0])), torch.ones(1))
    # No class has a labelled instance: nothing is wanted, and nothing is divided by 0.
    assert torch.equal(wanted_mass(one, torch.zeros(1), torch.ones(1)), torch.zeros(1))


def test_refuses_no_prior() -> None:
    with pytest.raises(ValueError, match='> 0 pseudo-counts, got 0'):
        align_boosts(torch.ones(4), torch.ones(4), torch.ones(4), GROUPS, prior=0)


def test_a_teacher_that_learns_its_own_labels_keeps_its_shares() -> None:
    """Every round the teacher learns a fifth of what its labels add to its own scores, which a
    moving average over a refresh comes to. Boosted alone, it ends in the rare classes.
    """
    generator = torch.Generator().manual_seed(0)
    rate = torch.tensor([0.02, 0.02, 0.2, 2.0])
    frequency_boosts = torch.tensor([4.0, 4.0, 1.0, 1.0])
    logits = torch.randn(4000, 4, generator=generator) + rate.log()
    start = torch.cat([0.9 * logits.softmax(1), torch.full((4000, 1), 0.1)], dim=1)

    def shares(align: bool) -> torch.Tensor:
        scores, boosts = start, frequency_boosts.clone()
        for _ in range(60):
            mass = boost_scores(scores, boosts)[:, :-1].sum(0)
            scores = boost_scores(scores, boosts.pow(0.2))
            if align:
                wanted = wanted_mass(mass, rate, frequency_boosts)
                boosts = align_boosts(boosts, mass, wanted, GROUPS)
        return mass / mass.sum()

    wanted = rate * frequency_boosts / (rate * frequency_boosts).sum()
    assert shares(align=False)[:2].sum() > 0.99
    assert torch.allclose(shares(align=True), wanted, rtol=0.15)


def test_where_shares_are_unknown_nobody_wants_more_than_the_boosted_labels():
    """Class 0 is unknown; of 1 and 2 the wanted boosts allow 2 x 3 and 1 x 1 an image."""
    rate, wanted = torch.tensor([5.0, 2.0, 1.0]), torch.tensor([1.0, 3.0, 1.0])
    mass = torch.tensor([100.0, 4000.0, 4000.0])
    unknown = torch.tensor([True, False, False])
    found = follow_labelled_shares(
        torch.ones(3), mass, rate, wanted, torch.tensor([2, 0, 1]), 1.0, unknown, 100
    )
    # Alone in their groups; 20 pseudo-counts move counts of hundreds little.
    assert found[0] == 1
    assert found[1:].tolist() == pytest.approx([2 * 3 * 100 / 4000, 1 * 1 * 100 / 4000], rel=0.15)
