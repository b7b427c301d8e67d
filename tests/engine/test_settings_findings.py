"""What a training refuses, an inspection finds: each fault of a config that trains."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import HOOKS, MODELS, DefaultScope

import mmdet_softpl  # noqa: F401
from mmdet_softpl.datasets.config_sets import configured_sets
from mmdet_softpl.datasets.findings import ERROR, WARNING, Finding
from mmdet_softpl.datasets.set_contents import read_set
from mmdet_softpl.engine.derived_settings import LabellerSettings, training_length
from mmdet_softpl.engine.settings_findings import (
    EARLY_PASSES,
    boost_findings,
    settings_findings,
)
from mmdet_softpl.functional import frequency_boost
from mmdet_softpl.shipped_configs import config_path
from tests.support.tiny_data import write_data

DEMO = 'calibrated-soft-teacher_mask-rcnn_r18_longtail-shapes'
CLASSES = tuple(f'c{i}' for i in range(12))


@pytest.fixture(scope='module')
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The demo's config on a tiny data set of as many classes."""
    root = write_data(tmp_path_factory.mktemp('data'), CLASSES, num_train=12)
    cfg = Config.fromfile(str(config_path(DEMO)))
    annotations = str(root / 'annotations/instances_train2017.json')
    coco = dict(
        data_root='', ann_file=annotations, data_prefix=dict(img=str(root / 'train2017')),
        metainfo=dict(classes=CLASSES),
    )  # fmt: skip
    labeled, unlabeled = cfg.train_dataloader.dataset.datasets
    labeled.dataset.update(coco)
    unlabeled.update(data_root=str(root / 'unlabeled2017'), ann_file='', data_prefix=dict(img=''))
    cfg.custom_hooks[1].labeled_ann_file = annotations
    cfg.val_dataloader.dataset.update(coco)
    cfg.test_dataloader.dataset.update(coco)
    return cfg


def found(cfg: Config) -> list[Finding]:
    sets = tuple(read_set(one) for one in configured_sets(cfg))
    return settings_findings(cfg, sets, training_length(cfg, sets))


def test_nothing_is_found_in_what_trains(config: Config) -> None:
    cfg = copy.deepcopy(config)
    assert [f for f in found(cfg) if f.severity == ERROR] == []


@pytest.mark.parametrize(
    'index, change, subject, words',
    [
        (1, dict(thr_range=(0.9, 0.2)), 'RareBoostPseudoLabeler', ['thr_range[1]', '0.2']),
        (1, dict(threshold_mode='priors'), 'RareBoostPseudoLabeler', ['priors', 'quantile']),
        (1, dict(thr_rnge=(0.2, 0.9)), 'RareBoostPseudoLabeler', ['thr_rnge=(0.2, 0.9)']),
        (0, dict(momentum=1.5), 'BurnInMeanTeacherHook', ['momentum', '1.5']),
        (0, dict(type='BurnInMeanTeacherHok'), 'BurnInMeanTeacherHok', ['no hook of this name']),
        (0, dict(supervised_iters='100'), 'BurnInMeanTeacherHook', ["'100'"]),
    ],
)
def test_hooks(config: Config, index: int, change: dict, subject: str, words: list[str]) -> None:
    cfg = copy.deepcopy(config)
    cfg.custom_hooks[index].update(change)
    (finding,) = [f for f in found(cfg) if f.severity == ERROR]
    assert subject in finding.subject and all(word in finding.detail for word in words)
    # The host refuses it as well.
    with DefaultScope.overwrite_default_scope('mmdet'), pytest.raises(Exception):  # noqa: B017
        HOOKS.build(cfg.custom_hooks[index])


