"""Comparisons against scipy and hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from mmdet_softpl.evaluation.similarity_comparison import (
    compare_similarities,
    dense_similarity,
    inflow_ratio,
)
from mmdet_softpl.functional import ClassSimilarity


def test_dense_rows_and_uniform_ones() -> None:
    similarity = ClassSimilarity(
        torch.tensor([[1, 2], [0, 0], [1, 2]]), torch.tensor([[0.7, 0.3], [0.0, 0], [0.4, 0.6]])
    )
    dense = dense_similarity(similarity)
    np.testing.assert_allclose(dense, [[0, 0.7, 0.3], [0.5, 0, 0.5], [0, 0.4, 0.6]], atol=1e-7)
    # Class 1 hands on 20, half to each; class 2 keeps 0.6 of its own.
    flow = inflow_ratio(similarity, torch.tensor([10.0, 20, 0]), 0.1)
    np.testing.assert_allclose(flow, [0.1 * 10 / 10, 0.1 * 7.4 / 20, 0.1 * 13 / 1], atol=1e-7)


@pytest.mark.parametrize('count', [6, 12])
def test_correlation_is_scipys_and_overlap_is_counted(count: int) -> None:
    rng = np.random.default_rng(count)
    first, second = rng.integers(0, 6, (2, count, count)).astype(float)
    known = np.ones(count, bool)
    known[1] = False
    result = compare_similarities(first, second, known, ks=(1, 3, 50))
    rows = np.flatnonzero(known)
    for row in rows:
        columns = rows[rows != row]
        expected = spearmanr(first[row, columns], second[row, columns])[0]
        np.testing.assert_allclose(result.by_class[row], expected, atol=1e-12)
    assert np.isnan(result.by_class[1]) and result.classes == count - 1
    assert 50 not in result.overlap and result.chance[1] == 1 / (count - 2)


def test_equal_and_opposite() -> None:
    matrix = np.random.default_rng(0).normal(size=(9, 9))
    known = np.ones(9, bool)
    same = compare_similarities(matrix, np.exp(matrix), known, ks=(1, 3))
    assert same.rank_correlation == pytest.approx(1) and same.overlap == {1: 1, 3: 1}
    assert compare_similarities(matrix, -matrix, known).rank_correlation == pytest.approx(-1)


@pytest.mark.parametrize('count', [0, 1, 2])
def test_too_few_classes_compare_to_nothing(count: int) -> None:
    result = compare_similarities(np.ones((3, 3)), np.ones((3, 3)), np.arange(3) < count)
    assert np.isnan(result.rank_correlation) and result.overlap == {}


def test_other_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r'\(3, 3\).*\(2, 2\)'):
        compare_similarities(np.ones((3, 3)), np.ones((2, 2)), np.ones(3, bool))
