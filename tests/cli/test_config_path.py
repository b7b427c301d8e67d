"""``config-path`` on the checkout and on a folder laid out like a wheel."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmdet_softpl import shipped_configs
from mmdet_softpl.__main__ import main


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder with three configs, two of them to train with."""
    root = tmp_path / 'mmdet_softpl' / '.mim' / 'configs'
    for name in ('_base_/models/base.py', 'shapes/demo_shapes.py', 'lvis/full-recipe_lvis-10.py'):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text('x = 1\n')
    monkeypatch.setattr(shipped_configs, '_PACKAGE', tmp_path / 'mmdet_softpl')
    return root


@pytest.mark.parametrize(
    'name', ['demo_shapes', 'demo_shapes.py', 'shapes/demo_shapes', 'shapes/demo_shapes.py']
)
def test_prints_the_path(wheel: Path, name: str, capsys: pytest.CaptureFixture) -> None:
    assert main(['config-path', name]) == 0
    assert capsys.readouterr().out.strip() == str(wheel / 'shapes/demo_shapes.py')


def test_base_files_are_found_but_not_listed(wheel: Path) -> None:
    assert shipped_configs.config_path('_base_/models/base.py') == wheel / '_base_/models/base.py'
    assert shipped_configs.config_names() == [
        'lvis/full-recipe_lvis-10.py',
        'shapes/demo_shapes.py',
    ]


def test_list(wheel: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(['config-path', '--list']) == 0
    assert capsys.readouterr().out.split() == shipped_configs.config_names()
    assert main(['config-path', '--list', '--json']) == 0
    assert json.loads(capsys.readouterr().out) == shipped_configs.config_names()


def test_unknown_name_gets_the_nearest(wheel: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(['config-path', 'demo_shape']) == 2
    error = capsys.readouterr().err
    assert "'demo_shape'" in error and 'nearest: shapes/demo_shapes.py' in error
    assert main(['config-path', 'zzzzzz']) == 2
    assert '--list' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['../../../secret', '/etc/hostname'])
def test_nothing_outside_is_found(wheel: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / 'secret.py').write_text('')
    with pytest.raises(shipped_configs.UnknownConfigError):
        shipped_configs.config_path(name)


def test_incomplete_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(shipped_configs, '_PACKAGE', tmp_path / 'mmdet_softpl')
    assert main(['config-path', '--list']) == 2
    assert 'incomplete' in capsys.readouterr().err


def test_checkout_has_its_own(repository: Path) -> None:
    assert shipped_configs.config_root() == repository / 'configs'


def test_file_names_are_unique(repository: Path) -> None:
    """`mim train mmdet_softpl NAME` searches by file name alone."""
    names = [path.name for path in (repository / 'configs').rglob('*.py')]
    assert sorted(names) == sorted(set(names))
