"""What tells files, images and settings from others."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmdet_softpl.file_keys import file_key, images_key, seen_key, settings_hash, settings_key


class Images:
    """A data set of these files."""

    def __init__(self, *paths: str | Path) -> None:
        self.paths = [str(path) for path in paths]

    def __len__(self) -> int:
        return len(self.paths)

    def get_data_info(self, index: int) -> dict:
        return dict(img_path=self.paths[index])


def test_key_of_a_file_changes_with_it(tmp_path: Path) -> None:
    path = tmp_path / 'a'
    path.write_text('1')
    first = file_key(path)
    assert file_key(path) == first
    path.write_text('12')
    assert file_key(path) != first
    second = file_key(path)
    os.utime(path, (1, 1))
    assert file_key(path) != second, 'as long, and changed since'


def test_key_of_images(tmp_path: Path) -> None:
    a, b = tmp_path / 'a.png', tmp_path / 'b.png'
    for path in (a, b):
        path.write_text('1')
    first = images_key(Images(a, b))
    assert images_key(Images(a, b)) == first
    assert images_key(Images(b, a)) != first, 'predictions are by position'
    b.write_text('12')
    assert images_key(Images(a, b)) != first
    assert images_key(Images()) == images_key(Images())
    # Nobody looks into a store elsewhere.
    assert images_key(Images('s3://bucket/a.png')) != images_key(Images('s3://bucket/b.png'))
    b.unlink()
    with pytest.raises(FileNotFoundError, match=r'b\.png'):
        images_key(Images(a, b))


def test_key_of_settings() -> None:
    assert settings_key(dict(a=1, b=[2])) == settings_key(Config(dict(b=[2], a=1)))
    assert settings_key(dict(a=1)) != settings_key(dict(a=2))
    assert settings_key(None) == settings_key(None)


@dataclass(frozen=True)
class Counts:
    """As class statistics hold them."""

    images: np.ndarray


def test_key_of_a_long_array() -> None:
    """Its text would leave out all but the ends."""
    counts = np.arange(1203)
    other = counts.copy()
    other[600] += 1
    assert settings_hash([Counts(counts)]) == settings_hash([Counts(counts.copy())])
    assert settings_hash([Counts(counts)]) != settings_hash([Counts(other)])
    assert settings_hash(torch.tensor(counts)) != settings_hash(torch.tensor(other))


def test_key_of_a_view(tmp_path: Path) -> None:
    path = tmp_path / 'labels.json'
    path.write_text('{}')
    cfg = Config(dict(model=dict(type='A')))
    first = seen_key(cfg, str(path), 'x', [dict(type='Resize')])
    assert (
        seen_key(Config(dict(model=dict(type='A'))), str(path), 'x', [dict(type='Resize')]) == first
    )
    assert (
        seen_key(Config(dict(model=dict(type='B'))), str(path), 'x', [dict(type='Resize')]) != first
    )
    assert seen_key(cfg, str(path), 'y', [dict(type='Resize')]) != first
    assert seen_key(cfg, str(path), 'x', []) != first
    path.write_text('{} ')
    assert seen_key(cfg, str(path), 'x', [dict(type='Resize')]) != first
