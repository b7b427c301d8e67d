"""Folders import what CONTRIBUTING.md says they import, as their files are loaded."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / 'mmdet_softpl'


def layers() -> dict[str, set[str]]:
    """Folder to those that it may import."""
    text = (REPOSITORY / 'CONTRIBUTING.md').read_text(encoding='utf-8')
    rows = re.findall(r'^\| `(\w+)` \| [^|]* \| ([^|]*)\|$', text, flags=re.MULTILINE)
    found = {name: set(re.findall(r'`(\w+)`', cell)) for name, cell in rows}
    found['cli'] = found.keys() - {'cli'}
    return found


def folders() -> set[str]:
    return {path.parent.name for path in PACKAGE.glob('*/__init__.py')}


def imported(path: Path) -> Iterator[str]:
    """Folders of the package that a file imports at its top level."""
    nodes: list[ast.stmt] = list(ast.parse(path.read_text(encoding='utf-8')).body)
    while nodes:
        node = nodes.pop(0)
        names: list[list[str]] = []
        if isinstance(node, ast.Import):
            names = [alias.name.split('.') for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = (node.module or '').split('.')
            if node.level:
                parents = path.relative_to(REPOSITORY).parts[: -node.level]
                parts = [*parents, *filter(None, parts)]
            names = [[*parts, alias.name] for alias in node.names]
        elif isinstance(node, ast.Try):
            nodes += [*node.body, *node.orelse, *(n for h in node.handlers for n in h.body)]
        elif isinstance(node, ast.If) and ast.unparse(node.test) != 'TYPE_CHECKING':
            nodes += [*node.body, *node.orelse]
        for name in names:
            if name[0] == 'mmdet_softpl' and len(name) > 1 and name[1] in folders():
                yield name[1]


def test_every_folder_has_a_row() -> None:
    assert layers().keys() == folders()


@pytest.mark.parametrize('folder', sorted(folders()))
def test_folder(folder: str) -> None:
    files = list((PACKAGE / folder).rglob('*.py'))
    found = {other for path in files for other in imported(path)} - {folder}
    assert files and found <= layers()[folder]


def test_files_beside_the_folders() -> None:
    # The first registers everything, the second runs the commands.
    entrances = {'__init__.py', '__main__.py'}
    for path in PACKAGE.glob('*.py'):
        assert path.name in entrances or not list(imported(path)), path.name


def test_an_import_of_every_kind_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / 'mmdet_softpl' / 'models' / 'some.py'
    file.parent.mkdir(parents=True)
    file.write_text(
        'from ..engine.device import pick\n'
        'from .class_state import ClassState\n'
        'from mmdet_softpl.reporting import figure\n'
        'from mmdet_softpl.progress import Progress\n'
        'import torch\n'
        'import mmdet_softpl.evaluation.class_mix\n'
        'from .. import datasets\n'
        'try:\n    from mmdet_softpl import cli\nexcept ImportError:\n    pass\n'
        'if TYPE_CHECKING:\n    from mmdet_softpl.ops import nms\n'
    )
    monkeypatch.setitem(globals(), 'REPOSITORY', tmp_path)
    found = ['engine', 'models', 'reporting', 'evaluation', 'datasets', 'cli']
    assert list(imported(file)) == found
