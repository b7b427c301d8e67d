"""Rank correlation against scipy, and the config of a short training; cli/test_tune.py trains."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from scipy.stats import spearmanr

from mmdet_softpl.cli.demo import CONFIG
from mmdet_softpl.config_file import find_hook
from mmdet_softpl.engine import online_tuning
from mmdet_softpl.engine.config_parts import labeller_of
from mmdet_softpl.engine.online_tuning import rank_correlation, short_config
from mmdet_softpl.engine.short_training import VALIDATIONS
from mmdet_softpl.evaluation.label_replay import LabelSettings
from mmdet_softpl.shipped_configs import config_path


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
    short = short_config(
        cfg, 'a.pth', LabelSettings(threshold_mode='fixed', fixed_thr=0.4), 8, 3, ()
    )
    assert labeller_of(short)[1].fixed_thr == 0.4
    assert find_hook(short, 'BurnInMeanTeacherHook')[1].supervised_iters == 0
    assert short.train_cfg.max_iters == 8 and short.train_cfg.val_interval == 2
    assert short.load_from.endswith('a.pth') and not short.resume
    assert cfg.to_dict() == before


def test_a_given_teacher_is_the_checkpoint_s() -> None:
    cfg = Config.fromfile(config_path(CONFIG))
    cfg.model.teacher_checkpoint = 'b.pth'
    short = short_config(
        cfg, 'a.pth', LabelSettings(threshold_mode='fixed', fixed_thr=0.4), 8, 3, ()
    )
    assert 'teacher_checkpoint' not in short.model


def test_scores_are_those_of_their_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a second search of the same folder, whose trials have the same numbers."""
    trained: list[float] = []

    def train_or_resume(cfg: Config, folder: Path, heard: Any) -> None:
        threshold = labeller_of(cfg)[1].fixed_thr
        trained.append(threshold)
        heard(cfg.train_cfg.max_iters, dict(segm_AP=threshold))

    monkeypatch.setattr(online_tuning, 'train_or_resume', train_or_resume)
    cfg = Config.fromfile(config_path(CONFIG))
    checkpoint = tmp_path / 'a.pth'
    checkpoint.write_bytes(b'1')

    def search(*thresholds: float) -> list[float]:
        trials = [
            dict(
                number=number,
                proxy=-number,
                settings=asdict(LabelSettings(threshold_mode='fixed', fixed_thr=threshold)),
            )
            for number, threshold in enumerate(thresholds)
        ]
        found = online_tuning.train_settings(
            cfg,
            str(checkpoint),
            trials[0]['settings'],
            trials,
            2,
            8,
            tmp_path,
            seed=0,
            temperatures=(),
        )
        return [record['score'] for record in found['trainings']]

    assert search(0.5, 0.6, 0.7) == [0.5, 0.6, 0.7]
    assert search(0.5, 0.6, 0.7) == [0.5, 0.6, 0.7]
    assert trained == [0.5, 0.6, 0.7]
    assert search(0.5, 0.8, 0.7) == [0.5, 0.8, 0.7]
    assert trained == [0.5, 0.6, 0.7, 0.8]
    assert search(0.4, 0.3, 0.2) == [0.4, 0.3, 0.2]
    # The checkpoint was written anew.
    checkpoint.write_bytes(b'12')
    search(0.5, 0.6, 0.7)
    assert trained[-3:] == [0.5, 0.6, 0.7]


def test_what_was_heard_before_an_interruption_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(cfg: Config, folder: Path, heard: Any) -> None:
        folder.mkdir()
        (folder / VALIDATIONS).write_text(json.dumps({'4': dict(segm_AP=0.2)}))
        raise KeyboardInterrupt

    cfg = Config.fromfile(config_path(CONFIG))
    checkpoint = tmp_path / 'a.pth'
    checkpoint.write_bytes(b'1')
    settings = asdict(LabelSettings(threshold_mode='fixed', fixed_thr=0.5))
    trials = [dict(number=0, proxy=0.0, settings=settings)]
    given = (cfg, str(checkpoint), settings, trials, 1, 8, tmp_path)
    monkeypatch.setattr(online_tuning, 'train_or_resume', interrupted)
    with pytest.raises(KeyboardInterrupt):
        online_tuning.train_settings(*given, seed=0, temperatures=())

    def goes_on(cfg: Config, folder: Path, heard: Any) -> None:
        heard(4, dict(segm_AP=0.9))
        heard(8, dict(segm_AP=0.3))

    monkeypatch.setattr(online_tuning, 'train_or_resume', goes_on)
    (record,) = online_tuning.train_settings(*given, seed=0, temperatures=())['trainings']
    assert (record['score'], record['state']) == (0.3, 'complete')
    import optuna

    storage = f'sqlite:///{tmp_path / "study.db"}'
    (name,) = optuna.get_all_study_names(storage)
    last = optuna.load_study(study_name=name, storage=storage).trials[-1]
    assert last.intermediate_values == {4: 0.2, 8: 0.3}
