"""The marked commands of docs/your_own_data.md, one after the other; figures of new_config.md."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from mmdet_softpl.__main__ import main
from mmdet_softpl.datasets.training_plan import ARCHITECTURES, plan_training

MARKED = re.compile(r'^<!-- test: run -->\n```bash\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@pytest.fixture(scope='module')
def page(repository: Path) -> str:
    path = repository / 'docs' / 'your_own_data.md'
    if not path.is_file():
        pytest.skip('there is no docs/your_own_data.md')
    return path.read_text(encoding='utf-8')


def test_commands_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = MARKED.findall(page)
    assert len(blocks) == page.count('<!-- test: run -->') == 3
    for block in blocks:
        words = shlex.split(block.replace('\\\n', ' '))
        assert words[:3] == ['python', '-m', 'mmdet_softpl']
        assert main(words[3:]) == 0, block
    report = json.loads((tmp_path / 'work_dirs/data/inspect.json').read_text())
    assert report['trains'] and len(report['sets']) == 3
    assert 80 <= len((tmp_path / 'my_config.py').read_text().splitlines()) <= 130


def test_figures_are_those_of_the_rules(repository: Path) -> None:
    page = (repository / 'docs' / 'new_config.md').read_text(encoding='utf-8')
    assert all(f'`{name}`' in page for name in ARCHITECTURES)
    assert '300 labelled and 20,000 unlabelled images this is 62,000 iterations' in page
    assert plan_training('mask-rcnn_r50', 300, 20_000, gpu_memory=28).max_iters == 62_000
