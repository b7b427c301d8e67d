import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mmdet_softpl.ops import active
from mmdet_softpl.ops.nms import nms
from mmdet_softpl.ops.soft_nms import softnms

REFERENCE = Path(__file__).parents[1] / 'data' / 'ops_reference.npz'
NAIVE, LINEAR, GAUSSIAN = 0, 1, 2


def run(boxes, scores, threshold=0.5, sigma=0.5, min_score=0.05, method=LINEAR, offset=0):
    dets = torch.full((len(boxes), 5), -7.0)
    kept = softnms(boxes, scores, dets, threshold, sigma, min_score, method, offset)
    assert (dets[len(kept) :] == -7).all()
    return kept, dets[: len(kept)]


def brute_force(boxes, scores, threshold, sigma, min_score, method, offset):
    """Textbook soft-NMS on Python lists of (box, score, index)."""
    left = [[*box, score, i] for i, (box, score) in enumerate(zip(boxes, scores, strict=True))]
    done = []
    while left:
        top = max(left, key=lambda row: row[4])
        left.remove(top)
        done.append(top)
        for row in left:
            width = min(top[2], row[2]) - max(top[0], row[0]) + offset
            height = min(top[3], row[3]) - max(top[1], row[1]) + offset
            inter = max(width, 0) * max(height, 0)
            areas = sum((r[2] - r[0] + offset) * (r[3] - r[1] + offset) for r in (top, row))
            iou = inter / (areas - inter)
            if method == GAUSSIAN:
                row[4] *= math.exp(-iou * iou / sigma)
            elif iou >= threshold:
                row[4] *= 1 - iou if method == LINEAR else 0
        left = [row for row in left if row[4] >= min_score]
    return [row[5] for row in done], [row[4] for row in done]


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', [NAIVE, LINEAR, GAUSSIAN])
@pytest.mark.parametrize('threshold', [0.3, 0.5, 0.7])
def test_equals_stored_compiled_output(threshold, method, offset):
    with np.load(REFERENCE) as stored:
        boxes, scores = (torch.from_numpy(stored[f'nms_{k}']) for k in ('boxes', 'scores'))
        expected = stored[f'softnms_{threshold}_{offset}_{method}_kept']
        expected_dets = stored[f'softnms_{threshold}_{offset}_{method}_dets']
    kept, dets = run(boxes, scores, threshold, method=method, offset=offset)
    np.testing.assert_array_equal(kept.numpy(), expected)
    np.testing.assert_allclose(dets.numpy(), expected_dets, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('method', [NAIVE, LINEAR, GAUSSIAN])
@pytest.mark.parametrize('offset', [0, 1])
def test_equals_brute_force(method, offset):
    generator = torch.Generator().manual_seed(3)
    corners = torch.rand(80, 2, generator=generator) * 60
    boxes = torch.cat([corners, corners + 5 + torch.rand(80, 2, generator=generator) * 40], dim=1)
    scores = torch.rand(80, generator=generator)
    kept, dets = run(boxes, scores, 0.4, 0.7, 0.02, method, offset)
    expected, decayed = brute_force(boxes.tolist(), scores.tolist(), 0.4, 0.7, 0.02, method, offset)
    assert kept.tolist() == expected
    torch.testing.assert_close(dets[:, 4], torch.tensor(decayed), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(dets[:, :4], boxes[kept])


def test_naive_is_hard_nms():
    generator = torch.Generator().manual_seed(4)
    corners = torch.rand(60, 2, generator=generator) * 60
    boxes = torch.cat([corners, corners + 20], dim=1)
    scores = torch.rand(60, generator=generator) + 0.1
    kept, _ = run(boxes, scores, 0.5, method=NAIVE)
    assert kept.tolist() == nms(boxes, scores, 0.5, 0).tolist()


def test_zero_and_one_box():
    kept, dets = run(torch.zeros(0, 4), torch.zeros(0))
    assert kept.shape == (0,) and kept.dtype == torch.long and dets.shape == (0, 5)
    kept, dets = run(torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([0.01]))
    assert kept.tolist() == [0] and dets[0, 4] == pytest.approx(0.01)


def test_inputs_are_not_changed():
    boxes, scores = torch.tensor([[0.0, 0, 4, 4], [0.0, 0, 4, 5]]), torch.tensor([0.5, 0.9])
    run(boxes, scores)
    assert boxes.tolist() == [[0, 0, 4, 4], [0, 0, 4, 5]]
    assert scores.tolist() == pytest.approx([0.5, 0.9])


@pytest.mark.skipif(active() != 'compiled', reason='needs a compiled mmcv')
@pytest.mark.parametrize('method', [NAIVE, LINEAR, GAUSSIAN])
def test_equals_compiled(method):
    import mmcv._ext as ext

    corners = torch.rand(500, 2) * 200
    boxes = torch.cat([corners, corners + torch.rand(500, 2) * 80], dim=1)
    scores = torch.rand(500)
    dets = torch.zeros(500, 5)
    expected = ext.softnms(boxes, scores, dets, 0.5, 0.5, 0.01, method, 0)
    kept, ours = run(boxes, scores, min_score=0.01, method=method)
    assert torch.equal(kept, expected)
    torch.testing.assert_close(ours, dets[: len(kept)])
