"""Our classes under both of their names, in processes that have imported nothing of ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mmdet.registry
import pytest
from mmengine.registry import DefaultScope

from mmdet_softpl import ops, registry

NAMES = {
    'MODELS': ['SmoothedCEHead', 'CalibratedSoftTeacher'],
    'HOOKS': ['RareBoostPseudoLabeler'],
    'DATASETS': ['GeneratedImageDataset', 'UnlabeledImageDataset'],
    'METRICS': ['LongTailMetric'],
}
PAIRS = [(kind, name) for kind, names in NAMES.items() for name in names]


@pytest.mark.parametrize(('kind', 'name'), PAIRS)
def test_public_names(kind: str, name: str) -> None:
    ours = getattr(registry, kind).get(name)
    assert ours is not None and ours.__module__.startswith('mmdet_softpl.')
    with DefaultScope.overwrite_default_scope('mmdet'):
        theirs = getattr(mmdet.registry, kind)
        assert theirs.get(f'mmdet_softpl.{name}') is ours
        assert theirs.get(name) is ours


@pytest.mark.parametrize('kind', NAMES)
def test_every_class_has_both_names(kind: str) -> None:
    ours = getattr(registry, kind)
    ours.import_from_location()
    assert ours.module_dict
    theirs = getattr(mmdet.registry, kind)
    assert {name: theirs.get(name) for name in ours.module_dict} == ours.module_dict


def look_up(code: str, cwd: Path) -> str:
    """Standard output of ``code`` in a process of its own."""
    process = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=cwd)
    assert process.returncode == 0, process.stderr[-2000:]
    return process.stdout.strip()


def test_prefixed_name_needs_no_import(repository: Path) -> None:
    code = """
import sys
from mmengine.registry import MODELS
assert 'mmdet_softpl' not in sys.modules
print(MODELS.get('mmdet_softpl.SmoothedCEHead').__name__)
"""
    assert look_up(code, repository) == 'SmoothedCEHead'


@pytest.mark.skipif(
    ops.active() != 'compiled',
    reason='mmdet imports mmcv.ops before it looks at the prefix; with mmcv-lite a config needs '
    "custom_imports=dict(imports=['mmdet_softpl'])",
)
def test_prefixed_name_from_mmdets_scope(repository: Path) -> None:
    code = """
from mmengine.registry import MODELS, init_default_scope
init_default_scope('mmdet')
print(MODELS.get('mmdet_softpl.SmoothedCEHead').__name__)
"""
    assert look_up(code, repository) == 'SmoothedCEHead'


@pytest.mark.parametrize('first', ['mmdet_softpl', 'mmdet.registry'])
def test_plain_name_after_custom_imports(first: str, repository: Path, tmp_path: Path) -> None:
    """What a config does: custom_imports of the package, then ``type='X'``."""
    config = tmp_path / 'config.py'
    config.write_text(
        "custom_imports = dict(imports=['mmdet_softpl'])\n"
        "head = dict(type='SmoothedCEHead', num_classes=3, in_channels=4, roi_feat_size=1,\n"
        '            fc_out_channels=8)\n'
    )
    code = f"""
import {first}
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
cfg = Config.fromfile({str(config)!r})
init_default_scope('mmdet')
print(type(MODELS.build(cfg.head)).__name__)
"""
    assert look_up(code, repository) == 'SmoothedCEHead'
