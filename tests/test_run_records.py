"""Records of a run: what is appended is read again, also after a crash and a resume."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdet_softpl.run_records import after_restarts, append_record, read_records


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    path = tmp_path / 'a.jsonl'
    append_record(path, dict(iter=1, values=[0.5, float('nan')]))
    append_record(path, dict(iter=2, values=[]))
    assert read_records(path) == [dict(iter=1, values=[0.5, None]), dict(iter=2, values=[])]
    assert len(path.read_text().splitlines()) == 2


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / 'a.jsonl'
    append_record(path, dict(iter=1))
    with path.open('a') as file:
        file.write('{"iter": 2, "val')
    assert read_records(path) == [dict(iter=1)]


@pytest.mark.parametrize('line', ['nonsense', '[1]', '3'])
def test_another_broken_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / 'a.jsonl'
    path.write_text(f'{line}\n{{"iter": 1}}\n')
    with pytest.raises(ValueError, match=f'{path}: line 1'):
        read_records(path)


def records(*iters: int, start: str) -> list[dict]:
    return [dict(iter=i, start=start) for i in iters]


def test_a_resume_undoes_what_came_after_its_checkpoint() -> None:
    first = records(10, 20, 30, 40, start='first')
    second = records(40, 50, start='second')
    # Resumed at 30: what was written of 40 is of a training that did not go on.
    found = after_restarts([(0, first), (30, second)])
    assert [(r['iter'], r['start']) for r in found] == [
        (10, 'first'),
        (20, 'first'),
        (30, 'first'),
        (40, 'second'),
        (50, 'second'),
    ]
    # A new training in the same folder leaves nothing of the old one, even if it got less far.
    assert after_restarts([(0, first), (0, records(10, start='new'))]) == records(10, start='new')
    # A validation that is repeated right after the resume.
    repeated = after_restarts([(0, first), (40, records(40, start='second'))])
    assert [r['start'] for r in repeated] == ['first', 'first', 'first', 'second']
    assert after_restarts([]) == []
