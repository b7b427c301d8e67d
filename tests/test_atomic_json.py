"""A failed write leaves the old file and nothing beside it."""

from __future__ import annotations

import json

import pytest

from mmdet_softpl.atomic_json import write_json


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
    assert path.stat().st_mode & 0o777 == 0o644


def test_what_json_cannot_say_becomes_null(tmp_path):
    path = tmp_path / 'a.json'
    write_json(path, {'a': [float('nan'), 1.5, (float('inf'),)]}, indent=1)
    assert json.loads(path.read_text()) == {'a': [None, 1.5, [None]]}
