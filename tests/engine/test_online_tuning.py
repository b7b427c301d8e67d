"""Rank correlation against scipy, and the config of a short training; cli/test_tune.py trains."""

from __future__ import annotations

import numpy as np
import pytest
from mmengine.config import Config
from scipy.stats import spearmanr

from mmdet_softpl.cli.config_path import config_path
from mmdet_softpl.cli.demo import CONFIG
from mmdet_softpl.engine.config_parts import find_hook, labeller_of
from mmdet_softpl.engine.online_tuning import rank_correlation, short_config
from mmdet_softpl.evaluation.label_replay import LabelSettings


def test_rank_correlation_with_ties() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b = rng.integers(0, 5, 12), rng.integers(0, 5, 12)
        assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert rank_correlation([1, 2, 3, 4], [1, 2, 3, 4]) is None
    assert rank_correlation([1] * 6, range(6)) is None


def test_short_config() -> None:
    cfg = Config.fromfile(config_path(CONFIG))
    before = cfg.to_dict()
    short = short_config(cfg, 'a.pth', LabelSettings('fixed', fixed_thr=0.4), 8, 3, ())
    assert labeller_of(short)[1].fixed_thr == 0.4
    assert find_hook(short, 'BurnInMeanTeacherHook')[1].supervised_iters == 0
    assert short.train_cfg.max_iters == 8 and short.train_cfg.val_interval == 2
    assert short.load_from.endswith('a.pth') and not short.resume
    assert cfg.to_dict() == before
