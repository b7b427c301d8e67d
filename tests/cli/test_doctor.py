"""``doctor`` on this environment and on broken ones."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import types
from pathlib import Path

import mmdet
import pytest
from mmengine.utils.dl_utils import collect_env

from mmdet_softpl import ops
from mmdet_softpl.__main__ import main
from mmdet_softpl.cli import doctor


def finding(name: str) -> doctor.Finding:
    return {found.check: found for found in doctor.diagnose()}[name]


def test_this_environment_can_train(capsys: pytest.CaptureFixture) -> None:
    assert main(['doctor']) == 0
    out = capsys.readouterr().out
    assert 'Training should work.' in out
    assert ops.active() in out and ops.describe() in out


def test_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    look = doctor.diagnose

    def talking() -> list[doctor.Finding]:
        print('as onedl does on its import')
        return look()

    monkeypatch.setattr(doctor, 'diagnose', talking)
    assert main(['doctor', '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['can_train'] is True
    assert report['stack']['mmdet']['version'] == mmdet.__version__
    assert {found['status'] for found in report['findings']} <= {'ok', 'warn'}


def test_every_problem_has_a_remedy() -> None:
    assert all(found.remedy for found in doctor.diagnose() if found.status != doctor.OK)


def with_versions(monkeypatch: pytest.MonkeyPatch, **changes: str | None) -> None:
    """Pretend other versions; None: not installed."""
    real = importlib.metadata.version
    changed = {name.replace('_', '-'): version for name, version in changes.items()}

    def version(distribution: str) -> str:
        found = changed[distribution] if distribution in changed else real(distribution)
        if found is None:
            raise importlib.metadata.PackageNotFoundError(distribution)
        return found

    monkeypatch.setattr(importlib.metadata, 'version', version)


@pytest.mark.parametrize(
    ('changes', 'status', 'words'),
    [
        (dict(mmcv='2.2.0', mmcv_lite=None), 'fail', 'mmcv >= 2.0 and < 2.2'),
        (dict(mmcv=None, mmcv_lite='1.7.2'), 'fail', 'mmcv >= 2.0 and < 2.2'),
        (dict(mmcv=None, mmcv_lite=None), 'fail', 'not installed'),
        (dict(mmcv='2.1.0', mmcv_lite='2.1.0'), 'warn', 'overwrite'),
        (dict(mmcv=None, mmcv_lite='2.0.1'), 'warn', 'not tested'),
        (dict(mmcv='2.1.0', mmcv_lite=None), 'ok', 'mmcv 2.1.0'),
    ],
)
def test_mmcv(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str | None], status: str, words: str
) -> None:
    official = dict(mmdet='3.3.0', onedl_mmdetection=None, onedl_mmcv=None)
    with_versions(monkeypatch, **official, **changes)
    found = finding('mmcv')
    assert found.status == status and words in found.detail


@pytest.mark.parametrize(('version', 'status'), [('80.9.0', 'ok'), ('81.0.0', 'warn')])
def test_setuptools(monkeypatch: pytest.MonkeyPatch, version: str, status: str) -> None:
    with_versions(monkeypatch, setuptools=version)
    assert finding('setuptools').status == status


def hide(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Make ``import module`` fail and ``find_spec`` find nothing."""
    real = doctor.importlib.util.find_spec
    monkeypatch.setattr(
        doctor.importlib.util,
        'find_spec',
        lambda name, package=None: None if name == module else real(name, package),
    )
    monkeypatch.setitem(sys.modules, module, None)


