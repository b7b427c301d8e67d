"""A failed write leaves the old file and nothing beside it."""

from __future__ import annotations

import json
import os

import pytest

from mmdet_softpl.atomic_json import replaced_together, write_json, write_texts

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


def test_a_drive_without_modes_gets_the_file(tmp_path, monkeypatch):
    def refuse(*args):
        raise PermissionError(1, 'Operation not permitted')

    monkeypatch.setattr(os, 'chmod', refuse)
    write_json(tmp_path / 'a.json', {'new': 2})
    assert json.loads((tmp_path / 'a.json').read_text()) == {'new': 2}
    assert [p.name for p in tmp_path.iterdir()] == ['a.json']


@pytest.mark.parametrize('error', [OSError(27, 'File too large'), KeyboardInterrupt()])
def test_files_that_belong_together(tmp_path, error):
    paths = [tmp_path / name for name in ('a.json', 'b.txt')]
    paths[0].write_text('old')
    with pytest.raises(type(error)) as raised, replaced_together(*paths) as temporaries:
        temporaries[0].write_text('new')
        raise error
    if isinstance(error, OSError):
        message = f'{paths[0]} and {paths[1]} cannot be written: File too large'
        assert raised.value.strerror == message and raised.value.errno == 27
    assert paths[0].read_text() == 'old'
    assert [p.name for p in tmp_path.iterdir()] == ['a.json']
    with replaced_together(*paths) as temporaries:
        assert [t.suffix for t in temporaries] == ['.json', '.txt']
        for temporary in temporaries:
            temporary.write_text('new')
        assert paths[0].read_text() == 'old'
    assert [p.read_text() for p in paths] == ['new', 'new']
    assert sorted(p.name for p in tmp_path.iterdir()) == ['a.json', 'b.txt']


def test_a_folder_in_the_way_leaves_the_first_file_alone(tmp_path):
    paths = [tmp_path / name for name in ('a.json', 'b.txt')]
    paths[0].write_text('old')
    paths[1].mkdir()
    with pytest.raises(IsADirectoryError, match=r'b\.txt cannot be written: a folder'):
        write_texts(dict.fromkeys(paths, 'new'))
    assert paths[0].read_text() == 'old'
    assert sorted(p.name for p in tmp_path.iterdir()) == ['a.json', 'b.txt']


def test_what_cannot_be_written_is_named(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r'none/a\.json cannot be written: No such file'):
        write_json(tmp_path / 'none' / 'a.json', 1)

    def full(self, *args, **kwargs):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(type(tmp_path), 'write_text', full)
    with pytest.raises(OSError, match=r'a\.json cannot be written: No space left on device'):
        write_json(tmp_path / 'a.json', 1)
    assert not list(tmp_path.iterdir())


def test_a_file_keeps_its_mode(tmp_path):
    path = tmp_path / 'a.json'
    write_json(path, 1)
    fresh = path.stat().st_mode
    path.chmod(0o640)
    write_json(path, 2)
    assert path.stat().st_mode & 0o777 == 0o640
    write_json(tmp_path / 'b.json', 1)
    assert (tmp_path / 'b.json').stat().st_mode == fresh


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
