"""Relative paths lead to the file, whatever links are between."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmdet_softpl.relative_path import relative_path


@pytest.fixture
def linked(tmp_path: Path) -> tuple[Path, Path]:
    """A file beside a link to a folder that lies deeper elsewhere, and the link."""
    (tmp_path / 'disk' / 'deep' / 'images').mkdir(parents=True)
    (tmp_path / 'data' / 'unlabelled').mkdir(parents=True)
    (tmp_path / 'data' / 'images').symlink_to(tmp_path / 'disk' / 'deep' / 'images')
    file = tmp_path / 'data' / 'unlabelled' / 'a.jpg'
    file.write_text('a')
    return file, tmp_path / 'data' / 'images'


def test_behind_a_link(linked: tuple[Path, Path]) -> None:
    file, folder = linked
    found = relative_path(file, folder)
    assert os.path.samefile(folder / found, file)
    assert not os.path.exists(folder / os.path.relpath(file, folder))


def test_without_a_link_it_is_the_plain_one(tmp_path: Path) -> None:
    (tmp_path / 'a').mkdir()
    for name in ('a/x.jpg', 'x.jpg', 'b.jpg'):
        file = tmp_path / name
        file.write_text('')
        assert relative_path(file, tmp_path / 'a') == os.path.relpath(file, tmp_path / 'a')
    assert relative_path(tmp_path / 'none' / 'x', tmp_path / 'a') == '../none/x'


def test_the_base_of_a_tuned_config(linked: tuple[Path, Path]) -> None:
    """mmengine takes `..` out of a path as text."""
    from mmengine.config import Config

    from mmdet_softpl.cli.tune import _base_of

    _, folder = linked
    config = folder.parent / 'base.py'
    config.write_text('a = 1')
    for out in (folder, folder.resolve(), folder.parent):
        tuned = out / 'tuned.py'
        tuned.write_text(f'_base_ = {_base_of(str(config), out)!r}')
        assert Config.fromfile(tuned).a == 1
    assert _base_of(str(config), folder.parent) == 'base.py'
