"""The table of results."""

import io
import sys

import pytest

from mmdet_softpl.reporting.table import metrics_table

ROW = {
    'longtail/bbox_AP': 0.1234,
    'longtail/bbox_AP50': 0.25,
    'longtail/bbox_APr': -1,
    'longtail/bbox_APc': float('nan'),
    'longtail/bbox_APf': 0.0,
    'teacher/longtail/segm_AP': 1.0,
    'segm_APf': 0.0996,
    'ece': 0.5,
}


def cells(text, name):
    (line,) = [line for line in text.splitlines() if line.strip().startswith(name)]
    return line.strip().removeprefix(name).split()


def test_values_in_percent_and_dashes_for_what_is_not_known():
    text = metrics_table({'after burn-in': ROW, 'teacher': {}}, terminal=False)
    expected = ['12.3', '25.0', '-', '-', '0.0', '100.0', '-', '-', '-', '10.0']
    assert cells(text, 'after burn-in') == expected
    assert cells(text, 'teacher') == ['-'] * 10


def test_heads():
    top, bottom = metrics_table({'x': ROW}, terminal=False).splitlines()[1:3]
    assert top.split() == ['box'] * 5 + ['mask'] * 5
    assert bottom.split() == ['AP', 'AP50', 'APr', 'APc', 'APf'] * 2


def test_plain_text_is_ascii_without_codes_and_fits_a_narrow_window():
    text = metrics_table({'after burn-in': ROW, 'student': ROW}, terminal=False)
    assert text.isascii()
    assert '\x1b' not in text
    assert max(len(line) for line in text.splitlines()) <= 90


def test_standard_output_decides(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, 'stdout', Terminal())
    assert metrics_table({'student': ROW}) == metrics_table({'student': ROW}, terminal=True)
    monkeypatch.setattr(sys, 'stdout', io.StringIO())
    assert metrics_table({'student': ROW}) == metrics_table({'student': ROW}, terminal=False)


def test_a_terminal_gets_colours(monkeypatch):
    monkeypatch.setenv('TERM', 'dumb')
    text = metrics_table({'student': ROW}, terminal=True)
    assert '\x1b[' in text
    assert '12.3' in text


@pytest.mark.parametrize('terminal', [True, False])
def test_no_rows(terminal):
    assert 'AP50' in metrics_table({}, terminal=terminal)


def test_markup_in_names_is_shown_as_it_is():
    assert '[bold]x' in metrics_table({'[bold]x': ROW}, terminal=False)
