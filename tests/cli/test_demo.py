"""The demo command in miniature: what it writes, that it repeats nothing, that it resumes."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import pytest
from mmengine.hooks import LoggerHook
from mmengine.runner import Runner

from mmdet_softpl.__main__ import INTERRUPTED, main
from mmdet_softpl.cli import demo
from mmdet_softpl.datasets import longtail_shapes, shape_plan
from tests.support.tiny_runs import shrink_model

ARGUMENTS = ['demo', '--supervised-iters', '3', '--iters', '6', '--seed', '3']
STAGES = ('after burn-in', 'teacher', 'student')
PICTURES = ('pseudo_labels.png', 'pseudo_label_counts.png', 'reliability.png')


@pytest.fixture(autouse=True)
def _miniature(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handful of images, a network that fits them, a checkpoint every second iteration."""
    small = partial(shape_plan.ShapesConfig, num_train=28, num_unlabeled=10, num_val=8)
    generate = partial(longtail_shapes.generate_longtail_shapes, progress=False, workers=1)
    monkeypatch.setattr(shape_plan, 'ShapesConfig', small)
    monkeypatch.setattr(longtail_shapes, 'generate_longtail_shapes', generate)
    load = demo.load_config

    def load_small(args: Any, work_dir: Path) -> Any:
        cfg = load(args, work_dir)
        shrink_model(cfg.model)
        # An untrained network is never sure of anything.
        cfg.model.semi_train_cfg.update(score_floor=0.0)
        cfg.custom_hooks[1].update(interval=1, fixed_thr=0.0, thr_range=(0.0, 0.9))
        cfg.default_hooks.checkpoint.interval = 2
        cfg.train_dataloader.sampler.batch_size = cfg.train_dataloader.batch_size = 2
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            loader.update(num_workers=0, persistent_workers=False)
        return cfg

    monkeypatch.setattr(demo, 'load_config', load_small)
    monkeypatch.setattr(demo, 'PICTURED_SCORE', 0.0)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The iterations that were trained, in order."""
    seen: list[int] = []
    plain = LoggerHook.after_train_iter

    def after_train_iter(self: LoggerHook, runner: Runner, *args: Any, **kwargs: Any) -> None:
        seen.append(runner.iter)
        plain(self, runner, *args, **kwargs)

    monkeypatch.setattr(LoggerHook, 'after_train_iter', after_train_iter)
    return seen


def test_demo(tmp_path: Path, trained: list[int], capsys: pytest.CaptureFixture) -> None:
    work = tmp_path / 'demo'
    assert main([*ARGUMENTS, '--work-dir', str(work), '--json']) == 0
    assert trained == list(range(6))
    metrics = json.loads((work / 'metrics.json').read_text())

    def no_constant(name: str) -> None:
        raise AssertionError(f'{name} is no JSON')

    assert json.loads(capsys.readouterr().out, parse_constant=no_constant) == metrics
    assert metrics['settings'] == dict(seed=3, supervised_iters=3, iters=6)
    assert tuple(metrics['stages']) == STAGES
    for stage in STAGES:
        for kind in ('bbox', 'segm'):
            for name in ('AP', 'AP50', 'APr', 'APc', 'APf'):
                assert f'longtail/{kind}_{name}' in metrics['stages'][stage]
    for group in ('rare', 'common', 'frequent'):
        for name in ('count', 'precision', 'recall'):
            assert f'{group}_pseudo_{name}' in metrics['pseudo_labels']
    assert sum(v for k, v in metrics['pseudo_labels'].items() if k.endswith('_count')) > 0
    audit = json.loads((work / 'pseudo_label_audit.json').read_text())
    assert audit['unlabelled_images_seen'] == 3
    for name in PICTURES:
        picture = cv2.imread(str(work / name))
        assert picture is not None and min(picture.shape[:2]) > 100, name
        assert picture.std() > 5, f'{name} is blank'

    # Again: nothing is trained.
    trained.clear()
    assert main([*ARGUMENTS, '--work-dir', str(work)]) == 0
    assert trained == []
    printed = capsys.readouterr().out
    assert 'after burn-in' in printed and 'student' in printed
    for name in ('metrics.json', *PICTURES, 'pseudo_label_audit.json'):
        assert str(work / name) in printed


def test_interrupted_demo_resumes(
    tmp_path: Path, trained: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / 'demo'
    plain = LoggerHook.after_train_iter

    def interrupt(self: LoggerHook, runner: Runner, *args: Any, **kwargs: Any) -> None:
        plain(self, runner, *args, **kwargs)
        if runner.iter == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LoggerHook, 'after_train_iter', interrupt)
        assert main([*ARGUMENTS, '--work-dir', str(work)]) == INTERRUPTED
    assert trained == [0, 1, 2, 3, 4]
    assert not (work / 'metrics.json').exists()

    trained.clear()
    assert main([*ARGUMENTS, '--work-dir', str(work)]) == 0
    assert trained == [4, 5]
    metrics = json.loads((work / 'metrics.json').read_text())
    # The first evaluation was before the interruption.
    assert tuple(metrics['stages']) == STAGES
    assert all(metrics['stages'][stage] for stage in STAGES)


def test_phases_must_both_have_iterations(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ['demo', '--supervised-iters', '6', '--iters', '6', '--work-dir', str(tmp_path)]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert '--supervised-iters 6' in error and '--iters 6' in error
