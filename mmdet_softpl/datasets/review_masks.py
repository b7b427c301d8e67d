"""Masks in the encodings of annotation tools: COCO RLE, polygons, Label Studio's brush.

Shape letters: H, W height and width of an image in pixels. A "COCO RLE" is a dict of ``size``
[H, W] and ``counts`` as text, what ``pycocotools.mask`` makes and json can hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

# A polygon of a review must describe its mask at least as well as this.
POLYGON_IOU = 0.98
# Pixels that a simplified outline may leave the exact one, coarse to exact: people edit a dozen
# points sooner than a staircase of hundreds.
_TOLERANCES = (2.0, 1.5, 1.0, 0.75, 0.5, 0.25, 0.0)
# Label Studio packs its brush as RGBA of one byte each with rle-pack of the thi.ng umbrella
# project: 32 bits of length, 5 bits of word size - 1, four times 4 bits of size - 1, then runs
# of: 1 bit (1: one value repeated, 0: values one by one), 2 bits (which size), length - 1, values.
_CHANNELS = 4
_WORD = 8
_RUN_SIZES = (4, 8, 12, 16)
_FOREGROUND = 255


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """COCO RLE of a mask (H, W), bool or 0 and 1."""
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {'size': [int(n) for n in rle['size']], 'counts': rle['counts'].decode('ascii')}


def decode_mask(rle: dict[str, Any]) -> np.ndarray:
    """Mask (H, W) bool of a COCO RLE."""
    return coco_mask.decode(rle).astype(bool)


def segmentation_to_rle(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """COCO RLE of what an annotation's ``segmentation`` may be.

    Args:
        segmentation: polygons [[x1, y1, x2, y2, x3, y3, ...], ...] in pixels (their union), an
            RLE with text or with a list of numbers as ``counts``.
        height, width: of the image.

    Raises:
        ValueError: it is none of these, belongs to an image of another size, or covers nothing.
    """
    if isinstance(segmentation, dict):
        rle = checked_rle(segmentation, height, width)
    elif isinstance(segmentation, list) and segmentation:
        for polygon in segmentation:
            numbers = isinstance(polygon, list) and all(
                isinstance(n, (int, float)) and np.isfinite(n) for n in polygon
            )
            if not numbers or len(polygon) < 6 or len(polygon) % 2:
                raise ValueError(
                    f'polygon {str(polygon)[:60]} is not [x1, y1, x2, y2, x3, y3, ...] with at '
                    'least three points'
                )
        rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    else:
        raise ValueError(f'no mask (segmentation={str(segmentation)[:60]})')
    if not coco_mask.area(rle):
        raise ValueError('the mask covers no pixel of the image')
    counts = rle['counts']
    text = counts.decode('ascii') if isinstance(counts, bytes) else counts
    return {'size': [height, width], 'counts': text}


def checked_rle(rle: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """COCO RLE of an RLE that fits its image.

    Args:
        rle: with ``size`` and ``counts``, a text or a list of numbers >= 0.
        height, width: of the image.

    Raises:
        ValueError: it belongs to an image of another size, or its counts are none of these or do
            not add up to the pixels of the image.
    """
    size, counts = rle.get('size'), rle.get('counts')
    if not isinstance(size, (list, tuple)) or list(size) != [height, width]:
        raise ValueError(f'the mask is of size {size}, the image of [{height}, {width}]')
    if isinstance(counts, list):
        if any(not isinstance(n, int) or n < 0 for n in counts) or sum(counts) != height * width:
            raise ValueError(f'the counts of the mask do not add up to {height} x {width} pixels')
        return coco_mask.frPyObjects(rle, height, width)
    if not isinstance(counts, str) or not counts.isascii():
        raise ValueError(f'the counts of the mask are a {type(counts).__name__}, not an RLE')
    if _rle_length(counts) != height * width:
        # pycocotools would write past the end of the mask.
        raise ValueError(f'the counts of the mask do not add up to {height} x {width} pixels')
    return {'size': [height, width], 'counts': counts}


def _rle_length(counts: str) -> int:
    """Pixels of a compressed COCO RLE: 5 bits a character, differences to the run two before."""
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        code = ord(character) - 48
        if not 0 <= code < 64:
            return -1
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return sum(runs) if not shift and all(run >= 0 for run in runs) else -1


def mask_to_polygons(mask: np.ndarray) -> list[list[float]] | None:
    """Outline of a mask as COCO polygons with few points.

    The outline runs along the edges of the pixels and is simplified (Douglas and Peucker, 1973)
    as far as the IoU of what pycocotools fills with the mask stays :data:`POLYGON_IOU`.

    Args:
        mask: (H, W) bool.

    Returns:
        One polygon a part; None for an empty mask and for one that polygons cannot describe so
        well, because they have no holes.
    """
    import shapely

    height, width = mask.shape
    padded = np.zeros((height, width + 2), dtype=np.int8)
    padded[:, 1:-1] = mask
    step = np.diff(padded, axis=1)
    y, left = np.nonzero(step == 1)
    right = np.nonzero(step == -1)[1]
    if not len(y):
        return None
    exact = shapely.union_all(shapely.box(left, y, right, y + 1))
    own = encode_mask(mask)
    for tolerance in _TOLERANCES:
        outline = shapely.simplify(exact, tolerance) if tolerance else exact
        parts = [p for p in shapely.get_parts(outline) if p.area > 0]
        polygons = [shapely.get_coordinates(p.exterior)[:-1].ravel().tolist() for p in parts]
        polygons = [p for p in polygons if len(p) >= 6]
        if not polygons:
            continue
        filled = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
        if float(coco_mask.iou([filled], [own], [0])[0, 0]) >= POLYGON_IOU:
            return polygons
    return None


def encode_brush(mask: np.ndarray) -> list[int]:
    """Bytes of a mask (H, W) bool in the RLE of Label Studio's ``brushlabels``."""
    flat = np.ascontiguousarray(mask, dtype=bool).ravel()
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]))
    bits = [f'{flat.size * _CHANNELS:032b}', f'{_WORD - 1:05b}']
    bits += [f'{size - 1:04b}' for size in _RUN_SIZES]
    for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        value = _FOREGROUND if flat[start] else 0
        left = (end - start) * _CHANNELS
        while left > 0:
            run = min(left, 1 << _RUN_SIZES[-1])
            which = next(i for i, size in enumerate(_RUN_SIZES) if run <= 1 << size)
            bits.append(f'1{which:02b}{run - 1:0{_RUN_SIZES[which]}b}{value:08b}')
            left -= run
    text = ''.join(bits)
    text += '0' * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, 'big'))


