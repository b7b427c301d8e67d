"""The hooks that docs/reading_the_report.md shows can be built, and its options exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mmengine.config import Config

from mmdet_softpl.__main__ import build_parser
from mmdet_softpl.registry import HOOKS
from tests.support.tiny_data import write_data

DOC = Path(__file__).resolve().parents[1] / 'docs' / 'reading_the_report.md'


@pytest.fixture
def text() -> str:
    if not DOC.is_file():
        pytest.skip('there is no docs/')
    return DOC.read_text(encoding='utf-8')


def test_hooks_build(text: str, tmp_path: Path) -> None:
    match = re.search(r'<!-- test: report_hooks -->\n```python\n(.*?)^```', text, re.M | re.S)
    assert match
    root = write_data(tmp_path / 'coco', [f'class {i}' for i in range(5)])
    labelled = root / 'annotations' / 'instances_train2017.json'
    path = tmp_path / 'config.py'
    path.write_text(match[1].replace('labelled.json', str(labelled)))
    hooks = [HOOKS.build(hook) for hook in Config.fromfile(path).custom_hooks]
    assert len(hooks) == 3


def test_options_exist(text: str) -> None:
    options = re.findall(r'^\| `(--[a-z-]+)', text, re.M)
    assert len(options) == 6
    for option in options:
        values = [] if option == '--json' else ['1']
        build_parser().parse_args(['report', 'work_dirs/parts', option, *values])
