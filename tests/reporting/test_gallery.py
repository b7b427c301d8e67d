"""Close-ups: what part of the image, what is drawn in it, and what the caption says."""

from __future__ import annotations

import base64
import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from PIL import Image

from mmdet_softpl.reporting.gallery import CONTEXT, MIN_SIDE, close_up_window, example_tile


@pytest.mark.parametrize(
    ('bbox', 'shape'),
    [
        ((100, 100, 110, 120), (400, 600)),
        ((0, 0, 10, 10), (400, 600)),
        ((590, 390, 600, 400), (400, 600)),
        ((50, 50, 350, 350), (400, 600)),
        ((-5, -5, 200, 90), (80, 120)),
    ],
)
def test_window_lies_in_the_image_and_holds_the_box(bbox: tuple, shape: tuple) -> None:
    left, top, right, bottom = close_up_window(bbox, shape)
    assert 0 <= left < right <= shape[1] and 0 <= top < bottom <= shape[0]
    assert left <= max(bbox[0], 0) and right >= min(bbox[2], shape[1])
    assert top <= max(bbox[1], 0) and bottom >= min(bbox[3], shape[0])
    side = max(CONTEXT * max(bbox[2] - bbox[0], bbox[3] - bbox[1]), MIN_SIDE)
    assert right - left == min(round(side), shape[1])
    assert bottom - top == min(round(side), shape[0])


def example(student: bool) -> SimpleNamespace:
    seen = InstanceData(
        bboxes=torch.tensor([[100.0, 100, 140, 140], [300, 300, 340, 340]]),
        labels=torch.tensor([1, 0]),
        scores=torch.tensor([0.4, 0.9]),
        confidences=torch.tensor([0.3, 0.8]),
        kept=torch.tensor([False, True]),
        mask_probs=torch.ones(2, 28, 28),
    )
    return SimpleNamespace(
        kind='doubtful',
        image=np.full((400, 400, 3), 90, dtype=np.uint8),
        name='a.png',
        chosen=0,
        teacher=seen,
        student=seen[:0] if student else None,
        threshold=0.45,
        disagreement=0.25,
    )


@pytest.mark.parametrize('student', [False, True])
def test_tile(student: bool) -> None:
    tile = example_tile(example(student), ('ant', 'bee'))
    head, data = tile.source.split(',')
    assert head == 'data:image/webp;base64'
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert picture.size == (tile.width, tile.height)
    assert (tile.width > 1.5 * tile.height) == student
    # A dropped object is drawn, too, since it is the one to look at.
    assert np.asarray(picture).std() > 5
    text = 'bee, dropped: confidence 0.30, score 0.40, threshold 0.45'
    assert tile.caption.startswith(text) and tile.caption.endswith('(a.png)')
    # 0.3 (1 - student) = 0.25.
    assert ('student 0.17' in tile.caption) == student