def decode_brush(data: Sequence[int], height: int, width: int) -> np.ndarray:
    """Mask of Label Studio's ``brushlabels``: where the brush is more than half opaque.

    Args:
        data: bytes in [0, 255], ``value.rle`` of a result.
        height, width: ``original_height`` and ``original_width`` of the result.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: the bytes are truncated, or of an image of another size.
    """
    try:
        raw = bytes(data)
    except (TypeError, ValueError) as error:
        raise ValueError(f'a brush mask is a list of bytes: {error}') from error
    text = f'{int.from_bytes(raw, "big"):0{len(raw) * 8}b}' if raw else ''
    position = 0

    def read(length: int) -> int:
        nonlocal position
        if position + length > len(text):
            raise ValueError(f'the brush mask is truncated ({len(raw)} bytes)')
        position += length
        return int(text[position - length : position], 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    if total != height * width * _CHANNELS:
        raise ValueError(
            f'the brush mask has {total} values, an image of {height} x {width} pixels '
            f'{height * width * _CHANNELS}'
        )
    values = np.zeros(total, dtype=np.uint32)
    filled = 0
    while filled < total:
        repeated = read(1)
        end = filled + read(sizes[read(2)]) + 1
        if end > total:
            raise ValueError('the runs of the brush mask are longer than its image')
        if repeated:
            values[filled:end] = read(word)
        else:
            values[filled:end] = [read(word) for _ in range(end - filled)]
        filled = end
    # The fourth channel is the opacity.
    return values.reshape(height, width, _CHANNELS)[:, :, 3] > (1 << word) // 2
