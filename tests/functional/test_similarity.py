"""Prototypes against numpy means, similarities against slow float64 references."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_softpl.functional import (
    ClassSimilarity,
    cap_inflow,
    effective_neighbours,
    prototype_log_evidence,
    similarity_from_confusion,
    similarity_from_matrix,
    similarity_from_prototypes,
    sum_features,
    update_prototypes,
)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def dense(similarity):
    """Matrix (C, C) with zero rows written out as uniform."""
    num_classes = similarity.weights.shape[0]
    matrix = torch.zeros(num_classes, num_classes)
    for y in range(num_classes):
        if similarity.weights[y].sum() == 0:
            matrix[y] = 1 / max(num_classes - 1, 1)
            matrix[y, y] = 0
        for j, weight in zip(similarity.indices[y], similarity.weights[y], strict=True):
            matrix[y, j] += weight
    return matrix


def centred_cosine(features, prototypes, valid):
    centre = prototypes[valid].mean(0)
    features, prototypes = features - centre, prototypes - centre
    return (
        features
        @ prototypes.T
        / np.linalg.norm(features, axis=1)[:, None]
        / np.linalg.norm(prototypes, axis=1)
    )


def prototype_reference(prototypes, counts, topk, temperature, min_count=1):
    """Dense similarity, class by class in float64."""
    prototypes = prototypes.double().numpy()
    num_classes = len(prototypes)
    valid = counts.numpy() >= min_count
    cosine = centred_cosine(prototypes, prototypes, valid)
    matrix = np.zeros((num_classes, num_classes))
    for y in range(num_classes):
        others = [j for j in range(num_classes) if j != y and valid[j]]
        if not valid[y] or not others:
            matrix[y] = 1 / (num_classes - 1)
            matrix[y, y] = 0
            continue
        best = sorted(others, key=lambda j: -cosine[y, j])[:topk]
        mass = np.exp([cosine[y, j] / temperature for j in best])
        matrix[y, best] = mass / mass.sum()
    return torch.from_numpy(matrix).float()


# --- sums and prototypes ---


@pytest.mark.parametrize('num_classes', [1, 5])
def test_sums_match_a_loop_and_skip_what_is_no_class(num_classes):
    features = randn(30, 4)
    labels = torch.randint(-2, num_classes + 3, (30,), generator=torch.Generator().manual_seed(0))
    sums, counts = torch.zeros(num_classes, 4), torch.zeros(num_classes)
    for feature, label in zip(features, labels.tolist(), strict=True):
        if 0 <= label < num_classes:
            sums[label] += feature
            counts[label] += 1
    actual_sums, actual_counts = sum_features(features, labels, num_classes)
    torch.testing.assert_close(actual_sums, sums)
    assert torch.equal(actual_counts, counts)


@pytest.mark.parametrize('num_rois', [0, 6])
def test_sums_of_nothing_but_background(num_rois):
    features = randn(num_rois, 3).requires_grad_()
    sums, counts = sum_features(features, torch.full((num_rois,), 4), 4)
    assert not sums.any()
    assert not counts.any()
    sums.sum().backward()
    assert not features.grad.any()


@pytest.mark.parametrize('value', [torch.inf, torch.nan])
def test_sums_leave_out_rows_that_are_not_finite(value):
    features, labels = randn(6, 3), torch.tensor([0, 1, 1, 0, 2, 1])
    expected = sum_features(features[[0, 1, 3, 5]], labels[[0, 1, 3, 5]], 3)
    features[2, 1] = features[4, 0] = value
    for actual, wanted in zip(sum_features(features, labels, 3), expected, strict=True):
        torch.testing.assert_close(actual, wanted)


def test_sums_of_bfloat16_features_are_kept_in_float32():
    features = torch.ones(1000, 2).bfloat16()
    sums, counts = sum_features(features, torch.zeros(1000, dtype=torch.long), 1)
    assert sums.tolist() == [[1000, 1000]]
    assert counts.tolist() == [1000]


@pytest.mark.parametrize('momentum', [1.0, 0.999])
def test_early_prototypes_are_the_exact_mean(momentum):
    # Up to N = 200 seen, n / (N + n) is above 1 - 0.999^n for batches of 20.
    features, labels = randn(200, 6), torch.arange(200) % 3
    prototypes, counts = torch.zeros(4, 6), torch.zeros(4)
    for batch in range(10):
        rows = slice(20 * batch, 20 * batch + 20)
        sums, new = sum_features(features[rows], labels[rows], 4)
        prototypes, counts = update_prototypes(prototypes, counts, sums, new, momentum)
    for c in range(3):
        mean = features.numpy()[labels.numpy() == c].mean(0)
        np.testing.assert_allclose(prototypes[c].numpy(), mean, atol=1e-6)
    assert counts.tolist() == [67, 67, 66, 0]
    assert not prototypes[3].any()


def test_late_prototypes_are_an_average_over_single_instances():
    old, feature = randn(1, 5), randn(1, 5, seed=1)
    expected = old.clone()
    for _ in range(7):
        expected = 0.99 * expected + 0.01 * feature
    actual, counts = update_prototypes(
        old, torch.tensor([1e6]), 7 * feature, torch.tensor([7.0]), momentum=0.99
    )
    torch.testing.assert_close(actual, expected)
    assert counts.item() == 1e6 + 7


def test_the_larger_rate_wins_where_mean_and_average_meet():
    # One new feature: 1 / (N + 1) against 0.01; they cross at N = 99.
    one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    for before, rate in [(0, 1.0), (9, 0.1), (98, 1 / 99), (150, 0.01), (10_000, 0.01)]:
        actual, _ = update_prototypes(zero, torch.tensor([float(before)]), one, torch.ones(1))
        assert actual.item() == pytest.approx(rate, rel=1e-4)


def test_classes_without_new_features_stay_to_the_last_bit():
    old = randn(3, 4)
    actual, counts = update_prototypes(
        old, torch.tensor([5, 0, 2]), torch.zeros(3, 4), torch.zeros(3)
    )
    assert torch.equal(actual, old)
    assert counts.tolist() == [5, 0, 2]
    assert counts.dtype == torch.int64


def test_sums_of_two_ranks_update_like_one():
    features, labels = randn(40, 4), torch.arange(40) % 5
    old, before = randn(5, 4, seed=2), torch.full((5,), 30.0)
    whole = update_prototypes(old, before, *sum_features(features, labels, 5))
    parts = [sum_features(features[i::2], labels[i::2], 5) for i in range(2)]
    joined = update_prototypes(old, before, parts[0][0] + parts[1][0], parts[0][1] + parts[1][1])
    torch.testing.assert_close(joined, whole)


@pytest.mark.parametrize('momentum', [-0.1, 1.5])
def test_update_rejects_a_momentum_out_of_range(momentum):
    with pytest.raises(ValueError, match=str(momentum)):
        update_prototypes(
            torch.zeros(1, 1), torch.zeros(1), torch.zeros(1, 1), torch.zeros(1), momentum
        )


# --- similarities ---


@pytest.mark.parametrize('topk', [1, 3, 16])
@pytest.mark.parametrize('temperature', [0.1, 1.0])
@pytest.mark.parametrize('chunk', [1, 4, 1024])
def test_prototype_similarity_matches_the_reference(topk, temperature, chunk):
    prototypes = randn(9, 6) + 3
    counts = torch.tensor([5, 1, 0, 9, 2, 2, 1, 30, 0])
    actual = similarity_from_prototypes(prototypes, counts, topk, temperature, chunk=chunk)
    assert actual.indices.shape == actual.weights.shape == (9, min(topk, 8))
    expected = prototype_reference(prototypes, counts, topk, temperature)
    torch.testing.assert_close(dense(actual), expected, rtol=1e-4, atol=1e-5)


def test_min_count_makes_classes_invalid():
    prototypes, counts = randn(6, 5), torch.tensor([1, 5, 5, 4, 9, 5])
    actual = similarity_from_prototypes(prototypes, counts, 3, min_count=5)
    expected = prototype_reference(prototypes, counts, 3, 0.1, min_count=5)
    torch.testing.assert_close(dense(actual), expected, rtol=1e-4, atol=1e-5)
    assert not actual.weights[[0, 3]].any()


def test_prototypes_are_centred():
    prototypes, counts = randn(7, 5), torch.ones(7)
    plain = similarity_from_prototypes(prototypes, counts, 3)
    moved = similarity_from_prototypes(prototypes + 20, counts, 3)
    torch.testing.assert_close(dense(moved), dense(plain), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('counts', [[0, 0, 0], [0, 4, 0]])
def test_too_few_valid_prototypes_mean_uniform_rows(counts):
    actual = similarity_from_prototypes(randn(3, 4), torch.tensor(counts))
    assert actual.weights.shape == (3, 2)
    assert not actual.weights.any()
    assert effective_neighbours(actual).tolist() == [2, 2, 2]


def test_one_class_has_one_empty_column():
    for actual in (
        similarity_from_prototypes(randn(1, 4), torch.ones(1)),
        similarity_from_matrix(torch.ones(1, 1)),
        similarity_from_matrix(torch.ones(1, 1), temperature=0.1),
    ):
        assert actual.indices.tolist() == [[0]]
        assert actual.weights.tolist() == [[0]]
        assert effective_neighbours(actual).tolist() == [0]


def test_equal_prototypes_are_equally_similar():
    actual = similarity_from_prototypes(torch.ones(5, 3), torch.ones(5))
    torch.testing.assert_close(actual.weights, torch.full((5, 4), 0.25))


def test_bfloat16_prototypes_and_autocast_stay_in_float32():
    prototypes, counts = randn(9, 64), torch.ones(9)
    expected = similarity_from_prototypes(prototypes, counts, 4)
    with torch.autocast('cpu', torch.bfloat16):
        actual = similarity_from_prototypes(prototypes, counts, 4)
    assert torch.equal(actual.weights, expected.weights)
    low = similarity_from_prototypes(prototypes.bfloat16(), counts, 4)
    assert low.weights.dtype == torch.float32


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'topk': 0}, 'topk.*0'),
        ({'temperature': 0.0}, 'temperature.*0.0'),
        ({'min_count': 0}, 'min_count.*0'),
    ],
)
def test_prototype_similarity_rejects_parameters_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        similarity_from_prototypes(randn(3, 2), torch.ones(3), **arguments)


@pytest.mark.parametrize('topk', [1, 2, 10])
def test_matrix_rows_are_normalised_without_the_diagonal(topk):
    matrix = torch.tensor([[9.0, 1, 3, 0], [2, 9, 2, 4], [0, 0, 9, 0], [0.5, 0.25, 0.25, 9]])
    actual = dense(similarity_from_matrix(matrix, topk))
    for y, row in enumerate(matrix.tolist()):
        others = sorted(((v, j) for j, v in enumerate(row) if j != y), reverse=True)[:topk]
        total = sum(v for v, _ in others)
        if total == 0:
            assert actual[y].tolist() == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])
        else:
            kept = sorted((v / total for v, _ in others if v), reverse=True)
            assert sorted(actual[y].tolist(), reverse=True)[: len(kept)] == pytest.approx(kept)
            assert actual[y, y] == 0
    assert torch.equal(actual, dense(similarity_from_confusion(matrix, topk)))


def test_matrix_with_a_temperature_is_a_softmax():
    matrix = randn(5, 5)
    expected = (matrix / 0.3).fill_diagonal_(-torch.inf).softmax(1)
    torch.testing.assert_close(dense(similarity_from_matrix(matrix, 10, 0.3)), expected)


@pytest.mark.parametrize(
    ('matrix', 'arguments', 'message'),
    [
        (torch.zeros(2, 3), {}, r'square.*\(2, 3\)'),
        (torch.zeros(4), {}, 'square'),
        (torch.tensor([[0, torch.nan], [0, 0]]), {}, 'finite'),
        (torch.tensor([[0, -0.5], [0, 0]]), {}, '-0.5.*needs a temperature'),
        (torch.zeros(2, 2), {'temperature': -1.0}, 'temperature.*-1.0'),
        (torch.zeros(2, 2), {'topk': 0}, 'topk.*0'),
    ],
)
def test_matrix_similarity_rejects_bad_input(matrix, arguments, message):
    with pytest.raises(ValueError, match=message):
        similarity_from_matrix(matrix, **arguments)


def test_effective_neighbours_in_closed_form():
    weights = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3], [0, 0, 0]])
    similarity = ClassSimilarity(torch.zeros(4, 3, dtype=torch.long), weights)
    torch.testing.assert_close(effective_neighbours(similarity), torch.tensor([1.0, 2, 3, 3]))


# --- cap ---


def random_similarity(seed, num_classes, topk):
    return similarity_from_prototypes(
        randn(num_classes, 8, seed=seed), torch.ones(num_classes), topk
    )


def inflow_ratio(similarity, counts):
    """By a loop over the dense matrix; what a class gives itself is not inflow."""
    matrix = dense(similarity).fill_diagonal_(0)
    own = counts.clamp_min(1)
    return (own[:, None] * matrix).sum(0) / own


def test_no_limit_changes_nothing():
    similarity, counts = random_similarity(0, 8, 3), torch.arange(8.0)
    capped, ratio = cap_inflow(similarity, counts, math.inf)
    torch.testing.assert_close(capped.weights, similarity.weights)
    torch.testing.assert_close(ratio, inflow_ratio(similarity, counts))


def test_a_frequent_neighbour_cannot_drown_a_small_class():
    similarity = ClassSimilarity(torch.tensor([[1], [0]]), torch.ones(2, 1))
    counts = torch.tensor([1000.0, 5])
    _, free = cap_inflow(similarity, counts, math.inf)
    assert free[1].item() == 200
    capped, ratio = cap_inflow(similarity, counts, max_inflow=2.0)
    assert ratio[1].item() <= 2
    assert capped.indices.shape == (2, 1)
    torch.testing.assert_close(capped.weights.sum(1), torch.ones(2))
    # The small class still passes on what the large one can take.
    assert dense(capped)[1].tolist() == [1, 0]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    num_classes=st.integers(1, 12),
    topk=st.integers(1, 6),
    max_inflow=st.floats(0.1, 5),
)
def test_the_cap_holds_and_rows_stay_distributions(seed, num_classes, topk, max_inflow):
    similarity = random_similarity(seed, num_classes, topk)
    counts = torch.randint(
        0, 1000, (num_classes,), generator=torch.Generator().manual_seed(seed)
    ).float()
    capped, ratio = cap_inflow(similarity, counts, max_inflow)
    assert capped.weights.shape == similarity.weights.shape
    assert (capped.weights >= -1e-6).all()
    assert (ratio <= max_inflow * (1 + 1e-4)).all()
    if num_classes > 1:
        torch.testing.assert_close(capped.weights.sum(1), torch.ones(num_classes))
        torch.testing.assert_close(ratio, inflow_ratio(capped, counts), rtol=1e-4, atol=1e-4)
    free, free_ratio = cap_inflow(similarity, counts, math.inf)
    if (free_ratio <= max_inflow).all():
        torch.testing.assert_close(dense(capped), dense(free))


def test_cap_keeps_rows_that_lose_nothing():
    similarity = ClassSimilarity(torch.tensor([[1, 2], [2, 0], [1, 0]]), torch.full((3, 2), 0.5))
    capped, _ = cap_inflow(similarity, torch.tensor([100.0, 3, 100]), max_inflow=1.0)
    assert capped.indices[1].tolist() == [2, 0]
    torch.testing.assert_close(capped.weights[1], similarity.weights[1])
    assert capped.indices[0].tolist() == [0, 2]


@pytest.mark.parametrize('large', [990.0, 1010.0])
def test_with_room_for_itself_a_row_hands_on_what_it_may(large):
    """Else the weakest neighbour, with one neighbour the only one, would get nothing."""
    similarity = ClassSimilarity(torch.tensor([[1], [0]]), torch.ones(2, 1))
    counts = torch.tensor([large, 100])
    capped, ratio = cap_inflow(similarity, counts, max_inflow=10.0, topk=2)
    assert capped.indices.shape == (2, 2)
    expected = min(large, 1000) / large
    torch.testing.assert_close(dense(capped)[0], torch.tensor([1 - expected, expected]))
    torch.testing.assert_close(dense(capped)[1], torch.tensor([1.0, 0]))
    torch.testing.assert_close(ratio, torch.tensor([100 / large, min(large, 1000) / 100]))


@pytest.mark.parametrize(('max_inflow', 'last'), [(2.0, 2.0), (0.5, 1.5)])
def test_uniform_rows_take_room_but_are_not_capped(max_inflow, last):
    # Class 0 is uniform and gives 15 to each of the others; class 1 gives 40 to class 2.
    similarity = ClassSimilarity(torch.tensor([[1], [2], [1]]), torch.tensor([[0.0], [1.0], [1.0]]))
    counts = torch.tensor([30.0, 40, 10])
    capped, ratio = cap_inflow(similarity, counts, max_inflow)
    assert capped.weights[0].tolist() == [0]
    # With one column a capped row falls back to its own class altogether.
    assert capped.indices[1].tolist() == [1]
    assert ratio[2].item() == 1.5
    wide = ClassSimilarity(
        torch.tensor([[1, 0], [2, 0], [1, 0]]), torch.tensor([[0.0, 0], [1, 0], [1, 0]])
    )
    capped, ratio = cap_inflow(wide, counts, max_inflow)
    assert ratio[2].item() == pytest.approx(last)
    assert capped.weights[1].sum().item() == pytest.approx(1)
    assert dense(capped)[1, 2].item() == pytest.approx(max(max_inflow * 10 - 15, 0) / 40)


def test_cap_must_be_positive():
    with pytest.raises(ValueError, match=r'max_inflow.*0\.0'):
        cap_inflow(random_similarity(0, 3, 2), torch.ones(3), max_inflow=0.0)


# --- evidence ---


@pytest.mark.parametrize('temperature', [0.1, 1.0])
def test_evidence_matches_the_reference(temperature):
    features, prototypes = randn(12, 6) + 2, randn(5, 6, seed=1) + 2
    counts = torch.tensor([3, 0, 1, 8, 2])
    valid = counts.numpy() > 0
    cosine = centred_cosine(features.double().numpy(), prototypes.double().numpy(), valid)
    logits = cosine[:, valid] / temperature
    expected = np.empty((12, 5))
    expected[:, valid] = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected[:, ~valid] = -np.log(4)
    actual = prototype_log_evidence(features, prototypes, counts, temperature)
    torch.testing.assert_close(actual, torch.from_numpy(expected).float(), rtol=1e-4, atol=1e-4)


def test_evidence_finds_the_class_of_its_own_prototype():
    prototypes = randn(6, 16)
    evidence = prototype_log_evidence(prototypes, prototypes, torch.ones(6))
    assert evidence.argmax(1).tolist() == list(range(6))


@pytest.mark.parametrize('counts', [[0, 0, 0], [0, 7, 0]])
def test_evidence_of_too_few_prototypes_says_nothing(counts):
    features = randn(4, 3).requires_grad_()
    evidence = prototype_log_evidence(features, randn(3, 3, seed=1), torch.tensor(counts))
    assert evidence.tolist() == [[0, 0, 0]] * 4
    evidence.sum().backward()
    assert features.grad.isfinite().all()


def test_evidence_of_no_rows_and_of_one_class():
    assert prototype_log_evidence(randn(0, 3), randn(4, 3), torch.ones(4)).shape == (0, 4)
    assert prototype_log_evidence(randn(2, 3), randn(1, 3), torch.ones(1)).tolist() == [[0], [0]]


def test_evidence_has_the_gradient_of_finite_differences():
    features = randn(3, 4).double().requires_grad_()
    prototypes, counts = randn(4, 4, seed=1).double(), torch.tensor([1, 2, 0, 1])
    assert torch.autograd.gradcheck(
        lambda x: prototype_log_evidence(x, prototypes, counts, 0.5), features
    )


def test_evidence_under_autocast_is_computed_in_float32():
    features, prototypes, counts = randn(5, 64), randn(6, 64, seed=1), torch.ones(6)
    expected = prototype_log_evidence(features, prototypes, counts)
    with torch.autocast('cpu', torch.bfloat16):
        actual = prototype_log_evidence(features, prototypes, counts)
    assert torch.equal(actual, expected)
    low = prototype_log_evidence(features.bfloat16(), prototypes, counts)
    assert low.dtype == torch.float32
