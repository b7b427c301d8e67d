"""The shapes command."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from mmdet_softpl.cli import shapes

SMALL = [
    '--num-classes=4',
    '--image-size=64',
    '--num-train=6',
    '--num-unlabeled=4',
    '--num-val=3',
]


def _run(*argv: str) -> int:
    parser = argparse.ArgumentParser()
    shapes.add_arguments(parser)
    return shapes.run(parser.parse_args([*argv, '--workers', '1']))


def test_json_and_text(tmp_path, capsys):
    root = str(tmp_path / 'new' / 's')
    assert _run(root, *SMALL, '--extra', 'test=2', '--json') == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary['images'] == {'train': 6, 'unlabeled': 4, 'val': 3, 'test': 2}
    assert sum(summary['groups'].values()) == len(summary['image_counts']) == 4
    assert len(json.loads(Path(summary['paths']['test']).read_text())['images']) == 2
    assert _run(root, *SMALL, '--extra', 'test=2') == 0
    assert '4 classes' in capsys.readouterr().out


def test_bad_split(tmp_path):
    with pytest.raises(ValueError, match='test:5'):
        _run(str(tmp_path), '--extra', 'test:5')
