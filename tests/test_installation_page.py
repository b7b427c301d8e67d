"""docs/installation.md names configs, versions and commands that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from mmengine.config import Config
from packaging.requirements import Requirement

from mmdet_softpl.shipped_configs import config_names

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = (REPOSITORY / 'docs' / 'installation.md').read_text(encoding='utf-8')
NAMES = {Path(name).stem for name in config_names()}


def block(mark: str) -> str:
    found = re.search(rf'<!-- test: {mark} -->\n```\w+\n(.*?)^```', PAGE, re.M | re.S)
    assert found, f'no block {mark}'
    return found[1]


def test_mim_commands_name_shipped_configs() -> None:
    commands = [shlex.split(line) for line in block('mim').splitlines()]
    assert {command[1] for command in commands} == {'search', 'train', 'test', 'run'}
    for command in commands:
        assert command[2] == 'mmdet_softpl'
        for word in command:
            if word.startswith('calibrated-soft-teacher'):
                # mim looks for the file name, but its index has names without the suffix.
                assert (Path(word).suffix == '.py') == (command[1] != 'search')
                assert word.removesuffix('.py') in NAMES
        if command[1] == 'run':
            assert (REPOSITORY / 'tools' / f'{command[3]}.py').is_file()


def test_table_of_names_lists_every_recipe() -> None:
    section = PAGE.split('## What a config name says')[1].split('\n## ')[0]
    for name in NAMES:
        match = re.fullmatch(r'calibrated-soft-teacher_(.+)_180k_(.+)', name)
        if match:
            assert f'`{match[1]}`' in section and f'`{match[2]}`' in section


def test_another_pair_is_a_config(tmp_path: Path) -> None:
    (tmp_path / 'pair.py').write_text(block('other_pair'))
    cfg = Config.fromfile(tmp_path / 'pair.py')
    assert cfg.model.detector.backbone.depth == 101
    assert cfg.custom_hooks[-1].labeled_ann_file.endswith('instances_train2017.1@1.json')


@pytest.mark.parametrize('extra', ['openmmlab', 'onedl'])
def test_extras_exist(extra: str) -> None:
    pyproject = (REPOSITORY / 'pyproject.toml').read_text(encoding='utf-8')
    names = re.search(rf'^{extra} = \[(.*?)\]', pyproject, re.M | re.S)
    assert names is not None
    for name in re.findall(r'"([a-z-]+)', names[1]):
        assert name in PAGE


def test_matplotlib_has_legends_outside_the_axes() -> None:
    """``loc='outside upper center'`` is an error before 3.7."""
    pyproject = (REPOSITORY / 'pyproject.toml').read_text(encoding='utf-8')
    (line,) = re.findall(r'^ *"(matplotlib[^"]*)"', pyproject, re.M)
    assert [
        v for v in ('3.6.3', '3.7.0', '3.7.5', '3.11.2') if v in Requirement(line).specifier
    ] == [
        '3.7.0',
        '3.7.5',
        '3.11.2',
    ]
