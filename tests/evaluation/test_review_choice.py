"""Gains against their closed form; the greedy choice against an exhaustive rule on few images."""

from __future__ import annotations

import numpy as np
import pytest

from mmdet_softpl.evaluation.review_choice import choose_images, expected_gain, view_disagreement


def test_gain_is_entropy_and_disagreement_times_rarity() -> None:
    p = np.array([0.5, 0.0, 1.0, 0.25, 0.5])
    d = np.array([0.0, 0.0, 0.0, 0.4, 1.0])
    r = np.array([1.0, 4.0, 4.0, 2.0, 3.0])
    quarter = -(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75))
    expected = [0.5, 0, 0, 2 * (quarter + 0.4) / 2, 3]
    np.testing.assert_allclose(expected_gain(p, d, r), expected, atol=1e-12)


def test_disagreement_of_the_same_and_of_other_views() -> None:
    overlaps = np.array([[1.0, 0.0], [0.0, 0.5], [0.0, 0.0]])
    classes = np.array([[1.0, 0.0], [0.6, 0.4], [0.5, 0.5]])
    other = np.array([[1.0, 0.0], [0.2, 0.8]])
    np.testing.assert_allclose(
        view_disagreement(overlaps, classes, other), [0, 1 - 0.5 * (0.2 + 0.4), 1]
    )
    np.testing.assert_allclose(view_disagreement(overlaps[:, :0], classes, other[:0]), [1, 1, 1])
    assert view_disagreement(overlaps[:0], classes[:0], other).shape == (0,)


def choose(gains, image_of, features=None, labels=None, budget=100.0, num_images=None):
    count = len(gains)
    return choose_images(
        np.asarray(gains, dtype=float),
        np.asarray(image_of, dtype=int),
        np.zeros(count, dtype=int) if labels is None else np.asarray(labels),
        np.eye(max(count, 1))[:count] if features is None else np.asarray(features, dtype=float),
        max(image_of, default=-1) + 1 if num_images is None else num_images,
        budget=budget,
        seconds_per_instance=10,
    )


def test_best_gain_per_second_first_and_within_the_budget() -> None:
    # Image 0: 2 labels, 3.0 together; image 1: one of 2.0; image 2: one of 0.5.
    choice = choose([1.5, 1.5, 2.0, 0.5], [0, 0, 1, 2], budget=35)
    assert choice.images == (1, 0)
    assert choice.seconds == 30
    # What is too large is passed over for what fits.
    assert choose([1.5, 1.5, 2.0, 0.5], [0, 0, 1, 2], budget=25).images == (1, 2)


@pytest.mark.parametrize('budget', [0, 9.9])
def test_a_budget_for_nothing(budget: float) -> None:
    assert choose([1.0], [0], budget=budget).images == ()


def test_empty_images_and_sure_labels_are_never_chosen() -> None:
    assert choose([], [], num_images=3).images == ()
    assert choose([], [], num_images=0).images == ()
    assert choose([0.0, 0.3], [0, 2], num_images=4).images == (2,)


def test_near_equal_doubts_are_not_chosen_twice() -> None:
    # Ten copies of one doubt, and a smaller one that looks different, of the same class.
    features = [[1.0, 0.0]] * 10 + [[-1.0, 0.2]]
    gains = [1.0] * 10 + [0.6]
    choice = choose(gains, range(11), features, budget=20)
    assert choice.images[1] == 10
    # Of another class, a look-alike is no repetition.
    labels = [0] * 9 + [1, 0]
    assert choose(gains, range(11), features, labels, budget=20).images == (0, 9)


def test_bad_budget_is_named() -> None:
    with pytest.raises(ValueError, match='budget'):
        choose([1.0], [0], budget=-1)
