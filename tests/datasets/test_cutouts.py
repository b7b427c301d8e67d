"""Cutting out and pasting, against loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdet_softpl.datasets.cutouts import Cutout, cut_out, paste


def random_cutout(rng: np.random.Generator, h: int, w: int, channels: tuple[int, ...]) -> Cutout:
    mask = rng.random((h, w)) < 0.6
    mask[0, 0] = mask[-1, -1] = True
    return Cutout(rng.integers(1, 255, (h, w, *channels), dtype=np.uint8), mask)


@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 3),
    st.tuples(st.integers(1, 6), st.integers(1, 5)),
    st.sampled_from([(3,), (1,), ()]),
)
def test_paste_by_pixels(
    seed: int, number: int, size: tuple[int, int], channels: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 255, (6, 5, *channels), dtype=np.uint8)
    masks = (rng.random((number, 6, 5)) < 0.5).astype(np.uint8)
    cutout = random_cutout(rng, *size, channels)
    top, left = rng.integers(0, 7 - size[0]), rng.integers(0, 6 - size[1])
    expected, expected_masks, expected_lost = image.copy(), masks.copy(), [0] * number
    for y in range(size[0]):
        for x in range(size[1]):
            if not cutout.mask[y, x]:
                continue
            expected[top + y, left + x] = cutout.image[y, x]
            for k in range(number):
                expected_lost[k] += int(masks[k, top + y, left + x])
                expected_masks[k, top + y, left + x] = 0

    lost = paste(image, masks, cutout, top, left)

    assert lost.tolist() == expected_lost
    assert (image == expected).all() and (masks == expected_masks).all()


def test_what_is_cut_out_goes_back_where_it_was() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (9, 7, 3), dtype=np.uint8)
    mask = np.zeros((9, 7), dtype=np.uint8)
    mask[2:5, 1] = mask[4, 1:6] = 1
    cutout = cut_out(image, mask)
    assert cutout is not None and cutout.mask.shape == (3, 5)
    empty, found = np.zeros_like(image), np.zeros((1, 9, 7), dtype=np.uint8)
    paste(empty, found, cutout, 2, 1)
    assert (empty == image * mask[..., None]).all()
    assert (cutout.mask == mask[2:5, 1:6].astype(bool)).all()


def test_an_empty_mask_has_no_object() -> None:
    assert cut_out(np.zeros((3, 3, 3)), np.zeros((3, 3))) is None
    assert cut_out(np.zeros((0, 3, 3)), np.zeros((0, 3))) is None


@pytest.mark.parametrize('channels', [(3,), (1,), ()])
def test_half_the_size_by_blocks(channels: tuple[int, ...]) -> None:
    cutout = random_cutout(np.random.default_rng(1), 8, 12, channels)
    found = cutout.resized(0.5)
    assert found is not None
    mask = np.zeros((4, 6), dtype=bool)
    image = np.zeros((4, 6, *channels))
    for y in range(4):
        for x in range(6):
            block = np.s_[2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
            mask[y, x] = cutout.mask[block].sum() >= 2
            image[y, x] = cutout.image[block].astype(float).mean((0, 1))
    # This one touches all sides, so nothing is cut off.
    assert mask.any(0)[[0, -1]].all() and mask.any(1)[[0, -1]].all()
    assert (found.mask == mask).all()
    assert np.abs(found.image - image).max() <= 0.5


def test_the_same_size_is_the_same() -> None:
    cutout = random_cutout(np.random.default_rng(1), 4, 6, (3,))
    assert cutout.resized(1.0) is cutout


@pytest.mark.parametrize('factor', [0.01, 0.3, 0.7, 1.4, 3.0])
def test_a_resized_object_is_where_its_box_is(factor: float) -> None:
    gone = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        mask = rng.random(rng.integers(1, 12, 2)) < rng.choice([0.15, 0.5, 0.9])
        # Thin: a diagonal slips through a grid of another width.
        mask |= np.eye(*mask.shape, dtype=bool)
        cutout = cut_out(np.zeros((*mask.shape, 3), dtype=np.uint8), mask)
        assert cutout is not None
        found = cutout.resized(factor)
        if found is None:
            gone += 1
            continue
        assert found.image.shape[:2] == found.mask.shape
        assert all(found.mask.any(axis)[[0, -1]].all() for axis in (0, 1))
    assert gone == 0 if factor > 1 else gone < 60


def test_a_larger_full_object_is_full() -> None:
    cutout = Cutout(np.full((3, 5, 3), 7, dtype=np.uint8), np.ones((3, 5), dtype=bool))
    found = cutout.resized(2.2)
    assert found is not None and found.mask.shape == (7, 11) and found.mask.all()
    assert (found.image == 7).all()


def test_mirrored() -> None:
    cutout = random_cutout(np.random.default_rng(2), 3, 4, (3,))
    other = cutout.mirrored()
    for x in range(4):
        assert (other.image[:, x] == cutout.image[:, 3 - x]).all()
        assert (other.mask[:, x] == cutout.mask[:, 3 - x]).all()
