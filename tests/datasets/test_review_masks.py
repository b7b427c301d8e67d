"""Encodings of masks against pycocotools, a slow decoder, and Label Studio's own converter."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mmdet_softpl.datasets.review_masks import (
    decode_brush,
    decode_mask,
    encode_brush,
    encode_mask,
    mask_to_polygons,
    segmentation_to_rle,
)


def random_mask(seed: int) -> np.ndarray:
    """An ellipse, alone, with specks, or with a hole, never empty."""
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers(8, 90, 2))
    mask = np.zeros((height, width), dtype=np.uint8)
    axes = tuple(int(rng.integers(2, n // 2 + 1)) for n in (width, height))
    cv2.ellipse(mask, (width // 2, height // 2), axes, float(rng.integers(180)), 0, 360, 1, -1)
    if seed % 3 == 1:
        mask |= rng.random((height, width)) < 0.05
    if seed % 3 == 2:
        cv2.circle(mask, (width // 2, height // 2), min(axes) // 2, 0, -1)
        mask[height // 2, 0] = 1
    return mask.astype(bool)


def slow_brush(data: list[int], size: int) -> list[int]:
    """What the format says, bit by bit: the values of the four channels."""
    bits = iter(bit for byte in data for bit in f'{byte:08b}')

    def number(length: int) -> int:
        return int(''.join(next(bits) for _ in range(length)), 2)

    assert number(32) == size
    word = number(5) + 1
    lengths = [number(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < size:
        repeated = number(1)
        run = number(lengths[number(2)]) + 1
        values += [number(word)] * run if repeated else [number(word) for _ in range(run)]
    return values


MASKS = [random_mask(seed) for seed in range(9)]
EDGES = [np.zeros((3, 5), bool), np.ones((3, 5), bool), np.ones((1, 1), bool)]


@pytest.mark.parametrize('mask', MASKS + EDGES)
def test_rle_and_brush_lose_nothing(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(decode_mask(encode_mask(mask)), mask)
    brush = encode_brush(mask)
    np.testing.assert_array_equal(decode_brush(brush, *mask.shape), mask)
    values = np.reshape(slow_brush(brush, mask.size * 4), (*mask.shape, 4))
    for channel in range(4):
        np.testing.assert_array_equal(values[:, :, channel], mask * 255)


def test_brush_of_a_long_run() -> None:
    mask = np.zeros((300, 300), bool)
    mask[5] = True
    values = slow_brush(encode_brush(mask), mask.size * 4)
    np.testing.assert_array_equal(np.reshape(values, (300, 300, 4))[:, :, 3] > 0, mask)


@pytest.mark.parametrize('mask', MASKS)
def test_brush_agrees_with_label_studios_converter(mask: np.ndarray) -> None:
    brush = pytest.importorskip('label_studio_converter.brush')
    decoded = brush.decode_rle(encode_brush(mask)).reshape(*mask.shape, 4)[:, :, 3]
    np.testing.assert_array_equal(decoded > 0, mask)
    theirs = brush.mask2rle(mask.astype(np.uint8) * 255)
    np.testing.assert_array_equal(decode_brush(theirs, *mask.shape), mask)


def test_literal_runs_are_read() -> None:
    """Label Studio writes single values that way; our encoder never does."""
    bits = f'{8:032b}' + f'{7:05b}' + ''.join(f'{n - 1:04b}' for n in (3, 4, 8, 16))
    bits += '0' + '00' + f'{7:03b}' + ''.join(f'{v:08b}' for v in (0, 0, 0, 200, 0, 0, 0, 100))
    bits += '0' * (-len(bits) % 8)
    data = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
    assert decode_brush(data, 1, 2).tolist() == [[True, False]]


@pytest.mark.parametrize(
    'data, words',
    [
        (encode_brush(MASKS[0])[:-3], 'truncated'),
        ([], 'truncated'),
        (encode_brush(np.ones((2, 2), bool)), 'values'),
        ([300], 'bytes'),
    ],
)
def test_broken_brush_is_named(data: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        decode_brush(data, *MASKS[0].shape)


@pytest.mark.parametrize('mask', MASKS)
def test_polygons_describe_the_mask(mask: np.ndarray) -> None:
    polygons = mask_to_polygons(mask)
    if polygons is None:
        holes = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[1]
        assert (holes[0, :, 3] >= 0).any(), 'only a hole excuses it'
        return
    rle = coco_mask.merge(coco_mask.frPyObjects(polygons, *mask.shape))
    filled = coco_mask.decode(rle).astype(bool)
    assert (filled & mask).sum() / (filled | mask).sum() >= 0.98


def test_polygons_are_short_and_exact_on_rectangles() -> None:
    mask = np.zeros((40, 50), bool)
    mask[10:30, 5:45] = True
    polygons = mask_to_polygons(mask)
    assert polygons is not None and [len(p) for p in polygons] == [8]
    assert set(zip(polygons[0][::2], polygons[0][1::2], strict=True)) == {
        (5, 10), (45, 10), (45, 30), (5, 30),
    }  # fmt: skip
    ring = mask.copy()
    ring[12:28, 8:42] = False
    assert mask_to_polygons(ring) is None
    assert mask_to_polygons(np.zeros((4, 4), bool)) is None


@pytest.mark.parametrize('mask', MASKS[:4])
def test_every_kind_of_segmentation_is_read(mask: np.ndarray) -> None:
    height, width = mask.shape
    compressed = encode_mask(mask)
    runs, value = [], 0
    for pixel in mask.ravel(order='F'):
        if pixel != value or not runs:
            if not runs and pixel:
                runs.append(0)
            runs.append(0)
            value = pixel
        runs[-1] += 1
    assert segmentation_to_rle(compressed, height, width) == compressed
    counts = {'size': [height, width], 'counts': runs}
    assert segmentation_to_rle(counts, height, width) == compressed


@pytest.mark.parametrize(
    'segmentation, words',
    [
        (None, 'no mask'),
        ([], 'no mask'),
        ([[1, 1, 5, 5]], 'three points'),
        ([[1, 1, 5, 5, 5]], 'three points'),
        ([[1, 1, 5, 'x', 5, 1]], 'three points'),
        ([[200, 200, 205, 200, 205, 205]], 'no pixel'),
        ({'size': [5, 20], 'counts': '52203'}, 'of size'),
        ({'size': [20, 20], 'counts': [3, 4]}, 'add up'),
        ({'size': [20, 20], 'counts': '52'}, 'add up'),
        ({'size': [20, 20], 'counts': 'PPYo0'}, 'add up'),
        ({'size': [20, 20]}, 'NoneType'),
    ],
)
def test_broken_segmentation_is_named(segmentation: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        segmentation_to_rle(segmentation, 20, 20)
