"""Calibration against netcal, scipy, Python loops and closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from netcal.metrics import ECE
from scipy.optimize import isotonic_regression, minimize_scalar

from mmdet_softpl.functional import (
    CALIBRATION_MODES,
    apply_calibrator,
    calibration_table,
    chance_ece,
    class_conditional_ece,
    expected_calibration_error,
    expected_counts,
    group_mean,
    histogram_calibrator,
    isotonic,
    never_raising,
    reliability_counts,
    shrink_to_groups,
    soft_targets,
    student_offsets,
    temperature_calibrator,
    uncalibrated,
)

GROUPS = torch.tensor([0, 1, 1, 2, 2])


def detections(num, num_classes=5, seed=0):
    gen = torch.Generator().manual_seed(seed)
    scores = torch.rand(num, generator=gen)
    labels = torch.randint(0, num_classes, (num,), generator=gen)
    correct = torch.rand(num, generator=gen) < scores**2
    return scores, labels, correct


def centres(num_bins):
    return (torch.arange(num_bins) + 0.5) / num_bins


def exact_reliability(accuracy, num_classes=1, num_bins=20, per_point=1e5):
    """Statistics of a fine grid of scores whose accuracy is known, (3, C, B), without sampling."""
    scores = (torch.arange(1000) + 0.5) / 1000
    values = torch.stack([torch.ones(1000), accuracy(scores), scores]) * per_point
    one = values.view(3, num_bins, -1).sum(2)
    return one[:, None].repeat(1, num_classes, 1)


# --- statistics and errors ---


@pytest.mark.parametrize('num_classes', [1, 5])
@pytest.mark.parametrize('weighted', [False, True])
def test_counts_match_a_loop(num_classes, weighted):
    scores, labels, correct = detections(60, num_classes + 2)
    labels -= 1
    scores[:3] = torch.tensor([0.0, 1.0, 0.5])
    weights = torch.rand(60, generator=torch.Generator().manual_seed(1)) if weighted else None
    expected = torch.zeros(3, num_classes, 10)
    for i in range(60):
        if 0 <= labels[i] < num_classes:
            cell = labels[i], min(int(scores[i].item() * 10), 9)
            weight = weights[i] if weighted else 1.0
            for row, value in enumerate([1.0, float(correct[i]), scores[i]]):
                expected[(row, *cell)] += weight * value
    actual = reliability_counts(scores, labels, correct, num_classes, 10, weights)
    torch.testing.assert_close(actual, expected)


def test_counts_add_up_over_batches():
    scores, labels, correct = detections(50)
    whole = reliability_counts(scores, labels, correct, 5, 10)
    parts = [reliability_counts(scores[i::2], labels[i::2], correct[i::2], 5, 10) for i in range(2)]
    torch.testing.assert_close(parts[0] + parts[1], whole)


def test_counts_of_nothing_and_of_background_only():
    empty = torch.zeros(0)
    assert not reliability_counts(empty, empty.long(), empty.bool(), 3, 4).any()
    scores, _, correct = detections(6)
    counts = reliability_counts(scores, torch.full((6,), 3), correct, 3, 4)
    assert counts.shape == (3, 3, 4)
    assert not counts.any()


def test_counts_of_bfloat16_scores_are_kept_in_float32():
    counts = reliability_counts(
        torch.full((1000,), 0.75).bfloat16(),
        torch.zeros(1000, dtype=torch.long),
        torch.ones(1000, dtype=torch.bool),
        1,
        2,
    )
    assert counts.dtype == torch.float32
    assert counts[:, 0, 1].tolist() == [1000, 1000, 750]


@pytest.mark.parametrize('num_bins', [5, 15])
@pytest.mark.parametrize('seed', range(3))
def test_ece_is_netcals(num_bins, seed):
    scores, labels, correct = detections(400, seed=seed)
    reliability = reliability_counts(scores, labels, correct, 5, num_bins)
    expected = ECE(num_bins).measure(scores.numpy(), correct.long().numpy())
    assert expected_calibration_error(reliability).item() == pytest.approx(expected, abs=1e-5)


def test_class_conditional_ece_is_netcals_on_each_class():
    scores, labels, correct = detections(400)
    actual = class_conditional_ece(reliability_counts(scores, labels, correct, 5, 10))
    for c in range(5):
        mine = (labels == c).numpy()
        expected = ECE(10).measure(scores.numpy()[mine], correct.long().numpy()[mine])
        assert actual[c].item() == pytest.approx(expected, abs=1e-5)


def test_chance_error_is_the_mean_over_draws():
    counts = torch.tensor([[3.0, 0.0, 12.0], [1.0, 40.0, 0.0], [0.0, 0.0, 0.0]])
    p = torch.tensor([[0.1, 0.5, 0.8], [0.35, 0.5, 0.9], [0.2, 0.5, 0.9]])
    draws = torch.distributions.Binomial(counts, p).sample((20_000,))
    observed = torch.stack(
        [class_conditional_ece(torch.stack([counts, right, counts * p])) for right in draws[:5000]]
    ).mean(0)
    found = chance_ece(torch.stack([counts, torch.zeros_like(counts), counts * p]))
    assert found.isnan().tolist() == [False, False, True]
    torch.testing.assert_close(found[:2].float(), observed[:2], atol=0.005, rtol=0)


def test_chance_error_by_hand_and_at_the_ends():
    """One detection at p is right or wrong: E |X - p| = 2 p (1 - p)."""
    for p in (0.0, 0.3, 1.0):
        one = torch.tensor([[[1.0]], [[0.0]], [[p]]])
        assert float(chance_ece(one)) == pytest.approx(2 * p * (1 - p))
    # Two at 1/2: 0, 1, 2 right with 1/4, 1/2, 1/4, so 1/2 of two.
    two = torch.tensor([[[2.0]], [[0.0]], [[1.0]]])
    assert float(chance_ece(two)) == pytest.approx(0.25)
    assert chance_ece(two, min_count=3).isnan().all()
    assert chance_ece(torch.zeros(3, 0, 4)).shape == (0,)
    # Rounding may take the sum of confidences above the count.
    full = torch.tensor([[[3.0]], [[3.0]], [[3.0000002]]])
    assert float(chance_ece(full)) == 0


def test_class_conditional_ece_sees_what_the_mean_over_classes_hides():
    # One class over-confident, one under-confident by as much: together they are calibrated.
    reliability = torch.tensor([[[0.0, 10.0]] * 2, [[0, 5.0], [0, 9.0]], [[0, 7.0]] * 2])
    assert expected_calibration_error(reliability).item() == pytest.approx(0)
    torch.testing.assert_close(class_conditional_ece(reliability), torch.tensor([0.2, 0.2]))


def test_errors_of_too_few_detections_are_nan():
    reliability = torch.zeros(3, 2, 4)
    reliability[:, 1, 3] = torch.tensor([5.0, 5, 4])
    assert class_conditional_ece(reliability).isnan().tolist() == [True, False]
    assert class_conditional_ece(reliability, min_count=5).isnan().tolist() == [True, False]
    assert class_conditional_ece(reliability, min_count=6).isnan().tolist() == [True, True]
    assert class_conditional_ece(reliability, min_count=0).isnan().tolist() == [True, False]
    assert expected_calibration_error(torch.zeros(3, 2, 4)).isnan()


def test_group_mean_ignores_nan():
    values = torch.tensor([torch.nan, 1.0, torch.nan, 0.2, 0.4])
    actual = group_mean(values, GROUPS)
    assert actual[0].isnan()
    torch.testing.assert_close(actual[1:], torch.tensor([1.0, 0.3]))


# --- isotonic ---


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_isotonic_is_scipys(data):
    size = data.draw(st.integers(1, 20))
    numbers = st.floats(-5, 5, width=32)
    values = np.array(data.draw(st.lists(numbers, min_size=size, max_size=size)))
    weights = st.floats(0.125, 100, width=32)
    weight = np.array(data.draw(st.lists(weights, min_size=size, max_size=size)))
    expected = isotonic_regression(values, weights=weight).x
    actual = isotonic(torch.from_numpy(values), torch.from_numpy(weight))
    np.testing.assert_allclose(actual.numpy(), expected, atol=1e-9)


def test_isotonic_in_batches_of_any_shape():
    gen = torch.Generator().manual_seed(0)
    values, weights = torch.rand(2, 3, 7, generator=gen), torch.rand(2, 3, 7, generator=gen)
    actual = isotonic(values, weights)
    for i in range(2):
        for j in range(3):
            expected = isotonic_regression(values[i, j].numpy(), weights=weights[i, j].numpy()).x
            np.testing.assert_allclose(actual[i, j].numpy(), expected, atol=1e-6)


def test_isotonic_takes_no_heed_of_points_without_weight():
    values = torch.tensor([[9.0, 0.2, -7.0, 0.6, 0.4, 9.0, -9.0]])
    weights = torch.tensor([[0.0, 1.0, 0.0, 1.0, 3.0, 0.0, 0.0]])
    expected = [0.2, 0.2, 0.45, 0.45, 0.45, 0.45, 0.45]
    assert isotonic(values, weights)[0].tolist() == pytest.approx(expected)


def test_isotonic_without_any_weight_counts_all_alike():
    values = torch.tensor([0.3, 0.1, 0.5])
    assert isotonic(values, torch.zeros(3)).tolist() == pytest.approx([0.2, 0.2, 0.5])


# --- shrinkage ---


def test_shrinkage_by_hand():
    numerator = torch.tensor([3.0, 0.0, 40.0, 1.0, 0.0])
    denominator = torch.tensor([10.0, 0.0, 50.0, 1.0, 0.0])
    overall = 44 / 61
    group = [(3 + 20 * overall) / 30, (40 + 20 * overall) / 70, (1 + 20 * overall) / 21]
    expected = [
        (n + 20 * group[g]) / (d + 20)
        for n, d, g in zip(numerator.tolist(), denominator.tolist(), GROUPS.tolist(), strict=True)
    ]
    actual = shrink_to_groups(numerator, denominator, GROUPS)
    assert actual.tolist() == pytest.approx(expected)
    two = shrink_to_groups(
        numerator[:, None].repeat(1, 2), denominator[:, None].repeat(1, 2), GROUPS
    )
    torch.testing.assert_close(two, actual[:, None].repeat(1, 2))


def test_shrinkage_goes_from_the_prior_to_the_data():
    few = shrink_to_groups(torch.tensor([1.0, 0]), torch.tensor([2.0, 0]), torch.tensor([0, 0]))
    many = shrink_to_groups(
        torch.tensor([9e6, 1e6]), torch.tensor([1e7, 1e7]), torch.tensor([0, 0])
    )
    torch.testing.assert_close(few, torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(many, torch.tensor([0.9, 0.1]), rtol=1e-4, atol=1e-4)


def test_shrinkage_without_any_data():
    zeros = torch.zeros(5, 3)
    assert not shrink_to_groups(zeros, zeros, GROUPS).any()
    base = torch.tensor([0.1, 0.5, 0.7])
    torch.testing.assert_close(shrink_to_groups(zeros, zeros, GROUPS, base=base), base.expand(5, 3))


@pytest.mark.parametrize('prior', [0.0, -1.0])
def test_priors_must_be_positive(prior):
    zeros = torch.zeros(3, 5, 4)
    for call in (
        lambda: shrink_to_groups(zeros[0], zeros[0], GROUPS, prior),
        lambda: histogram_calibrator(zeros, GROUPS, prior),
        lambda: temperature_calibrator(zeros, GROUPS, True, prior),
        lambda: student_offsets(zeros[0, :, 0], zeros[0, :, 0], GROUPS, prior),
    ):
        with pytest.raises(ValueError, match=f'prior.*{prior}'):
            call()


# --- calibrators ---


CALIBRATORS = {
    'histogram': histogram_calibrator,
    'temperature': lambda r, g: temperature_calibrator(r, g, per_group=False),
    'group_temperature': lambda r, g: temperature_calibrator(r, g, per_group=True),
}


@pytest.mark.parametrize('name', CALIBRATORS)
@pytest.mark.parametrize('num_bins', [1, 10, 15, 20])
def test_an_empty_state_is_the_identity_to_the_last_bit(name, num_bins):
    table = CALIBRATORS[name](torch.zeros(3, 5, num_bins), GROUPS)
    assert torch.equal(table, centres(num_bins).expand(5, num_bins))
    scores, labels, _ = detections(100)
    assert torch.equal(apply_calibrator(scores, labels, table), scores)


@pytest.mark.parametrize('name', CALIBRATORS)
def test_calibrated_statistics_give_the_identity(name):
    reliability = exact_reliability(lambda s: s, num_classes=5)
    table = CALIBRATORS[name](reliability, GROUPS)
    torch.testing.assert_close(table, centres(20).expand(5, 20), rtol=0, atol=2e-3)


@pytest.mark.parametrize('name', CALIBRATORS)
def test_calibrators_are_monotone_and_in_range(name):
    scores, labels, correct = detections(300)
    reliability = reliability_counts(scores, labels, correct, 5, 20)
    table = CALIBRATORS[name](reliability, GROUPS)
    assert (table.diff(dim=1) >= 0).all()
    assert (table >= 0).all()
    assert (table <= 1).all()


@pytest.mark.parametrize('name', CALIBRATORS)
def test_calibrators_lower_the_calibration_error(name):
    scores, labels, _ = detections(4000)
    accuracy = torch.sigmoid(torch.logit(scores) / 3)
    correct = torch.rand(4000, generator=torch.Generator().manual_seed(1)) < accuracy
    reliability = reliability_counts(scores, labels, correct, 5, 20)
    calibrated = apply_calibrator(scores, labels, CALIBRATORS[name](reliability, GROUPS))
    after = reliability_counts(calibrated, labels, correct, 5, 20)
    ratio = expected_calibration_error(after) / expected_calibration_error(reliability)
    assert ratio.item() < 0.2


def test_histogram_approaches_the_accuracy():
    table = histogram_calibrator(exact_reliability(lambda s: s**2), torch.tensor([2]))
    torch.testing.assert_close(table[0], centres(20) ** 2, rtol=0, atol=2e-3)


def test_histogram_leaves_calibrated_scores_alone_wherever_they_crowd_in_a_bin():
    # All scores at 0.42 in the bin [0.4, 0.5), right 42 times out of 100.
    reliability = torch.zeros(3, 1, 10)
    reliability[:, 0, 4] = torch.tensor([1e6, 0.42e6, 0.42e6])
    table = histogram_calibrator(reliability, torch.tensor([0]))
    actual = apply_calibrator(torch.tensor([0.42]), torch.tensor([0]), table)
    assert actual.item() == pytest.approx(0.42, abs=1e-4)


def test_histogram_shrinks_a_small_class_to_its_group():
    reliability = torch.zeros(3, 5, 2)
    # Class 1 (group 1) is right in half of its confident detections; class 2 has seen nothing.
    reliability[:, 1, 1] = torch.tensor([1e5, 5e4, 8e4])
    table = histogram_calibrator(reliability, GROUPS)
    assert table[1, 1].item() == pytest.approx(0.75 - 0.3, abs=1e-3)
    assert table[2, 1].item() == pytest.approx(0.75 - 0.3, abs=1e-3)
    # Another group takes what all classes say.
    assert table[3, 1].item() == pytest.approx(0.75 - 0.3, abs=1e-3)
    # Nobody saw the first bin.
    assert table[:, 0].tolist() == pytest.approx([0.25] * 5)


@pytest.mark.parametrize('true', [0.5, 1.0, 1.7, 3.0])
def test_temperature_is_found(true):
    reliability = exact_reliability(lambda s: torch.sigmoid(torch.logit(s) / true))
    table = temperature_calibrator(reliability, torch.tensor([1]), per_group=False)
    expected = torch.sigmoid(torch.logit(centres(20)) / true)
    torch.testing.assert_close(table[0], expected, rtol=0, atol=0.01)


def test_temperature_minimises_the_likelihood_that_scipy_minimises():
    scores, labels, _ = detections(500)
    gen = torch.Generator().manual_seed(1)
    correct = torch.rand(500, generator=gen) < 0.3 + 0.4 * scores
    reliability = reliability_counts(scores, labels, correct, 5, 10)
    count, right, confidence = reliability.double().sum(1).numpy()
    points = [(n, k, s / n) for n, k, s in zip(count, right, confidence, strict=True)]
    points += [(0.1, 0.1 * c, c) for c in centres(10).double().tolist()]

    def cost(log_t):
        total = 0.0
        for n, k, p in points:
            q = 1 / (1 + math.exp(-math.log(p / (1 - p)) / math.exp(log_t)))
            total -= k * math.log(q) + (n - k) * math.log(1 - q)
        return total

    best = math.exp(minimize_scalar(cost, bounds=(-2, 2), method='bounded').x)
    table = temperature_calibrator(reliability, GROUPS, per_group=False, prior=1.0)
    expected = torch.sigmoid(torch.logit(centres(10)) / best)
    torch.testing.assert_close(table[0], expected, rtol=0, atol=1e-3)
    assert best != pytest.approx(1, abs=0.05)


def test_each_group_gets_its_own_temperature():
    reliability = torch.cat(
        [
            exact_reliability(lambda s, t=t: torch.sigmoid(torch.logit(s) / t))
            for t in (2.0, 1.0, 0.6)
        ],
        dim=1,
    )
    table = temperature_calibrator(reliability, torch.tensor([0, 1, 2]), per_group=True)
    for row, true in zip(table, (2.0, 1.0, 0.6), strict=True):
        expected = torch.sigmoid(torch.logit(centres(20)) / true)
        torch.testing.assert_close(row, expected, rtol=0, atol=0.01)


def test_a_group_without_detections_takes_the_temperature_of_all():
    reliability = torch.zeros(3, 2, 20)
    reliability[:, 1:] = exact_reliability(lambda s: torch.sigmoid(torch.logit(s) / 2))
    table = temperature_calibrator(reliability, torch.tensor([0, 2]), per_group=True)
    torch.testing.assert_close(table[0], table[1], rtol=0, atol=2e-3)


def test_three_lucky_detections_do_not_choose_the_temperature():
    reliability = torch.zeros(3, 1, 10)
    reliability[:, 0, 6] = torch.tensor([3.0, 3.0, 1.95])
    table = temperature_calibrator(reliability, torch.tensor([0]), per_group=True)
    assert (table - centres(10)).abs().max() < 0.1


# --- applying a calibrator ---


def test_interpolation_is_numpys_between_the_centres():
    gen = torch.Generator().manual_seed(0)
    table = torch.rand(5, 8, generator=gen).sort(dim=1).values
    scores, labels, _ = detections(200)
    scores = scores * 0.875 + 0.0625
    expected = [
        np.interp(s, centres(8).numpy(), table[c].numpy())
        for s, c in zip(scores.tolist(), labels.tolist(), strict=True)
    ]
    actual = apply_calibrator(scores, labels, table)
    np.testing.assert_allclose(actual.numpy(), expected, atol=1e-5)


def test_the_shift_is_constant_outside_the_centres():
    table = torch.tensor([[0.3, 0.6]])
    scores = torch.tensor([0.0, 0.1, 0.25, 0.75, 0.9, 1.0])
    actual = apply_calibrator(scores, torch.zeros(6, dtype=torch.long), table)
    torch.testing.assert_close(actual, torch.tensor([0.05, 0.15, 0.3, 0.6, 0.75, 0.85]))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), num_bins=st.integers(1, 12))
def test_a_monotone_table_is_a_monotone_map_into_the_unit_interval(seed, num_bins):
    gen = torch.Generator().manual_seed(seed)
    table = torch.rand(1, num_bins, generator=gen).sort(dim=1).values
    scores = torch.linspace(0, 1, 101)
    actual = apply_calibrator(scores, torch.zeros(101, dtype=torch.long), table)
    assert (actual.diff() >= -1e-6).all()
    assert (actual >= 0).all()
    assert (actual <= 1).all()


def test_apply_on_no_rows_and_in_bfloat16():
    table = torch.tensor([[0.2, 0.9]])
    empty = apply_calibrator(torch.zeros(0), torch.zeros(0, dtype=torch.long), table)
    assert empty.shape == (0,)
    low = apply_calibrator(torch.tensor([0.5]).bfloat16(), torch.tensor([0]), table.bfloat16())
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(0.55, abs=0.01)


# --- soft targets ---


@pytest.mark.parametrize('num_classes', [1, 2, 6])
def test_soft_targets_match_a_loop(num_classes):
    gen = torch.Generator().manual_seed(0)
    scores = torch.randn(12, num_classes + 1, generator=gen).softmax(1)
    labels = torch.randint(0, num_classes, (12,), generator=gen)
    confidence = torch.rand(12, generator=gen)
    confidence[:2] = torch.tensor([0.0, 1.0])
    expected = torch.zeros_like(scores)
    for i in range(12):
        rest = sum(scores[i, j] for j in range(num_classes + 1) if j != labels[i])
        for j in range(num_classes + 1):
            expected[i, j] = scores[i, j] * (1 - confidence[i]) / rest
        expected[i, labels[i]] = confidence[i]
    actual = soft_targets(scores, labels, confidence)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(actual.sum(1), torch.ones(12))


def test_soft_targets_hand_what_is_left_to_background_where_nothing_else_is_likely():
    scores = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    actual = soft_targets(scores, torch.tensor([1, 0]), torch.tensor([0.7, 1.0]))
    torch.testing.assert_close(actual, torch.tensor([[0.0, 0.7, 0.3], [1.0, 0.0, 0.0]]))


def test_soft_targets_at_the_own_confidence_are_the_scores():
    scores = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).softmax(1)
    labels = scores[:, :3].argmax(1)
    confidence = scores.gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(soft_targets(scores, labels, confidence), scores)


def test_soft_targets_of_no_rows_and_of_background():
    empty = soft_targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0))
    assert empty.shape == (0, 4)
    background = soft_targets(torch.tensor([[0.0, 1.0]]), torch.tensor([1]), torch.tensor([0.4]))
    torch.testing.assert_close(background, torch.tensor([[0.0, 1.0]]))


def test_soft_targets_in_bfloat16_sum_to_one_in_float32():
    scores = torch.randn(20, 50, generator=torch.Generator().manual_seed(0)).softmax(1)
    actual = soft_targets(
        scores.bfloat16(), torch.zeros(20, dtype=torch.long), torch.full((20,), 0.6).bfloat16()
    )
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual.sum(1), torch.ones(20))


# --- student correction ---


def test_offsets_by_hand():
    confidence = torch.tensor([30.0, 0.0, 8.0, 100.0, 1e6])
    correct = torch.tensor([10.0, 0.0, 8.0, 50.0, 1e4])
    overall = (confidence.sum().item() + 20) / (correct.sum().item() + 20)
    group = [(c + 20 * overall) / (t + 20) for c, t in ((30, 10), (8, 8), (1e6 + 100, 1e4 + 50))]
    expected = [
        max(-2.0, min(2.0, math.log((c + 20 * group[g]) / (t + 20))))
        for c, t, g in zip(confidence.tolist(), correct.tolist(), GROUPS.tolist(), strict=True)
    ]
    assert student_offsets(confidence, correct, GROUPS).tolist() == pytest.approx(expected)
    assert expected[4] == 2


def test_offsets_without_statistics_are_zero():
    zeros = torch.zeros(5)
    assert student_offsets(zeros, zeros, GROUPS).tolist() == [0] * 5


def test_offsets_of_much_data_are_the_log_of_the_over_confidence():
    true = torch.tensor([0.7, -0.7, 0.0])
    correct = torch.full((3,), 1e7)
    actual = student_offsets(correct * true.exp(), correct, torch.tensor([0, 1, 2]))
    torch.testing.assert_close(actual, true, rtol=0, atol=1e-4)


def test_a_student_trained_through_the_offsets_finds_the_truth():
    # teacher = softmax(log true + d); the student's own logits z must end up at `true`.
    gen = torch.Generator().manual_seed(0)
    true = torch.randn(6, 5, generator=gen).softmax(1)
    offsets = torch.cat([torch.tensor([1.5, -1.0, 0.3, 2.0]), torch.zeros(1)])
    teacher = (true.log() + offsets).softmax(1)
    assert (teacher - true).abs().max() > 0.2

    def train(shift):
        logits = torch.zeros(6, 5, requires_grad=True)
        for _ in range(600):
            loss = torch.nn.functional.cross_entropy(
                (logits + shift).softmax(1).log(), teacher, reduction='sum'
            )
            (gradient,) = torch.autograd.grad(loss, logits)
            logits = (logits - 2 * gradient).detach().requires_grad_()
        return logits.softmax(1).detach()

    torch.testing.assert_close(train(offsets), true, rtol=0, atol=1e-4)
    torch.testing.assert_close(train(torch.zeros(5)), teacher, rtol=0, atol=1e-4)


@pytest.mark.parametrize('rows', [0, 1, 7])
def test_expected_counts_against_a_loop(rows: int):
    generator = torch.Generator().manual_seed(rows)
    targets = torch.rand(rows, 4, generator=generator).softmax(1)
    offsets = torch.tensor([0.5, -1.0, 0.0])
    expected = [0.0, 0.0, 0.0]
    for row in targets.tolist():
        raw = [p * math.exp(-d) for p, d in zip(row, [0.5, -1.0, 0.0, 0.0], strict=True)]
        for c in range(3):
            expected[c] += raw[c] / sum(raw)
    assert expected_counts(targets, offsets).tolist() == pytest.approx(expected)


def test_steps_of_the_offsets_find_a_planted_shift():
    """Labels drawn from the truth, targets from a teacher shifted by d: the steps add up to d."""
    generator = torch.Generator().manual_seed(0)
    planted = torch.tensor([1.0, -1.0, 0.5, 0.0])
    true = (2 * torch.randn(20000, 5, generator=generator)).softmax(1)
    labels = torch.multinomial(true, 1, generator=generator)[:, 0]
    teacher = (true.log() + torch.nn.functional.pad(planted, (0, 1))).softmax(1)
    observed = torch.bincount(labels, minlength=5)[:4].float()
    groups = torch.tensor([0, 1, 2, 2])
    offsets = torch.zeros(4)
    first = student_offsets(expected_counts(teacher, offsets), observed, groups)
    for _ in range(30):
        offsets = offsets + student_offsets(expected_counts(teacher, offsets), observed, groups)
    torch.testing.assert_close(offsets, planted, rtol=0, atol=0.06)
    assert (first - planted).abs().max() > 0.3


@pytest.mark.parametrize('num_classes', [0, 1, 4])
def test_never_raising_lowers_as_the_table_does_and_leaves_the_rest(num_classes):
    table = torch.rand(num_classes, 15, generator=torch.Generator().manual_seed(0))
    lowering = never_raising(table)
    for c in range(num_classes):
        for b in range(15):
            centre = (b + 0.5) / 15
            assert float(lowering[c, b]) == pytest.approx(min(float(table[c, b]), centre))
    scores = torch.linspace(0, 1, 101)
    for c in range(num_classes):
        labels = torch.full((101,), c)
        assert (apply_calibrator(scores, labels, lowering) <= scores + 1e-6).all()


@pytest.mark.parametrize('num_classes', [1, 5])
@pytest.mark.parametrize('held_out', [True, False])
def test_the_table_of_a_mode(num_classes, held_out):
    """By hand from its parts; without a held-out part no score is raised."""
    reliability = exact_reliability(torch.sqrt, num_classes, per_point=1)
    groups = torch.arange(num_classes) % 3
    identity = centres(20).repeat(num_classes, 1)
    parts = {
        'none': identity,
        'histogram': histogram_calibrator(reliability, groups),
        'temperature': temperature_calibrator(reliability, groups, per_group=False),
        'group_temperature': temperature_calibrator(reliability, groups, per_group=True),
    }
    assert set(parts) == set(CALIBRATION_MODES)
    for mode, table in parts.items():
        expected = table if held_out else torch.minimum(table, identity)
        found = calibration_table(reliability, groups, mode, held_out)
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(uncalibrated(num_classes, 20), identity)
    with pytest.raises(ValueError, match='platt'):
        calibration_table(reliability, groups, 'platt', held_out)


def test_a_lone_detection_hardly_moves_the_histogram_table():
    """One wrong detection at 0.9, shrunk three times: class to group, to all, to no gap at all."""
    reliability = torch.zeros(3, 2, 2)
    reliability[:, 0, 1] = torch.tensor([1.0, 0.0, 0.9])
    k = 20.0
    everyone = -0.9 / (1 + k)
    group = (-0.9 + k * everyone) / (1 + k)
    expected = 0.75 + torch.tensor([(-0.9 + k * group) / (1 + k), everyone])
    table = histogram_calibrator(reliability, torch.tensor([0, 2]))
    torch.testing.assert_close(table[:, 1], expected)
