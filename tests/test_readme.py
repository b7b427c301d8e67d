"""The README's configs are configs: each marked block parses, and its model is built.

A block is marked by ``<!-- test: NAME -->`` on the line before it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from tests.support.tiny_runs import shrink_model

README = Path(__file__).resolve().parents[1] / 'README.md'
MARKED = re.compile(r'^<!-- test: (\w+) -->\n```python\n(.*?)^```$', re.MULTILINE | re.DOTALL)
BLOCKS = dict(MARKED.findall(README.read_text(encoding='utf-8'))) if README.is_file() else {}


def test_three_snippets_are_marked() -> None:
    if not README.is_file():
        pytest.skip('there is no README.md')
    text = README.read_text(encoding='utf-8')
    assert text.count('<!-- test:') == len(BLOCKS), 'a mark without a block, or a name used twice'
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize('name', sorted(BLOCKS))
def test_snippet_builds(name: str, tmp_path: Path, repository: Path) -> None:
    # Snippets are meant for a file in the root of a checkout.
    (tmp_path / 'configs').symlink_to(repository / 'configs')
    path = tmp_path / f'{name}.py'
    path.write_text(BLOCKS[name])
    cfg = Config.fromfile(path)
    used = str(cfg.model) + str(cfg.get('custom_hooks', '')) + str(cfg.train_dataloader)
    ours = (
        'SmoothedCEHead',
        'RareBoostPseudoLabeler',
        'CalibratedSoftTeacher',
        'RareCopyPasteDataset',
    )
    assert any(module in used for module in ours)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(shrink_model(cfg.model))
    assert sum(parameter.numel() for parameter in model.parameters()) > 0
