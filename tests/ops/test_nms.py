import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from mmdet_softpl.ops import active, describe, torchvision
from mmdet_softpl.ops import nms as nms_module
from mmdet_softpl.ops.nms import nms

REFERENCE = Path(__file__).parents[1] / 'data' / 'ops_reference.npz'


@pytest.fixture
def plain(monkeypatch):
    """The plain PyTorch path, whether torchvision is installed or not."""
    monkeypatch.setattr(nms_module, 'why_unusable', lambda device_type: 'switched off')


def crowded(count, seed=0, spread=100.0):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * spread
    boxes = torch.cat([corners, corners + torch.rand(count, 2, generator=generator) * 60], dim=1)
    return boxes, torch.rand(count, generator=generator)


def brute_force(boxes, scores, threshold, offset):
    """One box at a time, one pair at a time, in float64."""
    boxes = boxes.double().numpy()
    order = np.argsort(-scores.numpy(), kind='stable')
    kept = []
    for j in order:
        for i in kept:
            width = min(boxes[i][2], boxes[j][2]) - max(boxes[i][0], boxes[j][0]) + offset
            height = min(boxes[i][3], boxes[j][3]) - max(boxes[i][1], boxes[j][1]) + offset
            inter = max(width, 0) * max(height, 0)
            area = [
                (boxes[k][2] - boxes[k][0] + offset) * (boxes[k][3] - boxes[k][1] + offset)
                for k in (i, j)
            ]
            if inter > threshold * (sum(area) - inter):
                break
        else:
            kept.append(int(j))
    return kept


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.3, 0.5, 0.7])
@pytest.mark.parametrize('path', ['plain', 'as installed'])
def test_equals_stored_compiled_output(request, path, threshold, offset):
    if path == 'plain':
        request.getfixturevalue('plain')
    with np.load(REFERENCE) as stored:
        boxes, scores = (torch.from_numpy(stored[f'nms_{k}']) for k in ('boxes', 'scores'))
        expected = stored[f'nms_{threshold}_{offset}'].tolist()
    assert 10 < len(expected) < len(boxes)
    found = nms(boxes, scores, threshold, offset).tolist()
    if path == 'plain' or active() != 'torchvision':
        assert found == expected
    # torchvision orders equal scores otherwise, and old ones keep the other of two equal boxes.
    rows = torch.cat([scores[:, None], boxes], dim=1)
    assert sorted(rows[found].tolist()) == sorted(rows[expected].tolist())
    assert scores[found].tolist() == scores[expected].tolist()


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('count', [1, 2, 63, 64, 65, 300])
def test_equals_brute_force(plain, count, offset):
    boxes, scores = crowded(count, seed=count)
    assert nms(boxes, scores, 0.4, offset).tolist() == brute_force(boxes, scores, 0.4, offset)


def test_more_boxes_than_one_tile(plain):
    boxes, scores = crowded(800, spread=1500.0)
    kept = nms(boxes, scores, 0.6, 0).tolist()
    assert len(kept) > sum(nms_module._CPU_TILE)
    assert kept == brute_force(boxes, scores, 0.6, 0)


def test_tiles_do_not_change_the_result(plain, monkeypatch):
    boxes, scores = crowded(400)
    expected = nms(boxes, scores, 0.5, 0)
    monkeypatch.setattr(nms_module, '_CPU_TILE', (7, 5))
    assert torch.equal(nms(boxes, scores, 0.5, 0), expected)


def test_longest_chain_of_suppressions(plain):
    # Each box overlaps only its neighbours (IoU 1/3): every other one survives.
    left = torch.arange(50.0) * 5
    boxes = torch.stack([left, torch.zeros(50), left + 10, torch.full((50,), 10.0)], dim=1)
    scores = torch.linspace(1, 0.1, 50)
    assert nms(boxes, scores, 0.3, 0).tolist() == list(range(0, 50, 2))


def test_overlap_at_the_threshold_is_kept(plain):
    boxes = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 5]])
    scores = torch.tensor([0.9, 0.8])
    assert nms(boxes, scores, 0.5, 0).tolist() == [0, 1]
    assert nms(boxes, scores, 0.49, 0).tolist() == [0]


def test_zero_boxes(plain):
    kept = nms(torch.zeros(0, 4), torch.zeros(0), 0.5, 0)
    assert kept.shape == (0,) and kept.dtype == torch.long


