"""Groups and boosts against plain Python; re-weighted scores against a loop over rows."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_softpl.functional import (
    COMMON,
    FREQUENT,
    GROUP_NAMES,
    RARE,
    boost_scores,
    frequency_boost,
    frequency_groups,
    rebalancing_shifts,
)


def random_scores(num_rois, num_classes, seed=0, dtype=torch.float32):
    gen = torch.Generator().manual_seed(seed)
    return torch.randn(num_rois, num_classes + 1, generator=gen, dtype=dtype).softmax(1)


def boost_reference(scores, boost, evidence=None):
    """One row and one class at a time, in Python floats."""
    out = []
    for i, row in enumerate(scores.tolist()):
        *foreground, background = row
        mass = [
            p * boost[j].item() * (1.0 if evidence is None else math.exp(evidence[i, j].item()))
            for j, p in enumerate(foreground)
        ]
        total = sum(mass)
        out.append([(1 - background) * m / total if total else 0.0 for m in mass] + [background])
    return torch.tensor(out).reshape(scores.shape)


def test_groups_at_the_lvis_borders():
    groups = frequency_groups(torch.tensor([0, 1, 10, 11, 100, 101, 5000]))
    assert groups.tolist() == [RARE, RARE, RARE, COMMON, COMMON, FREQUENT, FREQUENT]
    assert groups.dtype == torch.int64
    assert [GROUP_NAMES[g] for g in (RARE, COMMON, FREQUENT)] == ['rare', 'common', 'frequent']


def test_groups_of_float_counts():
    assert frequency_groups(torch.tensor([10.0, 11.0, 100.0, 101.0])).tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize('gamma', [0.0, 0.5, 1.0])
@pytest.mark.parametrize('target', [None, 30.0])
def test_boost_is_the_formula(gamma, target):
    counts = np.array([1, 0, 3, 8, 40, 200, 3000, 0, 17])
    reference = np.median(counts[counts > 0]) if target is None else target
    expected = [
        float(np.clip((reference / m) ** gamma, 1, 4)) if m else 1.0 for m in counts.tolist()
    ]
    actual = frequency_boost(torch.from_numpy(counts), target, gamma, max_boost=4.0)
    torch.testing.assert_close(actual, torch.tensor(expected))


def test_boost_does_not_depend_on_the_size_of_the_data_set():
    counts = torch.tensor([2.0, 7.0, 30.0, 500.0])
    torch.testing.assert_close(frequency_boost(counts), frequency_boost(counts * 37))


def test_boost_without_any_labelled_image_and_with_one_class():
    assert frequency_boost(torch.zeros(3)).tolist() == [1, 1, 1]
    assert frequency_boost(torch.tensor([5])).tolist() == [1]
    assert frequency_boost(torch.zeros(0)).shape == (0,)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'gamma': -0.1}, 'gamma.*-0.1'),
        ({'max_boost': 0.5}, 'max_boost.*0.5'),
        ({'target': 0.0}, 'target.*0.0'),
    ],
)
def test_boost_rejects_parameters_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        frequency_boost(torch.tensor([1, 2]), **arguments)


@pytest.mark.parametrize('num_classes', [1, 2, 9])
@pytest.mark.parametrize('with_evidence', [False, True])
def test_scores_match_the_loop(num_classes, with_evidence):
    gen = torch.Generator().manual_seed(num_classes)
    scores = random_scores(20, num_classes)
    boost = 1 + 3 * torch.rand(num_classes, generator=gen)
    evidence = torch.randn(20, num_classes, generator=gen) if with_evidence else None
    actual = boost_scores(scores, boost, evidence)
    torch.testing.assert_close(actual, boost_reference(scores, boost, evidence))
    torch.testing.assert_close(actual.sum(1), torch.ones(20))
    assert torch.equal(actual[:, -1], scores[:, -1])


def test_scores_stay_without_boost_and_evidence():
    scores = random_scores(8, 5)
    torch.testing.assert_close(boost_scores(scores, torch.ones(5)), scores)


def test_evidence_counts_up_to_a_constant_per_row():
    scores, evidence = random_scores(8, 5), random_scores(8, 4, seed=1).log()
    shifted = evidence + torch.tensor([-80.0, 80, 0, 5, -300, 1, 2, 3])[:, None]
    torch.testing.assert_close(
        boost_scores(scores, torch.ones(5), shifted),
        boost_scores(scores, torch.ones(5), evidence),
        rtol=1e-4,
        atol=1e-5,
    )


def test_scores_of_rows_without_foreground():
    scores = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.25, 0.75], [0.0, 0.0, 0.5]])
    actual = boost_scores(scores, torch.tensor([4.0, 1.0]), torch.tensor([[50.0, 0.0]] * 3))
    assert torch.equal(actual, scores)


def test_scores_of_no_rows():
    assert boost_scores(torch.zeros(0, 4), torch.ones(3), torch.zeros(0, 3)).shape == (0, 4)


def test_scores_do_not_underflow():
    scores = torch.tensor([[1e-30, 1e-30, 1.0 - 2e-30]])
    evidence = torch.tensor([[-200.0, -200.0 + math.log(3.0)]])
    scores[0, -1] = 0.9
    actual = boost_scores(scores, torch.ones(2), evidence)
    torch.testing.assert_close(actual, torch.tensor([[0.025, 0.075, 0.9]]))


def test_scores_in_bfloat16_are_computed_in_float32():
    scores = random_scores(6, 4).bfloat16()
    actual = boost_scores(scores, torch.full((4,), 2.0).bfloat16())
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, boost_scores(scores.float(), torch.full((4,), 2.0)))


def test_scores_have_the_gradient_of_finite_differences():
    scores = random_scores(3, 4, dtype=torch.float64).requires_grad_()
    evidence = random_scores(3, 3, 1, torch.float64).log().requires_grad_()
    boost = torch.tensor([1.0, 2.0, 3.0, 1.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s, e: boost_scores(s, boost, e), (scores, evidence))


def test_the_gradient_of_a_row_without_foreground_is_finite():
    scores = torch.tensor([[0.0, 0.0, 1.0]], requires_grad=True)
    boost_scores(scores, torch.tensor([2.0, 1.0])).sum().backward()
    assert scores.grad.isfinite().all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), extra=st.floats(1.01, 10))
def test_a_larger_boost_takes_from_the_other_classes_only(seed, extra):
    scores = random_scores(4, 5, seed)
    boost = torch.ones(5)
    boost[2] = extra
    actual = boost_scores(scores, boost)
    assert (actual[:, 2] > scores[:, 2]).all()
    assert (actual[:, [0, 1, 3, 4]] < scores[:, [0, 1, 3, 4]]).all()
    assert torch.equal(actual[:, 5], scores[:, 5])


@pytest.mark.parametrize('gamma', [0.0, 0.4, 1.0, 2.0])
def test_rebalancing_shifts_divide_scores_by_the_frequencies(gamma):
    counts = torch.tensor([1, 10, 100, 0])  # the last class was never seen, and stays
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    shifts = torch.cat([rebalancing_shifts(counts, gamma), torch.zeros(1)])
    found = (logits + shifts).softmax(1)
    # NorCal's quotient with the median 10 as unit; background keeps its exponential.
    units = [1 / 10, 10 / 10, 100 / 10, 1.0, 1.0]
    mass = torch.tensor([[math.exp(z) / u**gamma for z, u in zip(row, units, strict=True)]
                         for row in logits.tolist()], dtype=torch.double)  # fmt: skip
    torch.testing.assert_close(found, mass / mass.sum(1, keepdim=True), rtol=1e-6, atol=1e-8)


def test_rebalancing_shifts_without_anything_to_balance():
    for counts in (torch.zeros(0), torch.tensor([7]), torch.zeros(3), torch.full((4,), 5)):
        assert rebalancing_shifts(counts, 1.0).tolist() == [0.0] * len(counts)
    assert rebalancing_shifts(torch.tensor([1, 1000]), 0.0).abs().max() == 0


@pytest.mark.parametrize('gamma', [-0.1, 2.1])
def test_rebalancing_shifts_reject_other_strengths(gamma):
    with pytest.raises(ValueError, match=rf'must lie in \[0, 2\], got {gamma}'):
        rebalancing_shifts(torch.tensor([1]), gamma)
