"""The report in a real browser: no error, no sideways scrolling, images, sorting."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdet_softpl.__main__ import main
from tests.support.browser import needs_browser, visit
from tests.support.tiny_report import NAMES, write_run, write_trained_run

pytestmark = needs_browser

USE_THE_TABLE = """
  const table = document.getElementById('classes');
  const column = (i) => Array.from(table.tBodies[0].rows, (row) => row.cells[i].textContent);
  const press = (i) => { table.querySelectorAll('th button')[i].click(); return column(i); };
  found.change = [press(5), press(5)];
  found.names = [press(0), press(0)];
  found.sort = table.querySelectorAll('th')[0].getAttribute('aria-sort');
  const filter = document.querySelector('input');
  filter.value = 'BEE';
  filter.dispatchEvent(new Event('input'));
  found.shown = Array.from(table.tBodies[0].rows).filter((row) => !row.hidden).length;
"""


@pytest.mark.parametrize('width', [375, 1280])
def test_tables_sort_and_filter(tmp_path: Path, width: int) -> None:
    path = write_run(tmp_path / 'run', tuple(f'a rather long class name {n}' for n in NAMES))
    assert main(['report', str(path), '--images', '0']) == 0
    found = visit(path / 'report.html', width, tmp_path, USE_THE_TABLE)
    assert found['errors'] == []
    assert found['width'] == width and found['content'] <= width
    names = sorted(f'a rather long class name {n}' for n in NAMES)
    assert found['names'] == [names, names[::-1]] and found['sort'] == 'descending'
    assert found['change'] == [
        ['+25.0', '+0.0', '-20.0', '-'],
        ['-20.0', '+0.0', '+25.0', '-'],
    ], 'what is unknown comes last either way'
    assert found['shown'] == 1


@pytest.mark.parametrize('width', [375, 1280])
def test_galleries_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_trained_run(tmp_path / 'work')
    assert main(['report', str(path), '--images', '4', '--device', 'cpu']) == 0
    found = visit(path / 'report.html', width, tmp_path)
    assert found['errors'] == []
    assert found['images'] > 0 and found['broken'] == 0
    assert found['width'] == width and found['content'] <= width


def test_what_is_wrong_is_seen(tmp_path: Path) -> None:
    """The looker itself, by a page with one of each fault."""
    page = tmp_path / 'bad.html'
    page.write_text(
        '<!doctype html><html><head></head><body><img src="data:image/png;base64,AAAA" alt="x">'
        '<div style="width:700px">wide</div><script>nowhere()</script></body></html>'
    )
    found = visit(page, 375, tmp_path)
    assert found['images'] == found['broken'] == 1
    assert found['content'] >= 700
    assert any('nowhere is not defined' in error for error in found['errors'])
