"""What an import of the package does to the stack underneath."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from mmdet_softpl import compat
from mmdet_softpl.installed_stack import release
from tests.support.versions import OFFICIAL, fake_versions


def test_import_is_cheap_and_prepares_later() -> None:
    """torch is not imported by us; mmengine's loader finds the safe globals in place."""
    code = (
        'import sys, mmdet_softpl; assert not {"torch", "mmdet", "mmcv"} & set(sys.modules);'
        'import mmengine.runner.checkpoint as c, torch; assert c.__spec__.name == c.__name__;'
        'allowed = getattr(torch.serialization, "get_safe_globals", list)();'
        'names = [a[1] if isinstance(a, tuple) else a.__name__ for a in allowed];'
        'print(any(name.endswith("HistoryBuffer") for name in names))'
    )
    cwd = Path(__file__).parents[1]
    process = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=cwd)
    assert process.returncode == 0, process.stderr
    if release(torch.__version__) >= (2, 6):
        assert process.stdout.strip() == 'True'


@pytest.mark.parametrize('version', ['3.2.0', '3.4.0', '4.0.0rc1', 'unknown'])
def test_untested_version_warns_once(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    fake_versions(monkeypatch, OFFICIAL | {'mmdet': version})
    monkeypatch.setattr(compat, '_warned', False)
    with pytest.warns(compat.UntestedStackWarning, match=f'mmdet {version} is not tested'):
        compat._prepare()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        compat._prepare()
