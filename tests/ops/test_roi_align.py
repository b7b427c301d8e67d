import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mmdet_softpl.ops import active, roi_average
from mmdet_softpl.ops import roi_align as roi_align_module
from mmdet_softpl.ops.roi_align import roi_align_backward, roi_align_forward

REFERENCE = Path(__file__).parents[1] / 'data' / 'ops_reference.npz'
MAX, AVG = 0, 1
SETTINGS = list(itertools.product((MAX, AVG), (0, 2), (False, True)))


@pytest.fixture(params=['gathered', 'in place', 'in place, sparse'])
def average_path(request, monkeypatch):
    """Force each of the ways that average pooling has."""
    gathered = request.param == 'gathered'
    monkeypatch.setattr(roi_average, '_gathers', lambda *args: gathered)
    monkeypatch.setattr(roi_average, '_is_sparse', lambda *args: request.param.endswith('sparse'))


def forward(maps, rois, bins, scale=1.0, ratio=0, mode=AVG, aligned=True, ops=None):
    output = maps.new_zeros(len(rois), maps.size(1), *bins)
    argmax = [torch.zeros_like(output) if mode == MAX else maps.new_zeros(0) for _ in 'yx']
    op = ops.roi_align_forward if ops else roi_align_forward
    op(
        maps,
        rois,
        output,
        *argmax,
        aligned_height=bins[0],
        aligned_width=bins[1],
        spatial_scale=scale,
        sampling_ratio=ratio,
        pool_mode=mode,
        aligned=aligned,
    )
    return output, *argmax


def backward(grad, rois, argmax, shape, scale=1.0, ratio=0, mode=AVG, aligned=True, ops=None):
    grad_maps = grad.new_zeros(shape)
    op = ops.roi_align_backward if ops else roi_align_backward
    op(
        grad,
        rois,
        *argmax,
        grad_maps,
        aligned_height=grad.size(2),
        aligned_width=grad.size(3),
        spatial_scale=scale,
        sampling_ratio=ratio,
        pool_mode=mode,
        aligned=aligned,
    )
    return grad_maps


def random_rois(count, images, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=generator) * torch.tensor([width, height])
    half = torch.rand(count, 2, generator=generator) * torch.tensor([width, height]) / 3
    image = torch.randint(0, images, (count, 1), generator=generator)
    return torch.cat([image.float(), centre - half, centre + half], dim=1)


def brute_force(maps, rois, bins, scale, ratio, aligned):
    """Average pooling of the definition, sample by sample."""
    _, channels, height, width = maps.shape
    output = np.zeros((len(rois), channels, *bins))

    def sample(plane, y, x):
        if not (-1 <= y <= height and -1 <= x <= width):
            return 0.0
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        y0, x0 = int(y), int(x)
        y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
        top = plane[y0, x0] * (1 - x + x0) + plane[y0, x1] * (x - x0)
        bottom = plane[y1, x0] * (1 - x + x0) + plane[y1, x1] * (x - x0)
        return top * (1 - y + y0) + bottom * (y - y0)

    for n, (image, *box) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (v * scale - (0.5 if aligned else 0) for v in box)
        size = [y2 - y1, x2 - x1] if aligned else [max(y2 - y1, 1), max(x2 - x1, 1)]
        step = [size[0] / bins[0], size[1] / bins[1]]
        grid = [ratio or math.ceil(s) for s in step]
        for c, p, q in itertools.product(range(channels), range(bins[0]), range(bins[1])):
            values = [
                sample(
                    maps[int(image), c].numpy(),
                    y1 + (p + (i + 0.5) / grid[0]) * step[0],
                    x1 + (q + (j + 0.5) / grid[1]) * step[1],
                )
                for i, j in itertools.product(range(grid[0]), range(grid[1]))
            ]
            output[n, c, p, q] = sum(values) / max(len(values), 1)
    return output


