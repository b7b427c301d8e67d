"""The page of the shipped configs says what the configs say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mmengine.config import Config

from mmdet_softpl.datasets.training_plan import ARCHITECTURES, FIXED_GB, plan_training
from mmdet_softpl.shipped_configs import config_names, config_path

PAGE = (Path(__file__).resolve().parents[1] / 'docs' / 'shipped_configs.md').read_text()
IMAGES = {'coco': 118_287, 'lvis-v1': 100_170}
LONG = [name for name in config_names() if '180k' in name]


def row_of(name: str) -> list[str]:
    share = re.search(r'semi-(0\.\d+)-(coco|lvis-v1)', name)
    lines = [line for line in PAGE.splitlines() if line.startswith('| ')]
    if share is None:
        (line,) = [line for line in lines if 'LVIS v1 train: all' in line]
    else:
        data = {'coco': 'COCO', 'lvis-v1': 'LVIS'}[share[2]]
        percent = f'{100 * float(share[1]):g}'
        (line,) = [
            line
            for line in lines
            if line.startswith(f'| {data}')
            and percent in re.findall(r'\d+', line.split('|')[1])[1:]
        ]
    return [cell.strip() for cell in line.strip('|').split('|')]


@pytest.mark.parametrize('name', LONG)
def test_rows(name: str) -> None:
    cfg = Config.fromfile(str(config_path(name)))
    row = row_of(name)
    (hook,) = [h for h in cfg.custom_hooks if h.type.endswith('BurnInMeanTeacherHook')]
    share = re.search(r'semi-(0\.\d+)-(coco|lvis-v1)', name)
    images = IMAGES['lvis-v1'] if share is None else float(share[1]) * IMAGES[share[2]]
    assert f'{hook.supervised_iters:,}' in row[3]
    assert f'{4 * hook.supervised_iters / images:.2g}' in row[3].partition(':')[2]
    assert cfg.train_cfg.max_iters == 180_000 and cfg.train_cfg.val_interval == 10_000
    # The teacher of the end of the supervised part is evaluated and saved.
    assert hook.supervised_iters % cfg.train_cfg.val_interval == 0
    assert hook.supervised_iters % cfg.default_hooks.checkpoint.interval == 0
    network = 'Cascade R50' if 'cascade' in name else re.search(r'r50|r101|swin-t', name)[0]  # type: ignore[index]
    assert network.lower() in row[2].lower() or row[2] == 'the same four'


def test_memory() -> None:
    for arch, said in zip(ARCHITECTURES, (15, 21, 20, 25, 24), strict=True):
        gigabytes = FIXED_GB + 4 * plan_training(arch, 300, 900).gb_per_image
        assert round(gigabytes) == said and f' {said}' in PAGE
