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
def test_sizes(channels: tuple[int, ...]) -> None:
    cutout = random_cutout(np.random.default_rng(1), 4, 6, channels)
    same = cutout.resized(1.0)
    assert (same.image == cutout.image).all() and (same.mask == cutout.mask).all()
    twice = cutout.resized(2.0)
    assert twice.image.shape == (8, 12, *channels) and twice.mask.shape == (8, 12)
    # Every pixel became four.
    assert (twice.mask == np.kron(cutout.mask, np.ones((2, 2), dtype=bool))).all()
    assert cutout.resized(0.01).image.shape == (1, 1, *channels)


def test_mirrored() -> None:
    cutout = random_cutout(np.random.default_rng(2), 3, 4, (3,))
    other = cutout.mirrored()
    for x in range(4):
        assert (other.image[:, x] == cutout.image[:, 3 - x]).all()
        assert (other.mask[:, x] == cutout.mask[:, 3 - x]).all()
