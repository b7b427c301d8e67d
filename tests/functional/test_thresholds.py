"""Thresholds against sorted raw scores and Python loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_softpl.functional import (
    THRESHOLD_MODES,
    curriculum_thresholds,
    damp,
    per_class_thresholds,
    prior_thresholds,
    quantile_thresholds,
    score_histogram,
)

BINS = 1000


def detections(counts, seed=0):
    """Scores and labels with a given number of detections per class, skewed differently."""
    gen = torch.Generator().manual_seed(seed)
    scores = [torch.rand(n, generator=gen) ** (1 + c % 3) for c, n in enumerate(counts)]
    labels = [torch.full((n,), c) for c, n in enumerate(counts)]
    return torch.cat(scores), torch.cat(labels).long()


# --- histogram ---


@pytest.mark.parametrize('num_classes', [1, 4])
def test_histogram_matches_a_loop(num_classes):
    gen = torch.Generator().manual_seed(0)
    scores = torch.rand(80, generator=gen)
    scores[:3] = torch.tensor([0.0, 1.0, 0.25])
    labels = torch.randint(-1, num_classes + 2, (80,), generator=gen)
    expected = torch.zeros(num_classes, 20)
    for score, label in zip(scores.tolist(), labels.tolist(), strict=True):
        if 0 <= label < num_classes:
            expected[label, min(int(score * 20), 19)] += 1
    assert torch.equal(score_histogram(scores, labels, num_classes, 20), expected)


@pytest.mark.parametrize('num_dets', [0, 5])
def test_histogram_of_nothing_but_background(num_dets):
    histogram = score_histogram(torch.rand(num_dets), torch.full((num_dets,), 3), 3, 10)
    assert histogram.shape == (3, 10)
    assert not histogram.any()


def test_histogram_of_bfloat16_scores_counts_in_float32():
    scores = torch.full((3000,), 0.5).bfloat16()
    histogram = score_histogram(scores, torch.zeros(3000, dtype=torch.long), 1, 2)
    assert histogram.dtype == torch.float32
    assert histogram.tolist() == [[0, 3000]]


# --- prior ---


@pytest.mark.parametrize('alpha', [0.2, 0.5, 1.0])
def test_prior_keeps_the_expected_number(alpha):
    scores, labels = detections([400, 90, 30])
    rate = torch.tensor([3.0, 0.5, 0.08])
    thresholds = prior_thresholds(score_histogram(scores, labels, 3, BINS), 100, rate, alpha)
    for c in range(3):
        ranked = scores[labels == c].sort(descending=True).values
        wanted = max(alpha * rate[c].item() * 100, 1)
        # The score of that rank, to the width of a bin.
        lower = ranked[min(int(np.ceil(wanted)), len(ranked)) - 1].item()
        upper = ranked[max(int(np.floor(wanted)) - 1, 0)].item()
        assert lower - 1 / BINS <= thresholds[c].item() <= upper + 1 / BINS


def test_prior_interpolates_inside_a_bin():
    histogram = torch.tensor([[0.0, 8, 0, 2]])
    # 4 wanted: both of the last bin, 2 of the 8 in [0.25, 0.5).
    thresholds = prior_thresholds(histogram, 40, torch.tensor([1.0]), alpha=0.1)
    assert thresholds.item() == pytest.approx(0.25 + 0.25 * 6 / 8)
    half = prior_thresholds(histogram, 10, torch.tensor([1.0]), alpha=0.1)
    assert half.item() == pytest.approx(0.875)


def test_prior_never_aims_at_less_than_one_and_is_zero_where_there_are_too_few():
    histogram = torch.tensor([[0.0, 0, 4, 0], [0.0, 0, 4, 0], [0.0, 0, 0, 0]])
    rate = torch.tensor([0.0, 1.0, 1.0])
    thresholds = prior_thresholds(histogram, 10, rate, alpha=1.0)
    assert thresholds.tolist() == pytest.approx([0.75 - 0.25 / 4, 0, 0])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), alpha=st.floats(0.05, 1))
def test_prior_thresholds_fall_with_alpha(seed, alpha):
    scores, labels = detections([50, 50], seed)
    histogram = score_histogram(scores, labels, 2, 20)
    rate = torch.tensor([0.4, 0.1])
    strict = prior_thresholds(histogram, 100, rate, alpha)
    loose = prior_thresholds(histogram, 100, rate, alpha * 1.5)
    assert (loose <= strict + 1e-6).all()


# --- curriculum ---


def test_curriculum_matches_a_loop_over_raw_scores():
    scores, labels = detections([600, 300, 80, 10])
    rate = torch.tensor([2.0, 1.0, 0.9, 0.2])
    learned = []
    for c in range(4):
        confident = sum(1 for s in scores[labels == c].tolist() if s >= 0.8)
        learned.append(min(confident / max(rate[c].item() * 50, 1), 1))
    expected = [0.8 * b / (2 - b) for b in (x / max(learned) for x in learned)]
    actual = curriculum_thresholds(score_histogram(scores, labels, 4, 100), 50, rate, base=0.8)
    assert actual.tolist() == pytest.approx(expected, abs=1e-4)
    assert len(set(expected)) > 2


def test_curriculum_judges_a_rare_class_by_what_is_expected_of_it():
    # 50 of 100 expected instances, and 1 of 2: both are half-learned.
    histogram = torch.tensor([[0.0, 50], [0, 1], [0, 20]])
    actual = curriculum_thresholds(histogram, 100, torch.tensor([1.0, 0.02, 0.2]), base=0.5)
    assert actual.tolist() == pytest.approx([0.5 * 0.5 / 1.5] * 2 + [0.5])


def test_curriculum_splits_the_bin_that_holds_the_base():
    # Half of the bin [0.5, 1) lies above 0.75.
    actual = curriculum_thresholds(torch.tensor([[0.0, 8], [0, 16]]), 8, torch.ones(2), base=0.75)
    assert actual.tolist() == pytest.approx([0.75 * 0.5 / 1.5, 0.75])


def test_curriculum_without_confident_detections_stays_at_the_base():
    histogram = torch.tensor([[9.0, 0], [3, 0]])
    assert curriculum_thresholds(histogram, 5, torch.ones(2), 0.9).tolist() == pytest.approx(
        [0.9] * 2
    )


# --- quantile ---


@pytest.mark.parametrize('q', [0.1, 0.5, 0.9])
def test_quantiles_are_numpys_to_the_width_of_a_bin(q):
    scores, labels = detections([500, 301, 77])
    actual = quantile_thresholds(score_histogram(scores, labels, 3, BINS), q)
    for c in range(3):
        mine = scores[labels == c].numpy()
        neighbours = [np.quantile(mine, q, method=m) for m in ('lower', 'higher')]
        assert neighbours[0] - 1 / BINS <= actual[c].item() <= neighbours[1] + 1 / BINS


def test_quantile_inside_a_bin_and_of_no_detections():
    histogram = torch.tensor([[4.0, 0], [1, 3], [0, 0]])
    assert quantile_thresholds(histogram, 0.5).tolist() == pytest.approx([0.25, 2 / 3, 1.0])


# --- the dispatcher ---


def by_mode(mode, histogram, num_images, rate):
    if mode == 'prior':
        return prior_thresholds(histogram, num_images, rate, 0.2)
    if mode == 'curriculum':
        return curriculum_thresholds(histogram, num_images, rate, 0.9)
    return quantile_thresholds(histogram, 0.5)


@pytest.mark.parametrize('mode', ['prior', 'curriculum', 'quantile'])
def test_dispatcher_gives_the_mode_clipped(mode):
    scores, labels = detections([400, 300, 200])
    histogram, rate = score_histogram(scores, labels, 3, 20), torch.tensor([2.0, 3.0, 0.5])
    actual = per_class_thresholds(mode, histogram, 100, rate, torch.tensor([2, 2, 1]))
    torch.testing.assert_close(actual, by_mode(mode, histogram, 100, rate).clamp(0.3, 0.9))


@pytest.mark.parametrize('mode', ['prior', 'quantile'])
def test_classes_with_few_scores_use_their_group(mode):
    scores, labels = detections([300, 15, 12, 3, 200])
    histogram = score_histogram(scores, labels, 5, 50)
    rate, groups = torch.tensor([2.0, 0.3, 0.2, 0.1, 1.0]), torch.tensor([2, 0, 0, 1, 2])
    actual = per_class_thresholds(
        mode, histogram, 100, rate, groups, min_count=20, lower=0.0, upper=1.0
    )
    own = by_mode(mode, histogram, 100, rate)
    rare = by_mode(mode, histogram[1:3].sum(0, keepdim=True), 100, rate[1:3].sum(0, keepdim=True))
    overall = by_mode(mode, histogram.sum(0, keepdim=True), 100, rate.sum(0, keepdim=True))
    # 15 + 12 rare detections are enough for the group; the common group has 3 in all.
    expected = torch.stack([own[0], rare[0], rare[0], overall[0], own[4]])
    torch.testing.assert_close(actual, expected)


def test_a_class_with_few_scores_does_not_set_the_scale_of_the_curriculum():
    # One confident detection of a class that is expected once, beside a half-learned class.
    histogram = torch.tensor([[0.0, 50], [0, 1]])
    rate, groups = torch.tensor([1.0, 0.01]), torch.tensor([2, 0])
    actual = per_class_thresholds('curriculum', histogram, 100, rate, groups, upper=0.5)
    assert actual[0].item() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize('mode', THRESHOLD_MODES)
def test_no_scores_at_all_mean_the_fixed_threshold(mode):
    actual = per_class_thresholds(
        mode, torch.zeros(3, 20), 0, torch.ones(3), torch.tensor([0, 1, 2]), fixed=0.65
    )
    assert actual.tolist() == pytest.approx([0.65] * 3)


@pytest.mark.parametrize('mode', THRESHOLD_MODES)
def test_one_class(mode):
    histogram = torch.ones(1, 20)
    actual = per_class_thresholds(mode, histogram, 10, torch.ones(1), torch.tensor([1]))
    assert actual.shape == (1,)
    assert 0.3 <= actual.item() <= 0.9


def test_fixed_is_not_clipped():
    arguments = (torch.ones(2, 20), 10, torch.ones(2), torch.tensor([0, 1]))
    assert per_class_thresholds('fixed', *arguments, fixed=0.1).tolist() == pytest.approx([0.1] * 2)


def test_an_unknown_mode_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'flex'.*prior, curriculum, quantile, fixed"):
        per_class_thresholds('flex', torch.ones(1, 2), 1, torch.ones(1), torch.tensor([0]))


@pytest.mark.parametrize(('lower', 'upper'), [(0.9, 0.3), (-0.1, 0.5), (0.2, 1.2)])
def test_limits_out_of_order_are_an_error(lower, upper):
    with pytest.raises(ValueError, match=f'lower={lower}, upper={upper}'):
        per_class_thresholds(
            'prior', torch.ones(1, 2), 1, torch.ones(1), torch.tensor([0]), lower=lower, upper=upper
        )


# --- smoothing and damping ---


def test_damping_follows_the_story_of_four_classes():
    labelled = torch.tensor([1.0, 1.0, 1.0, 0.1])
    boost, strikes = torch.tensor([4.0, 4.0, 1.1, 1.0]), torch.zeros(4, dtype=torch.long)
    kept = [
        torch.tensor([2.1, 2.1, 3.0, 0.2]),
        torch.tensor([2.1, 2.0, 3.0, 0.3]),
        torch.tensor([2.1, 2.1, 3.0, 0.3]),
        torch.tensor([2.1, 2.1, 3.0, 0.3]),
        torch.tensor([0.5, 2.1, 3.0, 0.3]),
    ]
    history = []
    for rate in kept:
        boost, strikes, damped = damp(boost, rate, labelled, strikes)
        history.append((boost.tolist(), damped.tolist()))
    assert [d for _, d in history] == [
        [False, False, False, False],
        [False, False, False, False],
        [True, False, True, False],
        [True, False, True, True],
        [False, True, True, True],
    ]
    assert history[2][0] == pytest.approx([3.2, 4.0, 1.0, 1.0])
    assert history[4][0] == pytest.approx([2.56, 3.2, 1.0, 1.0])
    assert strikes.tolist() == [0, 3, 5, 4]


def test_damping_with_other_settings():
    boost, strikes, damped = damp(
        torch.tensor([3.0]), torch.tensor([1.2]), torch.ones(1), torch.zeros(1), 1.1, 1, 0.5
    )
    assert (boost.item(), strikes.item(), damped.item()) == (1.5, 1, True)


def test_damping_lifts_no_boost_that_is_below_one():
    """Alignment lowers boosts to 1 / 50; 'not below 1' is for those above it."""
    boost = torch.tensor([0.25, 1.0, 1.1])
    boost, _, damped = damp(boost, torch.full((3,), 9.0), torch.ones(3), torch.tensor([2, 2, 2]))
    assert damped.all()
    assert boost.tolist() == pytest.approx([0.25, 1.0, 1.0])


@pytest.mark.parametrize(
    ('mode', 'given', 'alone'),
    [
        ('prior', dict(alpha=0.6), lambda h, rate: prior_thresholds(h, 100, rate, 0.6)),
        ('quantile', dict(quantile=0.2), lambda h, rate: quantile_thresholds(h, 0.2)),
        ('curriculum', dict(upper=0.6), lambda h, rate: curriculum_thresholds(h, 100, rate, 0.6)),
    ],
)
def test_dispatcher_hands_on_the_setting_of_the_mode(mode, given, alone):
    gen = torch.Generator().manual_seed(0)
    histogram, rate = torch.rand(3, 20, generator=gen) * 40, torch.tensor([2.0, 3.0, 0.5])
    groups = torch.tensor([2, 2, 1])
    actual = per_class_thresholds(
        mode, histogram, 100, rate, groups, **dict(lower=0.0, upper=1.0) | given
    )
    torch.testing.assert_close(actual, alone(histogram, rate))
    default = per_class_thresholds(mode, histogram, 100, rate, groups, lower=0.0, upper=1.0)
    assert not torch.allclose(actual, default)


@pytest.mark.parametrize(('count', 'own'), [(19, False), (20, True)])
def test_min_count_detections_are_enough(count, own):
    histogram = torch.zeros(2, 10)
    histogram[0, 4], histogram[1, 8] = count, 1000
    actual = per_class_thresholds(
        'quantile', histogram, 10, torch.ones(2), torch.tensor([0, 0]), lower=0.0, upper=1.0
    )
    assert (actual[0] < 0.5) == own
