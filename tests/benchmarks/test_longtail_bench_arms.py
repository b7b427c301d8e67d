"""Arms differ in what they name and in nothing else."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from benchmarks.longtail.arms import (
    ARMS,
    CONFIGS,
    MAIN_ARMS,
    arm_config,
    burn_in_config,
    differences,
    placed,
    settings_of,
    stem_config,
)
from benchmarks.longtail.job import comparable
from benchmarks.longtail.knobs import KNOBS
from benchmarks.longtail.presets import PRESETS
from mmdet_softpl.datasets.rare_copy_paste_dataset import RareCopyPasteDataset
from mmdet_softpl.engine import RareBoostPseudoLabeler
from mmdet_softpl.models import SmoothedCEHead
from mmdet_softpl.models.semi_train_cfg import DEFAULTS
from mmdet_softpl.shipped_configs import config_path

HEAD = 'model.detector.roi_head.bbox_head.'
SEMI = 'model.semi_train_cfg.'
LABELER = 'custom_hooks.2.'
OWNERS = {
    'box head': HEAD,
    'labeler': LABELER,
    'detector': SEMI,
    'data set': 'train_dataloader.dataset.',
}
LABELED = 'train_dataloader.dataset.datasets.0'
EXPECTED = {
    '1': {f'{HEAD}smoothing_mode', f'{HEAD}smoothing'},
    '2': {f'{HEAD}smoothing_mode'},
    '3': {'train_dataloader.batch_sampler.unlabeled'},
    '4': {f'{HEAD}smoothing_mode', f'{HEAD}smoothing'},
    '5': {f'{SEMI}label_mode'},
    '5-plain': {f'{HEAD}smoothing_mode', f'{HEAD}smoothing'},
    '5v': {f'{SEMI}mirror'},
    '6a': {
        f'{LABELER}{key}'
        for key in (
            'threshold_mode',
            'alpha',
            'thr_range',
            'boost_gamma',
            'max_boost',
            'align_rate',
        )
    },
    '6': {f'{LABELER}prototype_weight'},
    '7': {f'{SEMI}calibration', f'{SEMI}calibration_interval'},
    '8': {f'{SEMI}student_correction'},
}


@pytest.fixture(scope='module')
def configs() -> dict[str, Config]:
    return {arm: arm_config(arm, PRESETS['cpu'], 0) for arm in ARMS}


@pytest.mark.parametrize('arm', EXPECTED)
def test_an_arm_adds_what_it_names(configs: dict[str, Config], arm: str) -> None:
    previous = ARMS[arm].previous
    assert previous is not None
    found = differences(configs[previous].to_dict(), configs[arm].to_dict())
    assert set(found) == EXPECTED[arm]


@pytest.mark.parametrize('arms', [('0', '0-true'), ('0-normed', '0-true-normed')], ids='-'.join)
def test_the_bounds_differ_in_the_second_set_alone(
    configs: dict[str, Config], arms: tuple[str, str]
) -> None:
    plain, bound = (configs[arm].to_dict() for arm in arms)
    second = 'train_dataloader.dataset.datasets.1'
    found = differences(plain, bound)
    assert {key for key in found if not key.startswith(second)} == {
        'train_dataloader.batch_sampler.unlabeled'
    }
    labeled, everything = bound['train_dataloader']['dataset']['datasets']
    assert set(differences(labeled, everything)) == {'ann_file', 'data_prefix.img'}


@pytest.mark.parametrize('arm', ['0-rfs', '7-rfs'])
def test_the_rfs_arms_differ_in_sampling_alone(configs: dict[str, Config], arm: str) -> None:
    plain, balanced = configs[arm[0]].to_dict(), configs[arm].to_dict()
    assert all(key.startswith(LABELED) for key in differences(plain, balanced))
    wrapped = balanced['train_dataloader']['dataset']['datasets'][0]
    assert wrapped['type'] == 'ClassBalancedDataset'
    assert differences(plain['labeled_dataset'], wrapped['dataset']) == {}


@pytest.mark.parametrize('arm', ['0-normed', '2-normed', '3-normed', '7-normed'])
def test_the_normed_arms_differ_in_the_classifier_alone(
    configs: dict[str, Config], arm: str
) -> None:
    found = differences(configs[arm[0]].to_dict(), configs[arm].to_dict())
    assert found == {f'{HEAD}cls_predictor_cfg.type': ('Linear', 'NormedLinear')}


@pytest.mark.parametrize('arm', ['3', '7'])
def test_the_shipped_arms_differ_in_the_weight_of_unlabelled_images_alone(
    configs: dict[str, Config], arm: str
) -> None:
    normed, shipped = (configs[f'{arm}-{name}'].to_dict() for name in ('normed', 'shipped'))
    assert differences(normed, shipped) == {f'{SEMI}unsup_weight': (2.0, 1.0)}


def test_the_held_out_arm_differs_in_files_and_calibration_alone(
    configs: dict[str, Config],
) -> None:
    found = differences(configs['7'].to_dict(), configs['7-heldout'].to_dict())
    changed = {key for key in found if not key.startswith('custom_hooks.4')}
    assert changed == {
        'fit_file',
        'labeled_dataset.ann_file',
        f'{LABELED}.ann_file',
        f'{LABELER}labeled_ann_file',
    }


@pytest.mark.parametrize('arm', ['0-seesaw', '2-seesaw', '7-seesaw'])
def test_the_seesaw_arms_differ_in_loss_and_classifier_alone(
    configs: dict[str, Config], arm: str
) -> None:
    found = differences(configs[arm[0]].to_dict(), configs[arm].to_dict())
    loss = f'{HEAD}loss_cls.'
    assert {key for key in found if not key.startswith(loss)} == {f'{HEAD}cls_predictor_cfg.type'}
    assert found[f'{loss}type'] == ('CrossEntropyLoss', 'SeesawLoss')
    assert (
        found[f'{loss}num_classes'][1] == configs[arm].model.detector.roi_head.bbox_head.num_classes
    )


def test_tuned_arms_differ_in_the_labeller_and_the_temperature(configs: dict[str, Config]) -> None:
    found = differences(configs['7'].to_dict(), configs['7-tuned'].to_dict())
    assert {key for key in found if not key.startswith(LABELER)} == {f'{HEAD}temperature'}
    found = differences(configs['7-defaults'].to_dict(), configs['7-tuned-kept'].to_dict())
    assert found and all(key.startswith(LABELER) for key in found)
    for tuned in ('7-shipped-tuned', '7-shipped-tuned-225'):
        found = differences(configs['7-shipped'].to_dict(), configs[tuned].to_dict())
        assert {key for key in found if not key.startswith(LABELER)} == {f'{SEMI}label_temperature'}


def test_the_peer_differs_in_teacher_and_labeller_alone(configs: dict[str, Config]) -> None:
    found = differences(configs['3'].to_dict(), configs['soft-teacher'].to_dict())
    assert all(key.startswith(('model.type', SEMI, 'custom_hooks.')) for key in found)
    name = 'soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py'
    shipped = Config.fromstring(f"_base_ = 'mmdet::{name}'\n", file_format='.py')
    expected = settings_of(shipped)['model']['semi_train_cfg']
    assert settings_of(configs['soft-teacher'])['model']['semi_train_cfg'] == expected


def test_who_uses_unlabelled_images(configs: dict[str, Config]) -> None:
    for name, arm in ARMS.items():
        assert configs[name].train_dataloader.batch_sampler.unlabeled == arm.unlabeled


@pytest.mark.parametrize(('stage', 'parts'), [('stem', 5), ('burn_in', 18)])
def test_a_shared_part_is_the_same_supervised_training(
    configs: dict[str, Config], stage: str, parts: int
) -> None:
    """What the first iterations depend on: network, labelled data, optimiser, schedule, seed."""
    first: dict[str, tuple[str, dict]] = {}
    for name, arm in ARMS.items():
        if stage == 'stem':
            cfg = stem_config(configs[name], PRESETS['cpu']).to_dict()
            assert cfg['train_cfg']['max_iters'] == PRESETS['cpu'].stem_iters
        else:
            cfg = burn_in_config(configs[name], PRESETS['cpu']).to_dict()
            assert cfg['train_cfg']['max_iters'] == PRESETS['cpu'].supervised_iters
        # By default mmengine would end it with this part, and the arms would take that over.
        assert cfg['param_scheduler'][1]['end'] == PRESETS['cpu'].max_iters
        part = {
            key: cfg[key] for key in ('optim_wrapper', 'param_scheduler', 'randomness', 'train_cfg')
        }
        part.update(
            detector=cfg['model']['detector'],
            labeled=cfg['train_dataloader']['dataset']['datasets'][0],
            batch_size=cfg['train_dataloader']['batch_size'],
            teacher=cfg['custom_hooks'][0],
        )
        other, expected = first.setdefault(getattr(arm, stage), (name, part))
        assert differences(expected, part) == {}, f'{name} and {other}'
    assert len(first) == parts


def test_a_plain_classifier_is_what_older_runs_do_not_name(configs: dict[str, Config]) -> None:
    assert 'cls_predictor_cfg' not in str(comparable(configs['7']))
    head = comparable(configs['7-normed'])['model']['detector']['roi_head']['bbox_head']
    assert head['cls_predictor_cfg'] == dict(type='NormedLinear')


def test_every_config_is_an_arm() -> None:
    assert {path.stem.removeprefix('arm-') for path in CONFIGS.glob('arm-*.py')} == set(MAIN_ARMS)


def test_a_knob_arm_turns_its_knob_alone(configs: dict[str, Config]) -> None:
    values = [knob.values for knobs in KNOBS.values() for knob in knobs.values()]
    assert len(ARMS) - len(MAIN_ARMS) == sum(map(len, values))
    for name in set(ARMS) - set(MAIN_ARMS):
        turned, (knob, value) = ARMS[name].previous, ARMS[name].knob
        ((key, found),) = differences(
            settings_of(configs[turned]), settings_of(configs[name])
        ).items()
        assert key == OWNERS[KNOBS[turned][knob].owner] + knob
        before, after = found
        if before is None:
            head, data_set = (
                inspect.signature(owner).parameters
                for owner in (SmoothedCEHead, RareCopyPasteDataset)
            )
            before = DEFAULTS[knob] if knob in DEFAULTS else {**head, **data_set}[knob].default
        if isinstance(before, list):
            # By group, rare classes first.
            before = before[0]
        assert (before, after) == (KNOBS[turned][knob].default, value)


@pytest.mark.parametrize('arm', ['0', '8', '7-seesaw', 'soft-teacher'])
def test_models_build_at_any_size(arm: str) -> None:
    for name in ('tiny', 'gpu'):
        preset = PRESETS[name]
        cfg = arm_config(arm, preset, 0)
        init_default_scope('mmdet')
        head = MODELS.build(cfg.model).student.roi_head.bbox_head
        assert head.num_classes == preset.data.num_classes


def test_paths_are_placed(configs: dict[str, Config]) -> None:
    cfg = placed(configs['7-rfs'], Path('/somewhere'))
    text = str(cfg.to_dict())
    assert 'DATA/' not in text and 'data/longtail_shapes' not in text
    assert cfg.custom_hooks[2].labeled_ann_file == '/somewhere/annotations/train.json'
    assert 'DATA/' in str(configs['7-rfs'].to_dict())


def test_differences() -> None:
    old = dict(a=1, b=[1, dict(c=2)], d=dict(e=3))
    new = dict(a=1, b=[1, dict(c=4)], f=5)
    assert differences(old, new) == {'b.1.c': (2, 4), 'd': (dict(e=3), None), 'f': (None, 5)}


def labeller_settings(hook: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a labeller that are no file and no matter of length."""
    parameters = inspect.signature(RareBoostPseudoLabeler).parameters
    return {
        key: hook.get(key, parameter.default)
        for key, parameter in parameters.items()
        if key not in ('labeled_ann_file', 'interval')
    }


