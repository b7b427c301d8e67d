"""What the pages on generated images, thresholds and troubles quote is what the code has."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from mmengine.config import Config

from mmdet_softpl.datasets.generated_image_dataset import GeneratedImageDataset
from mmdet_softpl.engine import RareBoostPseudoLabeler
from mmdet_softpl.functional import THRESHOLD_MODES
from tests.support.tiny_data import write_data

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / 'docs'
SHIPPED = 'calibrated_soft_teacher/calibrated-soft-teacher_mask-rcnn_r50_fpn_180k_semi-0.1-coco.py'


def page(name: str) -> str:
    return (DOCS / f'{name}.md').read_text(encoding='utf-8')


def block(name: str, mark: str) -> str:
    found = re.search(
        rf'^( *)<!-- test: {mark} -->\n *```python\n(.*?)^ *```$', page(name), re.M | re.S
    )
    assert found, f'{name}.md has no block {mark}'
    return re.sub(rf'^{found[1]}', '', found[2], flags=re.M)


@cache
def literals() -> list[str]:
    """Every string of the code, joined as Python joins it; `\\0` where a value is filled in."""
    texts = []
    for path in sorted((REPOSITORY / 'mmdet_softpl').rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else '\0' for v in node.values]
                texts.append(''.join(map(str, parts)))
    return texts


def quoted_messages() -> list[str]:
    """First cells of the tables that are one quotation, perhaps with a remark in brackets."""
    rows = re.findall(r'^\| `([^`]+)`(?: \([^|]*\))? \|', page('troubleshooting'), re.M)
    return [row for row in rows if ' ' in row]


def test_there_are_messages() -> None:
    assert len(quoted_messages()) >= 20


@pytest.mark.parametrize('message', quoted_messages())
def test_quoted_message_is_in_the_code(message: str) -> None:
    pattern = re.compile(
        '.*'.join(re.escape(part.strip()) for part in message.split('...') if part.strip()),
        re.S,
    )
    assert any(pattern.search(text) for text in literals()), message


def test_log_lines_of_the_threshold_page() -> None:
    texts, text = literals(), page('choosing_thresholds')
    for line in ('pseudo-labels: ', 'no pseudo-label for '):
        assert line.strip() in text and any(line in literal for literal in texts)
    modes = re.findall(r'^\| `(\w+)`(?: \(default\))? \| ', text, re.M)
    assert set(THRESHOLD_MODES) <= set(modes)
    audit = (REPOSITORY / 'mmdet_softpl' / 'engine' / 'audit.py').read_text(encoding='utf-8')
    for key in ('kept_per_image', 'expected_per_image', 'labelled_precision', 'never_labelled'):
        assert key in text and f'{key}=' in audit


def test_links_of_the_pages() -> None:
    for path in [*REPOSITORY.glob('*.md'), *DOCS.glob('*.md')]:
        for target in re.findall(r'\]\(([^):]+)\)', path.read_text(encoding='utf-8')):
            name, _, anchor = target.partition('#')
            page = (path.parent / name).resolve() if name else path
            assert page.exists(), f'{path.name}: {target}'
            if anchor:
                assert anchor in anchors(page.read_text(encoding='utf-8')), f'{path.name}: {target}'


def anchors(text: str) -> set[str]:
    """What GitHub calls the headings of a page."""
    headings = re.findall(r'^#+ (.*)$', text, flags=re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


def test_weak_teacher(tmp_path: Path) -> None:
    root = write_data(tmp_path / 'data', ('a', 'b', 'c', 'd'))
    path = tmp_path / 'config.py'
    path.write_text('hook = ' + block('choosing_thresholds', 'weak_teacher'))
    cfg = Config.fromfile(path).hook
    cfg['labeled_ann_file'] = str(root / 'annotations' / 'instances_train2017.json')
    assert cfg.pop('type') == 'mmdet_softpl.RareBoostPseudoLabeler'
    hook = RareBoostPseudoLabeler(**cfg)
    assert hook.policy.alpha == 0.5 and hook.policy.thr_range == (0.2, 0.9)


def test_generated_images_config(tmp_path: Path) -> None:
    path = tmp_path / 'config.py'
    base = f"_base_ = '{REPOSITORY / 'configs' / SHIPPED}'\n"
    path.write_text(base + block('generated_images', 'generated_images'))
    cfg = Config.fromfile(path)
    sets = cfg.train_dataloader.dataset.datasets
    assert [d.type.rsplit('.', 1)[-1] for d in sets][1] == GeneratedImageDataset.__name__
    assert len(sets) == len(cfg.train_dataloader.sampler.source_ratio) == 3
    assert sets[1].pipeline == sets[0].pipeline
    # Without `classes` among them, sets of which one has none make no common metainfo.
    assert 'classes' in cfg.train_dataloader.dataset.ignore_keys
    assert sum(cfg.train_dataloader.sampler.source_ratio) == cfg.train_dataloader.batch_size
    train_cfg = cfg.model.detector.train_cfg
    for part in (train_cfg.rpn, train_cfg.rcnn):
        assert part.assigner.type == 'MaxIoUAssigner' and part.assigner.ignore_iof_thr == 0.5