@pytest.mark.parametrize(
    'change, words',
    [
        (dict(semi_train_cfg=dict(unsup_wait=1.0)), ['unsup_wait', 'unsup_weight']),
        (dict(semi_train_cfg=dict(score_thr=1.2)), ['score_thr', '1.2']),
        (dict(semi_test_cfg=dict(predict_on='pupil')), ['pupil']),
        (dict(detector=dict(roi_head=dict(bbox_head=dict(smoothing=2.0)))), ['smoothing', '2.0']),
        (
            dict(
                detector=dict(
                    roi_head=dict(bbox_head=dict(smoothing_mode='file', similarity_file='no.npy'))
                )
            ),
            ['similarity_file', 'no.npy'],
        ),
        (dict(detector=dict(type='MaskRCN')), ['MaskRCN']),
        (dict(teacher_checkpoint='nowhere.pth'), ['nowhere.pth']),
        (dict(semi_train_cfg=dict(unsup_weight='1')), ['unsup_weight', "'1'"]),
        (dict(semi_train_cfg=dict(unsup_weight=None)), ['unsup_weight', 'None']),
    ],
)
def test_model(config: Config, change: dict, words: list[str]) -> None:
    cfg = copy.deepcopy(config)
    cfg.merge_from_dict(dict(model=change))
    (finding,) = [f for f in found(cfg) if f.severity == ERROR]
    assert finding.subject == 'model' and all(word in finding.detail for word in words)
    with DefaultScope.overwrite_default_scope('mmdet'), pytest.raises(Exception):  # noqa: B017
        MODELS.build(cfg.model).train()


@pytest.mark.parametrize(
    'step, words',
    [
        (dict(type='RandomShift'), ['RandomShift', 'homography_matrix']),
        (dict(type='RandomFlop', prob=0.5), ['RandomFlop']),
    ],
)
def test_pipelines(config: Config, step: dict, words: list[str]) -> None:
    cfg = copy.deepcopy(config)
    branches = next(
        t for t in cfg.train_dataloader.dataset.datasets[1].pipeline if t.type == 'MultiBranch'
    )
    branches.unsup_student.insert(0, step)
    (finding,) = [f for f in found(cfg) if f.severity == ERROR]
    assert finding.subject == 'train_dataloader, set 1'
    assert all(word in finding.detail for word in words)


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        (dict(balance=2), ['balance', '[0, 1]', '2']),
        (dict(balanse=1), ['balanse']),
        ({}, ['with_mask=True', 'instances_train2017.json']),
    ],
)
def test_pasting(config: Config, changes: dict, words: list[str]) -> None:
    cfg = copy.deepcopy(config)
    pasted = cfg.train_dataloader.dataset
    pasted.update(changes)
    if not changes:
        pasted.datasets[0].dataset.pipeline[1].with_mask = False
        cfg.model.detector.roi_head.pop('mask_head')
    refused = [f for f in found(cfg) if f.severity == ERROR and 'Paste' in f.subject]
    assert len(refused) == 1 and all(word in refused[0].detail for word in words)


def test_a_list_of_hooks_that_lost_the_mean_teacher(config: Config) -> None:
    cfg = copy.deepcopy(config)
    cfg.custom_hooks = [dict(type='EMAHook')]
    (finding,) = [f for f in found(cfg) if f.severity == ERROR]
    assert (finding.subject, finding.kind) == ('custom_hooks', 'no mean teacher')
    # Given weights may be meant to stay.
    cfg.load_from = __file__
    assert [f.severity for f in found(cfg) if f.kind == 'no mean teacher'] == [WARNING]
    cfg.custom_hooks = [dict(type='MeanTeacherHook')]
    assert [f for f in found(cfg) if f.kind == 'no mean teacher'] == []


def test_a_training_that_ends_before_the_unlabelled_images(config: Config) -> None:
    cfg = copy.deepcopy(config)
    cfg.train_cfg.max_iters = 300
    assert cfg.custom_hooks[0].supervised_iters == 400
    (finding,) = found(cfg)
    assert finding.kind == 'unlabelled images that never count' and finding.severity == WARNING
    sets = tuple(read_set(one) for one in configured_sets(cfg))
    length = training_length(cfg, sets)
    assert length is not None and length.unlabelled_passes == 0


def test_masks_that_the_detector_does_not_predict(config: Config) -> None:
    cfg = copy.deepcopy(config)
    cfg.merge_from_dict(dict(model=dict(detector=dict(roi_head=dict(mask_head=None)))))
    (finding,) = [f for f in found(cfg) if f.severity == ERROR]
    assert finding.subject == 'val_evaluator' and "metric='bbox'" in finding.detail


@pytest.mark.parametrize('hook', [dict(momentum=0.1), 'RandomStateHook', None])
def test_a_hook_without_a_type(config: Config, hook: Any) -> None:
    cfg = copy.deepcopy(config)
    cfg.custom_hooks[2] = hook
    (finding,) = settings_findings(cfg, (), None)
    assert finding.subject == 'custom_hooks[2]' and 'has no type' in finding.detail