@pytest.mark.parametrize(('mode', 'ratio', 'aligned'), SETTINGS)
def test_equals_stored_compiled_output(average_path, mode, ratio, aligned):
    with np.load(REFERENCE) as stored:
        prefix = f'roi_{mode}_{ratio}_{int(aligned)}_'
        wanted = {
            k.removeprefix(prefix): torch.from_numpy(v)
            for k, v in stored.items()
            if k.startswith(prefix)
        }
        maps, rois, grad = (torch.from_numpy(stored[f'roi_{k}']) for k in ('maps', 'rois', 'grad'))
    settings = {'scale': 0.25, 'ratio': ratio, 'mode': mode, 'aligned': aligned}
    output, argmax_y, argmax_x = forward(maps, rois, tuple(grad.shape[2:]), **settings)
    torch.testing.assert_close(output, wanted['output'], rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(argmax_y, wanted['argmax_y'])
    torch.testing.assert_close(argmax_x, wanted['argmax_x'])
    grad_maps = backward(grad, rois, (argmax_y, argmax_x), maps.shape, **settings)
    torch.testing.assert_close(grad_maps, wanted['grad_maps'], rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize(('ratio', 'aligned'), [(0, False), (0, True), (3, False), (3, True)])
def test_average_equals_brute_force(average_path, ratio, aligned):
    maps = torch.randn(2, 2, 9, 11, dtype=torch.float64)
    rois = random_rois(6, 2, 36, 44).double()
    output, *_ = forward(maps, rois, (4, 3), 0.25, ratio, aligned=aligned)
    np.testing.assert_allclose(
        output.numpy(), brute_force(maps, rois, (4, 3), 0.25, ratio, aligned), atol=1e-9
    )


@pytest.mark.parametrize('aligned', [False, True])
def test_average_gradient_by_finite_differences(average_path, aligned):
    maps = torch.randn(2, 2, 5, 6, dtype=torch.float64)
    rois = random_rois(4, 2, 10, 12).double()
    direction = torch.randn(4, 2, 3, 2, dtype=torch.float64)
    grad = backward(direction, rois, (maps[:0],) * 2, maps.shape, 0.5, aligned=aligned)
    step = 1e-6
    for index in itertools.product(*(range(s) for s in maps.shape)):
        ends = []
        for sign in (1, -1):
            moved = maps.clone()
            moved[index] += sign * step
            output, *_ = forward(moved, rois, (3, 2), 0.5, aligned=aligned)
            ends.append((output * direction).sum())
        assert grad[index].item() == pytest.approx(
            (ends[0] - ends[1]).item() / (2 * step), abs=1e-7
        )


@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_gradcheck_through_mmcv(mode):
    pytest.importorskip('mmcv')
    from mmcv.ops import roi_align

    maps = torch.randn(2, 1, 5, 6, dtype=torch.float64, requires_grad=True)
    rois = random_rois(4, 2, 20, 24).double()
    assert torch.autograd.gradcheck(
        lambda x: roi_align(x, rois, (3, 2), 0.25, 0, mode, True), maps, atol=1e-4
    )


def test_constant_map_gives_the_constant(average_path):
    rois = torch.tensor([[0.0, 4, 4, 30, 25], [0, 10, 3, 11, 20]])
    output, *_ = forward(torch.full((1, 3, 12, 12), 2.5), rois, (7, 7), 0.25)
    torch.testing.assert_close(output, torch.full_like(output, 2.5))


def test_whole_cells_give_the_map_itself(average_path):
    maps = torch.randn(1, 2, 6, 8)
    output, *_ = forward(maps, torch.tensor([[0.0, 0, 0, 8, 6]]), (6, 8))
    torch.testing.assert_close(output, maps)


def test_gradient_is_added(average_path):
    rois = random_rois(3, 1, 8, 8)
    grad = torch.randn(3, 2, 2, 2)
    grad_maps = torch.ones(1, 2, 8, 8)
    empty = torch.zeros(0)
    roi_align_backward(grad, rois, empty, empty, grad_maps, 2, 2, 1.0, 0, AVG, True)
    expected = 1 + backward(grad, rois, (empty, empty), grad_maps.shape)
    torch.testing.assert_close(grad_maps, expected)


@pytest.mark.parametrize('mode', [MAX, AVG])
def test_zero_rois(mode):
    maps, rois = torch.randn(1, 3, 5, 5), torch.zeros(0, 5)
    output, *argmax = forward(maps, rois, (7, 7), mode=mode)
    assert output.shape == (0, 3, 7, 7)
    assert backward(output, rois, argmax, maps.shape, mode=mode).eq(0).all()


@pytest.mark.parametrize('aligned', [False, True])
def test_rois_off_the_map_only(average_path, aligned):
    maps, rois = torch.randn(1, 2, 6, 6), torch.tensor([[0.0, 90, 90, 99, 99]] * 2)
    output, *argmax = forward(maps, rois, (2, 2), aligned=aligned)
    assert output.eq(0).all()
    grad = backward(torch.ones_like(output), rois, argmax, maps.shape, aligned=aligned)
    assert grad.eq(0).all()


def test_map_of_one_cell(average_path):
    maps, rois = torch.tensor([[[[3.0]]]]), torch.tensor([[0.0, 0, 0, 1, 1]])
    output, *argmax = forward(maps, rois, (2, 2))
    torch.testing.assert_close(output, torch.full((1, 1, 2, 2), 3.0))
    assert backward(output, rois, argmax, maps.shape).item() == pytest.approx(12.0)


def test_negative_size_names_the_roi():
    rois = torch.tensor([[0.0, 0, 0, 4, 4], [0, 4, 4, 2, 6]])
    with pytest.raises(RuntimeError, match='RoI 1 has size -2'):
        forward(torch.zeros(1, 1, 8, 8), rois, (2, 2))


@pytest.mark.parametrize('mode', [MAX, AVG])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(dtype, mode):
    maps, rois = torch.randn(2, 8, 20, 20).to(dtype), random_rois(20, 2, 80, 80).to(dtype)
    output, *argmax = forward(maps, rois, (7, 7), 0.25, mode=mode)
    expected, *full_argmax = forward(maps.float(), rois.float(), (7, 7), 0.25, mode=mode)
    assert output.dtype == dtype
    torch.testing.assert_close(output, expected.to(dtype))
    if mode == AVG:
        grad = backward(output, rois, argmax, maps.shape, 0.25)
        full = backward(output.float(), rois.float(), full_argmax, maps.shape, 0.25)
        assert grad.dtype == dtype
        torch.testing.assert_close(grad, full.to(dtype))


def test_autocast_does_not_lower_the_precision():
    maps, rois = torch.randn(1, 8, 20, 20), random_rois(10, 1, 80, 80)
    expected, *_ = forward(maps, rois, (7, 7), 0.25)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        output, *_ = forward(maps, rois, (7, 7), 0.25)
    assert torch.equal(output, expected)


def test_batches_do_not_change_the_result(monkeypatch):
    maps, rois = torch.randn(2, 4, 20, 20), random_rois(30, 2, 80, 80)
    expected, *argmax = forward(maps, rois, (3, 3), 0.25)
    expected_grad = backward(expected, rois, argmax, maps.shape, 0.25)
    monkeypatch.setattr(roi_average, '_BATCH_ELEMENTS', 1)
    monkeypatch.setattr(roi_average, '_gathers', lambda *args: True)
    monkeypatch.setattr(roi_average, '_is_sparse', lambda *args: False)
    torch.testing.assert_close(forward(maps, rois, (3, 3), 0.25)[0], expected)
    grad = backward(expected, rois, argmax, maps.shape, 0.25)
    torch.testing.assert_close(grad, expected_grad)


@pytest.mark.skipif(active() != 'compiled', reason='needs a compiled mmcv')
@pytest.mark.parametrize(('mode', 'ratio', 'aligned'), SETTINGS)
@pytest.mark.parametrize('channels', [1, 24])
def test_equals_compiled(channels, mode, ratio, aligned):
    import mmcv._ext as ext

    maps, rois = torch.randn(3, channels, 40, 50), random_rois(60, 3, 160, 200)
    settings = {'scale': 0.25, 'ratio': ratio, 'mode': mode, 'aligned': aligned}
    ours, theirs = (forward(maps, rois, (7, 7), **settings, ops=o) for o in (None, ext))
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=5e-6)
    grad = torch.randn_like(ours[0])
    ours, theirs = (
        backward(grad, rois, theirs[1:], maps.shape, **settings, ops=o) for o in (None, ext)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('path', ['plain', 'as installed'])
@pytest.mark.parametrize(('mode', 'ratio', 'aligned'), SETTINGS)
def test_cuda_equals_cpu(monkeypatch, path, mode, ratio, aligned):
    if path == 'plain':
        monkeypatch.setattr(roi_align_module, 'why_unusable', lambda device_type: 'switched off')
    maps, rois = torch.randn(2, 16, 40, 50), random_rois(60, 2, 160, 200)
    settings = {'scale': 0.25, 'ratio': ratio, 'mode': mode, 'aligned': aligned}
    expected, *argmax = forward(maps, rois, (7, 7), **settings)
    output, *_ = forward(maps.cuda(), rois.cuda(), (7, 7), **settings)
    # Sums of up to 16 samples in another order.
    torch.testing.assert_close(output.cpu(), expected, rtol=1e-4, atol=5e-5)
    on_gpu = [a.cuda() for a in argmax]
    grad = backward(output, rois.cuda(), on_gpu, maps.shape, **settings)
    wanted = backward(expected, rois, argmax, maps.shape, **settings)
    torch.testing.assert_close(grad.cpu(), wanted, rtol=1e-4, atol=1e-4)


def test_torchvision_averages_on_cuda_unless_the_run_is_deterministic(monkeypatch):
    reasons = {'cuda': None}
    monkeypatch.setattr(roi_align_module, 'why_unusable', lambda device: reasons[device])
    cpu, cuda = torch.device('cpu'), torch.device('cuda')
    assert roi_align_module._by_torchvision(cuda)
    assert not roi_align_module._by_torchvision(cpu)
    torch.use_deterministic_algorithms(True)
    try:
        assert not roi_align_module._by_torchvision(cuda)
    finally:
        torch.use_deterministic_algorithms(False)
    reasons['cuda'] = 'broken'
    assert not roi_align_module._by_torchvision(cuda)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_cuda_backward_is_deterministic_where_that_is_asked_for():
    maps, rois = torch.randn(2, 16, 40, 50).cuda(), random_rois(200, 2, 160, 200).cuda()
    torch.use_deterministic_algorithms(True)
    try:
        output, *argmax = forward(maps, rois, (7, 7), 0.25)
        grads = [backward(output, rois, argmax, maps.shape, 0.25) for _ in range(2)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(*grads)
