"""fill_rare_first on small cases worked out by hand."""

from __future__ import annotations

import numpy as np

from mmdet_softpl.datasets.image_budget import fill_rare_first

# Image 1: class 0 and 1; image 2: class 1; image 3: class 1, surest; image 4: class 0, surest.
IMAGES = np.array([1, 1, 2, 3, 4])
LABELS = np.array([0, 1, 1, 1, 0])
WEIGHTS = np.array([0.7, 0.6, 0.5, 0.9, 0.8])


def fill(counts: list[int], target: int) -> set[int]:
    return fill_rare_first(IMAGES, LABELS, WEIGHTS, np.array(counts), target)


def test_surest_label_first() -> None:
    assert fill([0, 5], 1) == {4}
    assert fill([5, 0], 1) == {3}


def test_rarer_class_chooses_and_its_images_count_for_the_others() -> None:
    # Class 0 takes images 4 and 1; image 1 gives class 1 what it lacks.
    assert fill([0, 1], 2) == {1, 4}
    # Class 1 chooses first: its surest, then image 1, which leaves class 0 one short.
    assert fill([1, 0], 2) == {3, 1}


def test_full_classes_and_too_few_labels() -> None:
    assert fill([9, 9], 9) == set()
    assert fill([0, 0], 100) == {1, 2, 3, 4}


def test_an_image_with_two_labels_of_a_class_counts_twice() -> None:
    images, labels = np.array([1, 1, 2]), np.array([0, 0, 0])
    chosen = fill_rare_first(images, labels, np.array([0.9, 0.2, 0.8]), np.array([0]), 2)
    assert chosen == {1}


def test_nothing_to_choose_from() -> None:
    none = np.zeros(0, dtype=int)
    assert fill_rare_first(none, none, np.zeros(0), np.array([0, 3]), 5) == set()