def test_the_full_method_has_the_settings_of_the_shipped_configs(
    configs: dict[str, Config],
) -> None:
    name = 'calibrated-soft-teacher_mask-rcnn_r50_fpn_180k_semi-0.1-coco'
    shipped, arm = Config.fromfile(config_path(name)), configs['7']
    found, given = (cfg.model.semi_train_cfg for cfg in (arm, shipped))
    settings, expected = DEFAULTS | dict(found), DEFAULTS | dict(given)
    # As many labelled batches in a refresh: its trainings are a hundredth as long.
    batches = settings['refresh_interval'] / settings['calibration_interval']
    assert batches == expected['refresh_interval'] / expected['calibration_interval']
    for key in ('refresh_interval', 'calibration_interval'):
        del settings[key], expected[key]
    # The arms were begun with a weight of 2; with that of 1 it is arm 7-unsup_weight-1.
    assert (settings.pop('unsup_weight'), expected.pop('unsup_weight')) == (2.0, 1.0)
    assert ARMS['7-unsup_weight-1'].previous == '7'
    assert settings == expected
    assert labeller_settings(arm.custom_hooks[2]) == labeller_settings(shipped.custom_hooks[-1])


def test_the_arm_of_the_defaults_has_them(configs: dict[str, Config]) -> None:
    found = configs['7-defaults']
    given = found.model.semi_train_cfg
    changed = {key for key, value in given.items() if value != DEFAULTS[key]}
    assert changed == {'refresh_interval', 'unsup_weight'}
    mine, defaults = (labeller_settings(hook) for hook in (found.custom_hooks[2], {}))
    assert {key for key in mine if mine[key] != defaults[key]} == {'boost_gamma', 'max_boost'}
