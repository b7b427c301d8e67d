"""Splits and configs of a pilot; cli/test_pilot.py trains them."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
from mmengine.config import Config

from mmdet_softpl.cli.demo import CONFIG
from mmdet_softpl.config_file import find_hook
from mmdet_softpl.engine import HeldOutCalibrationHook
from mmdet_softpl.engine.config_parts import labelled_leaves, labeller_of
from mmdet_softpl.engine.pilot_runs import (
    claim_for_runs,
    pilot_config,
    plan_runs,
    scale_schedule,
)
from mmdet_softpl.shipped_configs import config_path


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    """The demo's config with 40 labelled images of 2 classes."""
    cfg = Config.fromfile(config_path(CONFIG))
    path = tmp_path / 'train.json'
    content = dict(
        images=[dict(id=i, file_name=f'{i}.png', height=9, width=9) for i in range(40)],
        categories=[dict(id=1, name='a'), dict(id=2, name='b')],
        annotations=[
            dict(id=i + 1, image_id=i, category_id=1 + i % 2, bbox=[0, 0, 4, 4], area=16, iscrowd=0)
            for i in range(40)
        ],
    )
    path.write_text(json.dumps(content))
    (leaf,) = labelled_leaves(cfg, labeller_of(cfg)[1].labeled_ann_file)
    leaf.ann_file = labeller_of(cfg)[1].labeled_ann_file = str(path)
    return cfg


def test_schedule_keeps_its_shape(cfg: Config) -> None:
    scale_schedule(cfg, 70)
    assert cfg.train_cfg.max_iters == 70
    burn_in = find_hook(cfg, 'BurnInMeanTeacherHook')[1]
    assert (burn_in.supervised_iters, burn_in.ramp_iters) == (40, 5)
    assert cfg.param_scheduler[0].end == 5 and cfg.param_scheduler[0].begin == 0
    assert cfg.param_scheduler[1].milestones == [60]
    assert labeller_of(cfg)[1].interval == 5
    assert cfg.default_hooks.checkpoint.interval == 5
    assert cfg.model.semi_train_cfg.refresh_interval == 5
    # However short, nothing becomes 0.
    cfg.model.semi_train_cfg.pop('refresh_interval')
    scale_schedule(cfg, 7)
    assert cfg.model.semi_train_cfg.refresh_interval == 50, 'a tenth of the default'
    scale_schedule(cfg, 2)
    assert labeller_of(cfg)[1].interval == 1 and burn_in.supervised_iters == 1


def test_labelled_alone_is_one_long_supervised_phase(cfg: Config, tmp_path: Path) -> None:
    before = cfg.to_dict()
    part = str(tmp_path / 'part.json')
    alone, semi = (pilot_config(cfg, part, kind, None, 7) for kind in ('labelled', 'semi'))
    assert find_hook(alone, 'BurnInMeanTeacherHook')[1].supervised_iters == 700
    assert find_hook(semi, 'BurnInMeanTeacherHook')[1].supervised_iters == 400
    for changed in (alone, semi):
        assert labelled_leaves(changed, part)
        assert labeller_of(changed)[1].labeled_ann_file == part
        # Groups are those of the whole labelled set at every share.
        assert changed.val_evaluator == cfg.val_evaluator
        assert changed.randomness.seed == 7
    assert cfg.to_dict() == before


def test_held_out_calibration_is_scaled_too(cfg: Config) -> None:
    for named in (dict(interval=400), {}):
        cfg.custom_hooks.append(dict(type='mmdet_softpl.HeldOutCalibrationHook', **named))
        cfg.train_cfg.max_iters = 700
        scale_schedule(cfg, 70)
        default = inspect.signature(HeldOutCalibrationHook).parameters['interval'].default
        expected = named.get('interval', default) // 10
        assert cfg.custom_hooks.pop()['interval'] == expected


def test_only_trained_classes_count(cfg: Config, tmp_path: Path) -> None:
    (leaf,) = labelled_leaves(cfg, labeller_of(cfg)[1].labeled_ann_file)
    leaf.metainfo = dict(classes=('a',))
    runs = plan_runs(cfg, [100], 1, None, tmp_path / 'out')
    # Every second image holds an instance of a, the others hold b.
    assert {(run.labelled_images, run.labelled_instances) for run in runs} == {(20, 20)}


def test_plan(cfg: Config, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    runs = plan_runs(cfg, [50, 100], 2, None, out)
    assert [run.name for run in runs] == [
        f'{share}-{kind}-{seed}'
        for share in (50, 100)
        for seed in (0, 1)
        for kind in ('labelled', 'semi')
    ]
    assert [run.labelled_images for run in runs] == [20] * 4 + [40] * 4
    files = {run.name: run.labeled_ann_file for run in runs}
    # Both kinds of a seed have the same images, other seeds others.
    assert files['50-labelled-0'] == files['50-semi-0'] != files['50-semi-1']
    first = {image['id'] for image in json.loads(Path(files['50-semi-0']).read_text())['images']}
    second = {image['id'] for image in json.loads(Path(files['50-semi-1']).read_text())['images']}
    assert first != second
    times = [path.stat().st_mtime_ns for path in sorted((out / 'splits').iterdir())]
    again = plan_runs(cfg, [50, 100], 2, None, out)
    assert [run.labeled_ann_file for run in again] == [run.labeled_ann_file for run in runs]
    assert [p.stat().st_mtime_ns for p in sorted((out / 'splits').iterdir())] == times
    with pytest.raises(ValueError, match='with other --iters; give another --out'):
        plan_runs(cfg, [50], 1, 10, out)


def test_given_trainings_do_not_replace_another_pilot(cfg: Config, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    runs = plan_runs(cfg, [50], 1, None, out)
    with pytest.raises(ValueError, match=r'trainings of its own, or other --runs; give another'):
        claim_for_runs(runs, out)
    claim_for_runs(runs, tmp_path / 'two')
    claim_for_runs(runs[::-1], tmp_path / 'two')
    with pytest.raises(ValueError, match='other --runs'):
        claim_for_runs(runs[:1], tmp_path / 'two')


def test_a_labelled_json_that_grew_is_another_pilot(cfg: Config, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    plan_runs(cfg, [50], 1, None, out)
    labeled = Path(labeller_of(cfg)[1].labeled_ann_file)
    content = json.loads(labeled.read_text())
    content['images'].append(dict(id=99, file_name='99.png', height=9, width=9))
    labeled.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r'with other content of .*train\.json; give another'):
        plan_runs(cfg, [50], 1, None, out)