def test_boxes_without_area_never_suppress(plain):
    boxes = torch.tensor([[5.0, 5, 5, 5]] * 3)
    assert len(nms(boxes, torch.rand(3), 0.5, 0)) == 3


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(plain, dtype):
    # Scores that bfloat16 holds exactly: rounding would make ties, whose order is open.
    boxes, scores = crowded(100)[0].to(dtype), (torch.randperm(100) / 128).to(dtype)
    expected = brute_force(boxes, scores.float(), 0.5, 0)
    assert nms(boxes, scores, 0.5, 0).tolist() == expected


@pytest.mark.skipif(active() != 'compiled', reason='needs a compiled mmcv')
@pytest.mark.parametrize('spread', [100.0, 300.0, 800.0])
def test_equals_compiled(plain, spread):
    import mmcv._ext as ext

    boxes, scores = crowded(4000, spread=spread)
    expected = ext.nms(boxes, scores, iou_threshold=0.7, offset=0)
    assert torch.equal(nms(boxes, scores, 0.7, 0), expected)


@pytest.mark.skipif(torchvision.why_unusable('cpu') is not None, reason='needs torchvision')
def test_torchvision_equals_plain(monkeypatch):
    boxes, scores = crowded(1000)
    by_torchvision = nms(boxes, scores, 0.5, 0)
    monkeypatch.setattr(nms_module, 'why_unusable', lambda device_type: 'switched off')
    assert torch.equal(by_torchvision, nms(boxes, scores, 0.5, 0))


@pytest.fixture
def fake_torchvision(monkeypatch):
    """Install a torchvision.ops in sys.modules; the test gives it its functions."""
    package, ops = types.ModuleType('torchvision'), types.ModuleType('torchvision.ops')
    package.ops = ops
    monkeypatch.setitem(sys.modules, 'torchvision', package)
    monkeypatch.setitem(sys.modules, 'torchvision.ops', ops)
    torchvision.why_unusable.cache_clear()
    yield ops
    torchvision.why_unusable.cache_clear()


def test_torchvision_is_used_where_it_works(fake_torchvision):
    calls = []

    def counted(boxes, scores, threshold):
        calls.append(len(boxes))
        return torch.arange(len(boxes))[:1]

    fake_torchvision.nms = counted
    fake_torchvision.roi_align = lambda *args: torch.ones(1, 1, 1, 1)
    assert torchvision.why_unusable('cpu') is None
    boxes, scores = crowded(20)
    nms(boxes, scores, 0.5, 0)
    assert calls == [1, 20]
    nms(boxes, scores, 0.5, 1)
    assert calls == [1, 20]


def test_torchvision_of_another_torch_is_not_used(fake_torchvision):
    def broken(*args):
        raise RuntimeError('operator torchvision::nms does not exist')

    fake_torchvision.nms = broken
    assert 'operator torchvision::nms does not exist' in torchvision.why_unusable('cpu')
    boxes, scores = crowded(50)
    assert nms(boxes, scores, 0.5, 0).tolist() == brute_force(boxes, scores, 0.5, 0)


def test_torchvision_is_trusted_on_the_devices_where_it_runs(fake_torchvision, monkeypatch):
    # As a torchvision for the CPU beside a torch for CUDA; `meta` stands for the other device.
    def cpu_only(boxes, *args):
        if boxes.device.type != 'cpu':
            raise NotImplementedError("Could not run 'torchvision::nms'\n\nCPU: registered at ...")
        return torch.arange(1)

    fake_torchvision.nms = cpu_only
    fake_torchvision.roi_align = lambda *args: torch.ones(1, 1, 1, 1)
    assert torchvision.why_unusable('cpu') is None
    reason = torchvision.why_unusable('meta')
    assert "broken on meta, NotImplementedError: Could not run 'torchvision::nms'" in reason
    assert '\n' not in reason
    assert torchvision.why_unusable('cpu') is None

    asked = []
    monkeypatch.setattr(nms_module, 'why_unusable', lambda device_type: asked.append(device_type))
    nms(*crowded(3), 0.5, 0)
    assert asked == ['cpu']


@pytest.mark.parametrize(('gpu', 'kind'), [(False, 'torchvision'), (True, 'torch')])
def test_active_is_about_the_device_that_trains(monkeypatch, gpu, kind):
    if active() == 'compiled':
        pytest.skip('needs mmcv-lite')
    reasons = {'cpu': None, 'cuda': 'broken on cuda, of the CPU'}
    monkeypatch.setattr(torchvision, 'why_unusable', reasons.__getitem__)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    assert active() == kind
    assert ('broken on cuda' in describe()) is gpu