def test_a_scope_and_an_own_evaluator(config: Config) -> None:
    cfg = copy.deepcopy(config)
    cfg.custom_hooks[2]._scope_ = 'mmdet'
    assert [f for f in found(cfg) if f.severity == ERROR] == []
    cfg.default_hooks.checkpoint.save_best = 'teacher/longtail/segm_AP'
    cfg.val_evaluator = dict(type='CocoMetric')
    (finding,) = found(cfg)
    assert finding.subject == 'default_hooks' and 'teacher/coco/...' in finding.detail


def test_a_model_that_is_none(config: Config) -> None:
    (finding,) = settings_findings(dict(model='x'), (), None)
    assert finding.subject == 'model'


def test_batch_norm_of_a_distributed_training(config: Config) -> None:
    cfg = copy.deepcopy(config)
    pretended = 'Default process group has not been initialized'

    class Waits(torch.nn.Module):
        def __init__(self, **kwargs: Any) -> None:
            raise ValueError(pretended)

    with MODELS.switch_scope_and_registry('mmdet') as registry:
        registry.register_module(name='WaitsForRanks', module=Waits, force=True)
    cfg.model = dict(type='WaitsForRanks')
    assert [f for f in found(cfg) if f.subject == 'model'] == []


@pytest.mark.parametrize('key, value', [('weight', 1.0), ('passes', 2.0), ('load_from', 'a.pth')])
def test_unlabelled_images_that_come_early(config: Config, key: str, value: Any) -> None:
    cfg = copy.deepcopy(config)
    cfg.model.semi_train_cfg.unsup_weight = 2.0
    sets = tuple(read_set(one) for one in configured_sets(cfg))
    labeled = next(s for s in sets if s.configured.role == 'labelled')
    length = training_length(cfg, sets)
    assert length is not None
    few = EARLY_PASSES * labeled.epoch_images / length.labelled_per_batch
    cfg.custom_hooks[0].supervised_iters = int(few) - 1
    (warning,) = found(cfg)
    assert warning.severity == WARNING and 'unsup_weight=2' in warning.detail
    if key == 'weight':
        cfg.model.semi_train_cfg.unsup_weight = value
    elif key == 'passes':
        cfg.custom_hooks[0].supervised_iters = int(few) + 1
    else:
        cfg.load_from = value
    assert found(cfg) == []


def test_data_that_is_not_there_is_no_second_finding(config: Config, tmp_path: Path) -> None:
    cfg = copy.deepcopy(config)
    cfg.custom_hooks[1].labeled_ann_file = str(tmp_path / 'none.json')
    labeled = cfg.train_dataloader.dataset.datasets[0].dataset
    labeled.ann_file = cfg.custom_hooks[1].labeled_ann_file
    cfg.train_dataloader.dataset.datasets[1].data_root = str(tmp_path / 'none')
    assert [f for f in found(cfg) if f.severity == ERROR] == []


@pytest.mark.parametrize(
    ('counts', 'gamma', 'said'),
    [
        ([1, 1, 1, 40, 0], 1.0, '3 of 4 classes are in 1 labelled image, and'),
        ([2, 2, 2, 2, 40], 1.0, '4 of 5 classes are in 2 labelled images, and'),
        # Not asked for; the rarest are boosted; nothing is rare; nothing is there.
        ([1, 1, 1, 40, 0], 0.0, None),
        ([1, 1, 4, 6, 40], 1.0, None),
        ([5, 5, 5, 9, 5], 1.0, None),
        ([0, 0], 1.0, None),
    ],
)
def test_boost_that_boosts_nothing(counts: list[int], gamma: float, said: str | None) -> None:
    images = torch.tensor(counts)
    boosts = frequency_boost(images, gamma=gamma, max_boost=16.0).numpy()
    arguments = dict(boost_gamma=gamma, max_boost=16.0)
    labeller = LabellerSettings(arguments, boosts, None)
    # A boost that may not boost is none either.
    unable = LabellerSettings(dict(arguments, max_boost=1.0), boosts, None)
    assert boost_findings(unable, images.numpy()) == []
    found = boost_findings(labeller, images.numpy())
    assert len(found) == (said is not None)
    if said is not None:
        assert said in found[0].detail and found[0].severity == WARNING
