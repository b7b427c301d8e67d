"""A folder with generated shapes and the demo's config made tiny, as a user would have it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmdet_softpl.cli.demo import CONFIG, replace_prefix
from mmdet_softpl.datasets.longtail_shapes import generate_longtail_shapes
from mmdet_softpl.datasets.shape_plan import ShapesConfig
from mmdet_softpl.shipped_configs import config_path
from tests.support.tiny import REPOSITORY
from tests.support.tiny_runs import shrink_model


def make_folder(root: Path) -> Path:
    """``my_config.py``, its data, and an untrained ``work_dirs/parts/iter_20000.pth``.

    Returns:
        ``root``.
    """
    shapes = ShapesConfig(num_train=28, num_unlabeled=8, num_val=8)
    generate_longtail_shapes(str(root / 'data'), shapes, progress=False, workers=1)
    cfg = Config.fromfile(str(config_path(CONFIG)))
    plain = replace_prefix(cfg.to_dict(), cfg.data_root, f'{root / "data"}/')
    cfg = Config(plain)
    shrink_model(cfg.model)
    # An untrained network is never sure of anything.
    cfg.model.semi_train_cfg.update(score_floor=0.0, max_per_img=20)
    for hook in cfg.custom_hooks:
        if hook.type.endswith('RareBoostPseudoLabeler'):
            hook.update(thr_range=(0.0, 0.9), fixed_thr=0.0, min_count=3)
    cfg.train_dataloader.sampler.batch_size = cfg.train_dataloader.batch_size = 2
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False, pin_memory=False)
    cfg.dump(str(root / 'my_config.py'))
    with DefaultScope.overwrite_default_scope('mmdet'):
        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
    path = root / 'work_dirs' / 'parts' / 'iter_20000.pth'
    path.parent.mkdir(parents=True)
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return root


def documented_command(page: str, mark: str) -> list[str]:
    """Arguments of the ``softpl`` command in the block of ``docs/PAGE`` marked with MARK."""
    path = REPOSITORY / 'docs' / page
    if not path.is_file():
        pytest.skip(f'there is no docs/{page}')
    text = path.read_text(encoding='utf-8')
    found: Any = re.search(rf'<!-- test: {mark} -->\n```bash\n(.*?)```', text, re.DOTALL)
    words = shlex.split(found.group(1).replace('\\\n', ' '))
    assert words[0] == 'softpl'
    return words[1:]
