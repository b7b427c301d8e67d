"""What Python finds as ``mmcv._ext``: each case in a fresh interpreter with a made-up mmcv."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mmdet_softpl
from mmdet_softpl import ops
from mmdet_softpl.ops.install import StandInFinder, install

PACKAGE_ROOT = Path(mmdet_softpl.__file__).parents[1]
STAND_IN = PACKAGE_ROOT / 'mmdet_softpl' / 'ops' / 'stand_in.py'
LITE = ops.active() in ('torch', 'torchvision')


def python(code, *first_on_path):
    last = filter(None, [os.environ.get('PYTHONPATH')])
    path = os.pathsep.join(str(p) for p in (*first_on_path, PACKAGE_ROOT, *last))
    return subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, 'PYTHONPATH': path},
        capture_output=True,
        text=True,
        timeout=120,
    )


def printed(code, *first_on_path):
    result = python(code, *first_on_path)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


@pytest.fixture
def fake_mmcv(tmp_path):
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv' / '__init__.py').write_text('__version__ = "0"\n')
    return tmp_path


def test_stand_in_where_mmcv_has_no_extension(fake_mmcv):
    code = 'import mmdet_softpl, mmcv._ext as e; print(e.__file__, mmdet_softpl.ops.active())'
    origin, kind = printed(code, fake_mmcv)
    assert Path(origin) == STAND_IN
    assert kind in ('torch', 'torchvision')


def test_never_over_a_compiled_one(fake_mmcv):
    extension = fake_mmcv / 'mmcv' / '_ext.py'
    extension.write_text('nms = "compiled"\n')
    code = (
        'import mmdet_softpl, mmcv._ext as e; print(e.nms, e.__file__, mmdet_softpl.ops.active())'
    )
    assert printed(code, fake_mmcv) == ['compiled', str(extension), 'compiled']


def test_broken_extension_is_reported_and_not_replaced(fake_mmcv):
    (fake_mmcv / 'mmcv' / '_ext.py').write_text('raise ImportError("undefined symbol: _ZN2at")\n')
    code = 'import mmdet_softpl.ops as o; print(o.active()); print(o.describe())'
    kind, *sentence = printed(code, fake_mmcv)
    assert kind == 'missing'
    assert 'undefined symbol: _ZN2at' in ' '.join(sentence)


def test_nothing_happens_without_mmcv():
    code = (
        'import sys; sys.modules["mmcv"] = None\n'
        'import mmdet_softpl; print(mmdet_softpl.ops.active(), "mmcv._ext" in sys.modules)'
    )
    assert printed(code) == ['missing', 'False']


def test_importing_the_package_imports_neither_mmcv_nor_torch():
    names = '("mmcv", "mmdet", "torch")'
    code = f'import sys, mmdet_softpl; print([n for n in {names} if n in sys.modules])'
    assert printed(code) == ['[]']


def test_install_twice_adds_one_finder():
    install()
    install()
    assert sum(isinstance(finder, StandInFinder) for finder in sys.meta_path) == 1


def test_finder_knows_one_name_only():
    assert StandInFinder().find_spec('mmcv._extra') is None
    assert StandInFinder().find_spec('mmcv._ext').origin == str(STAND_IN)


@pytest.mark.skipif(not LITE, reason='needs mmcv-lite')
def test_mmdet_models_import_only_with_the_stand_in():
    assert python('import mmdet_softpl, mmdet.models').returncode == 0
    without = python('import mmdet.models')
    assert without.returncode != 0
    assert "No module named 'mmcv._ext'" in without.stderr


def test_active_agrees_with_describe():
    word = {'compiled': 'compiled', 'torchvision': 'torchvision', 'torch': 'plain PyTorch'}
    assert word[ops.active()] in ops.describe()


@pytest.mark.skipif(not LITE, reason='needs mmcv-lite')
@pytest.mark.parametrize('pool_mode', ['avg', 'max'])
def test_mmcv_functions_run(pool_mode):
    from mmcv.ops import RoIAlign, batched_nms, soft_nms

    maps = torch.randn(1, 2, 8, 8, requires_grad=True)
    rois = torch.tensor([[0.0, 2, 2, 20, 24]])
    RoIAlign((2, 2), 0.25, pool_mode=pool_mode)(maps, rois).sum().backward()
    assert maps.grad.sum().item() == pytest.approx(8, rel=1e-5)
    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 8], [50, 50, 60, 60]])
    scores, classes = torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 0, 1])
    dets, kept = batched_nms(boxes, scores, classes, {'type': 'nms', 'iou_threshold': 0.5})
    assert kept.tolist() == [0, 2] and dets.shape == (2, 5)
    dets, kept = soft_nms(boxes, scores, 0.5, method='naive')
    assert kept.tolist() == [0, 2]
