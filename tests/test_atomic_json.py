"""A failed write leaves the old file and nothing beside it."""

from __future__ import annotations

import json
import os

import pytest

from mmdet_softpl.atomic_json import write_json

UMASK = os.umask(0)
os.umask(UMASK)


def test_replaces_whole_or_not_at_all(tmp_path):
    path = tmp_path / 'a.json'
    write_json(path, {'old': 1})
    with pytest.raises(TypeError):
        # Fails half-way: json streams what comes before the object it cannot write.
        write_json(path, {'new': [1, 2, 3], 'bad': object()})
    assert json.loads(path.read_text()) == {'old': 1}
    assert [p.name for p in tmp_path.iterdir()] == ['a.json']
    write_json(path, {'new': 2})
    assert json.loads(path.read_text()) == {'new': 2}
    assert path.stat().st_mode & 0o777 == 0o666 & ~UMASK


def test_a_link_stays_one(tmp_path):
    (tmp_path / 'elsewhere').mkdir()
    target, link = tmp_path / 'elsewhere' / 'a.json', tmp_path / 'a.json'
    link.symlink_to(target)
    write_json(link, 1)
    write_json(link, 2)
    assert link.is_symlink() and json.loads(target.read_text()) == 2


def test_what_json_cannot_say_becomes_null(tmp_path):
    path = tmp_path / 'a.json'
    write_json(path, {'a': [float('nan'), 1.5, (float('inf'),)]}, indent=1)
    assert json.loads(path.read_text()) == {'a': [None, 1.5, [None]]}