@pytest.mark.parametrize(
    ('module', 'check', 'remedy'),
    [
        ('pkg_resources', 'setuptools', 'setuptools<81'),
        ('cv2', 'opencv', 'opencv-python-headless'),
        ('faster_coco_eval', 'evaluation', 'pip install faster-coco-eval'),
        ('pycocotools', 'evaluation', 'pip install pycocotools'),
        ('mmdet.models', 'mmdet.models', 'checks above'),
        ('mmdet.datasets', 'mmdet.datasets', 'checks above'),
    ],
)
def test_missing_module_fails(
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    check: str,
    remedy: str,
    capsys: pytest.CaptureFixture,
) -> None:
    hide(monkeypatch, module)
    found = finding(check)
    assert found.status == 'fail' and remedy in found.remedy
    assert main(['doctor']) == 1
    assert 'Training would fail.' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('module', 'error', 'status'),
    [
        ('torchvision', RuntimeError, 'fail'),
        ('torchvision', OSError, 'fail'),
        # What mmengine takes for a missing package stops no training.
        ('torchvision', ModuleNotFoundError, 'warn'),
        ('torchvision.ops', RuntimeError, 'warn'),
    ],
)
def test_torchvision_of_another_torch(
    monkeypatch: pytest.MonkeyPatch, module: str, error: type[Exception], status: str
) -> None:
    class Broken:
        """Importing a mismatched torchvision raises RuntimeError, not ImportError."""

        def find_spec(self, name: str, path: object, target: object = None) -> None:
            if name == module:
                raise error('operator torchvision::nms does not exist')

    for name in [n for n in sys.modules if n.split('.')[0] == 'torchvision']:
        monkeypatch.delitem(sys.modules, name)
    if module == 'torchvision.ops':
        package = types.ModuleType('torchvision')
        package.__path__ = []
        monkeypatch.setitem(sys.modules, 'torchvision', package)
    monkeypatch.setattr(sys, 'meta_path', [Broken(), *sys.meta_path])
    monkeypatch.setattr(doctor, '_is_installed', lambda module: True)
    found = doctor._torchvision('torchvision')
    assert found.status == status and 'torchvision::nms' in found.detail
    if status == 'fail':
        with pytest.raises(error):
            collect_env()


@pytest.mark.parametrize(
    ('system', 'gpu', 'faster'),
    [('Linux', True, True), ('Linux', False, False), ('Darwin', True, False)],
)
def test_missing_torchvision_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, system: str, gpu: bool, faster: bool
) -> None:
    import torch

    hide(monkeypatch, 'torchvision')
    monkeypatch.setattr(doctor.platform, 'system', lambda: system)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    found = doctor._torchvision('torchvision')
    assert found.status == 'warn'
    assert 'torchvision://' in found.detail and 'belongs to your torch' in found.remedy
    assert 'URL' in found.remedy
    assert ('faster' in found.detail) is faster


def test_missing_ops_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, 'active', lambda: 'missing')
    found = finding('ops')
    assert found.status == 'fail' and found.remedy == 'pip install mmcv-lite==2.1.0'


def test_a_package_that_the_stack_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """mmengine reads platformdirs by way of yapf; that mmcv then does not load is not its fault."""

    def missing(module: str) -> None:
        raise ModuleNotFoundError("No module named 'platformdirs'", name='platformdirs')

    monkeypatch.setattr(ops, 'active', lambda: 'missing')
    monkeypatch.setattr(doctor.importlib, 'import_module', missing)
    remedy = "install the package of the module 'platformdirs'"
    assert finding('ops').remedy == remedy
    assert (
        doctor._part_of_mmdet('mmdet.models').remedy == f'see the failed checks above, or {remedy}'
    )
    monkeypatch.setitem(doctor._CHECKS, 'gpu', missing)
    assert finding('gpu').remedy == remedy


@pytest.mark.parametrize(('has_float', 'status'), [(False, 'warn'), (True, 'ok')])
def test_lvis_and_numpy(monkeypatch: pytest.MonkeyPatch, has_float: bool, status: str) -> None:
    numpy = types.SimpleNamespace(__version__='9.9', **({'float': float} if has_float else {}))
    monkeypatch.setattr(doctor, '_is_installed', lambda module: True)
    monkeypatch.setitem(sys.modules, 'numpy', numpy)
    found = doctor._lvis('lvis')
    assert found.status == status
    if status == 'warn':
        assert 'LongTailMetric' in found.remedy


def test_gpu_that_torch_does_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(doctor.shutil, 'which', lambda tool: f'/usr/bin/{tool}')
    assert doctor._gpu('gpu').status == 'warn'
    monkeypatch.setattr(doctor.shutil, 'which', lambda tool: None)
    assert doctor._gpu('gpu').status == 'ok'


def test_a_check_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> doctor.Finding:
        raise SystemError('segment')

    monkeypatch.setitem(doctor._CHECKS, 'gpu', broken)
    assert finding('gpu') == doctor.Finding(
        'gpu', 'fail', 'SystemError: segment', 'install it again in a fresh environment'
    )


def test_runs_without_the_stack(repository: Path) -> None:
    """With neither torch nor mmcv importable the command still answers, with status 1."""
    code = (
        'import sys\n'
        'for name in ("torch", "mmcv", "mmengine", "mmdet", "numpy"): sys.modules[name] = None\n'
        'from mmdet_softpl.__main__ import main\n'
        'sys.exit(main(["doctor"]))'
    )
    process = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, cwd=repository
    )
    assert process.returncode == 1, process.stderr
    assert process.stdout.count('fail') >= 5 and 'Traceback' not in process.stderr
