"""Scenes: determinism, occlusion limits, masks that fit the drawn pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mmdet_softpl.datasets import shape_scenes
from mmdet_softpl.datasets.shape_classes import shape_classes
from mmdet_softpl.datasets.shape_scenes import MIN_VISIBLE, render_scene

CLASSES = shape_classes(24)


def _render(labels, seed=0, size=96):
    return render_scene(CLASSES, labels, size, np.random.default_rng(seed))


def test_no_object():
    scene = _render([])
    assert scene.image.shape == (96, 96, 3) and scene.image.dtype == np.uint8
    assert scene.labels == [] and scene.masks.shape == (96, 96, 0)


def test_same_seed_same_picture():
    first, again, other = _render([1, 2, 3], 5), _render([1, 2, 3], 5), _render([1, 2, 3], 6)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.masks, again.masks)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize('seed', range(8))
def test_masks_are_disjoint_and_every_object_is_in_sight(seed):
    labels = list(np.random.default_rng(seed).integers(0, 24, 10))
    scene = _render(labels, seed)
    assert sorted(scene.labels) == sorted(labels)
    assert scene.masks.sum(axis=2).max() == 1
    assert scene.masks.sum(axis=(0, 1)).min() > 20


def test_objects_hide_each_other_but_never_too_far(monkeypatch):
    original, lists = shape_scenes._place, []

    def spy(image, owner, visible, full, *rest):
        lists[:] = [visible, full]
        return original(image, owner, visible, full, *rest)

    monkeypatch.setattr(shape_scenes, '_place', spy)
    shares = []
    for seed in range(25):
        scene = _render(list(range(9)), seed)
        in_sight, (_, full) = scene.masks.sum(axis=(0, 1)), lists
        shares += [n / area for n, area in zip(in_sight, full[1:], strict=True)]
    assert min(shares) >= MIN_VISIBLE
    assert np.mean(np.array(shares) < 0.7) > 0.05


def test_masks_fit_the_pixels(monkeypatch):
    """On a flat picture without noise the mask is where the picture changed."""
    flat = np.full((160, 160, 3), 100, np.float32)
    monkeypatch.setattr(shape_scenes, '_background', lambda size, rng: flat.copy())
    monkeypatch.setattr(shape_scenes, '_occlude', lambda *args: None)
    monkeypatch.setattr(
        shape_scenes, '_finish', lambda image, rng: np.clip(image, 0, 255).astype(np.uint8)
    )
    for seed in range(10):
        scene = _render([seed, seed + 10], seed, 160)
        changed = (scene.image != 100).any(axis=2)
        mask = scene.masks.any(axis=2).astype(np.uint8)
        assert changed[mask > 0].mean() > 0.97
        # Soft edges change up to two pixels beside the mask; the tip of a thin stem more.
        outside = cv2.dilate(mask, np.ones((5, 5), np.uint8)) == 0
        assert changed[outside].sum() <= 0.01 * mask.sum()
