"""A folder of parts: claimed, gone on from, and left alone where it is somebody else's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmdet_softpl.engine import part_folder
from mmdet_softpl.engine.part_folder import claim_folder, in_parts


@pytest.mark.parametrize('total', [0, 1, 4, 9])
@pytest.mark.parametrize('batch_size', [1, 3, 100])
def test_every_item_once_and_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: int, batch_size: int
) -> None:
    monkeypatch.setattr(part_folder, 'PART_SIZE', 4)
    looked: list[int] = []
    done: list[int] = []

    def look(batch: range) -> list[int]:
        assert 0 < len(batch) <= batch_size
        looked.extend(batch)
        return [i * i for i in batch]

    def call() -> list[int]:
        parts = in_parts(total, tmp_path, look, batch_size=batch_size, progress=done.append)
        return [item for part in parts for item in part]

    assert call() == [i * i for i in range(total)]
    assert looked == list(range(total))
    assert done == sorted(done) and (not total or done[-1] == total)
    assert len(list(tmp_path.iterdir())) == -(-total // 4)
    looked.clear()
    assert call() == [i * i for i in range(total)] and looked == []


def test_an_interrupted_part_is_looked_at_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_folder, 'PART_SIZE', 4)
    looked: list[int] = []
    stop = True

    def look(batch: range) -> list[int]:
        if stop and 6 in batch:
            raise KeyboardInterrupt
        looked.extend(batch)
        return list(batch)

    with pytest.raises(KeyboardInterrupt):
        list(in_parts(10, tmp_path, look, batch_size=2))
    assert [path.name for path in tmp_path.iterdir()] == ['part-0000000.json']
    stop = False
    looked.clear()
    assert list(in_parts(10, tmp_path, look, batch_size=2)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert looked == [4, 5, 6, 7, 8, 9]


def test_a_folder_is_of_one_key(tmp_path: Path) -> None:
    folder = tmp_path / 'parts'
    assert not claim_folder(folder, dict(seed=0, sizes=(1, 2)))
    part = folder / 'seen' / 'part-0000000.json'
    part.parent.mkdir()
    part.write_text('[]')
    # A tuple comes back from the file as a list, and is the same.
    assert claim_folder(folder, dict(seed=0, sizes=(1, 2))) and part.is_file()
    assert not claim_folder(folder, dict(seed=1, sizes=(1, 2))) and not part.exists()
    assert json.loads((folder / 'settings.json').read_text()) == dict(seed=1, sizes=[1, 2])


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / 'part-0000000.json').write_text('mine')
    with pytest.raises(FileExistsError, match='holds other files'):
        claim_folder(tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == ['part-0000000.json']
