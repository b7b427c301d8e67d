"""Progress: the time left is that of this call, and a log is not flooded."""

from __future__ import annotations

import pytest

from mmdet_softpl import progress as module
from mmdet_softpl.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(module.time, 'monotonic', lambda: now[0])
    return now


def test_time_left(clock: list[float], capsys: pytest.CaptureFixture) -> None:
    report = Progress('looking')
    report(50, 100)
    clock[0] += 60
    # 10 images took 60 s, 40 are left; the 50 of an earlier call do not count.
    report(60, 100, 'note')
    assert 'looking: 60 of 100, note, 4:00 left' in capsys.readouterr().err


def test_a_log_gets_a_line_now_and_then(clock: list[float], capsys: pytest.CaptureFixture) -> None:
    report = Progress('looking')
    for done in range(1, 101):
        clock[0] += 1
        report(done, 100)
    lines = capsys.readouterr().err.splitlines()
    assert 6 <= len(lines) <= 9
    assert lines[-1].startswith('looking: 100 of 100') and 'left' not in lines[-1]


def test_the_end_is_said_once(clock: list[float], capsys: pytest.CaptureFixture) -> None:
    report = Progress('looking')
    # The last batch was not full.
    for done in (16, 30, 30):
        report(done, 30)
    assert capsys.readouterr().err.count('30 of 30') == 1
    # More of it may come later.
    for done in (31, 40):
        report(done, 40)
    assert capsys.readouterr().err.count('40 of 40') == 1


def on_screen(written: str) -> list[str]:
    """What a terminal shows of it."""
    lines = []
    for line in written.split('\n'):
        shown: list[str] = []
        for part in line.split('\r'):
            shown[: len(part)] = part
        lines.append(''.join(shown).rstrip())
    return lines


def test_a_shorter_line_covers_the_longer_one_before_it(
    clock: list[float], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = Progress('looking')
    monkeypatch.setattr(module.sys.stderr, 'isatty', lambda: True, raising=False)
    report(1, 100, 'a long note about the first')
    clock[0] += 60
    report(2, 100, 'b')
    shown = capsys.readouterr().err
    assert on_screen(shown) == ['looking: 2 of 100, b, 98:00 left']
    clock[0] += 60
    report(100, 100)
    assert on_screen(shown + capsys.readouterr().err) == ['looking: 100 of 100', '']
