"""Every shipped config parses, builds and steps on tiny data; one per data set also evaluates.

The data is laid out as the configs' comments say, and split by the command that they name.
Networks are narrow, except where it is asked whether their parts fit; class counts are real.
"""

from __future__ import annotations

import copy
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.datasets import CocoDataset, LVISV1Dataset
from mmdet.registry import HOOKS, METRICS, MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner, set_random_seed
from torch import nn

from mmdet_softpl.__main__ import main
from mmdet_softpl.datasets.longtail_shapes import generate_longtail_shapes
from mmdet_softpl.datasets.shape_plan import ShapesConfig
from mmdet_softpl.engine import BurnInMeanTeacherHook, RareBoostPseudoLabeler
from mmdet_softpl.engine.burn_in_mean_teacher_hook import average_teacher, copy_teacher
from mmdet_softpl.models import CalibratedSoftTeacher, SmoothedCEHead
from mmdet_softpl.shipped_configs import config_names, config_root
from tests.support.tiny_data import write_data
from tests.support.tiny_runs import assert_trained, make_tiny, train

FOLDER, PREFIX = 'calibrated_soft_teacher/', 'calibrated-soft-teacher_'
RECIPES = [name for name in config_names() if name.startswith(FOLDER)]
# What a name says -> what its backbone must be.
ARCHITECTURES = {
    'mask-rcnn_r50_fpn': dict(type='ResNet', depth=50),
    'mask-rcnn_r101_fpn': dict(type='ResNet', depth=101),
    'cascade-mask-rcnn_r50_fpn': dict(type='ResNet', depth=50),
    'mask-rcnn_swin-t-p4-w7_fpn': dict(type='SwinTransformer', embed_dims=96),
}
LVIS_SHARES = ('semi-0.01', 'semi-0.05', 'semi-0.1')
COCO_SHARES = ('semi-0.01', 'semi-0.02', 'semi-0.05', 'semi-0.1')
EVALUATED = [
    f'{FOLDER}{PREFIX}mask-rcnn_r50_fpn_180k_semi-0.1-lvis-v1.py',
    f'{FOLDER}{PREFIX}mask-rcnn_r50_fpn_180k_semi-0.1-coco.py',
    *(name for name in config_names() if name.startswith('demo/')),
]


def _split(ann_file: Path, percents: tuple[int, ...]) -> None:
    out = str(ann_file.parents[1] / 'semi_anns')
    for percent in percents:
        arguments = ['split', str(ann_file), '--percent', str(percent), '--seed', '1']
        assert main([*arguments, '--out', out]) == 0


def _write_custom(folder: Path) -> Path:
    """The layout that the example for own data describes."""
    raw = write_data(folder / 'raw', ('scratch', 'dent', 'hole', 'stain'))
    root = folder / 'custom'
    root.mkdir()
    shutil.copytree(raw / 'train2017', root / 'images')
    shutil.copytree(raw / 'val2017', root / 'images', dirs_exist_ok=True)
    shutil.copytree(raw / 'unlabeled2017', root / 'unlabelled' / 'deeper')
    shutil.copy(raw / 'annotations/instances_train2017.json', root / 'labelled.json')
    shutil.copy(raw / 'annotations/instances_val2017.json', root / 'val.json')
    assert main(['split', str(root / 'labelled.json'), '--percent', '90', '--held-out']) == 0
    return root


@pytest.fixture(scope='module')
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Data roots by number of classes."""
    folder = tmp_path_factory.mktemp('data')
    lvis = write_data(folder / 'lvis', LVISV1Dataset.METAINFO['classes'], True, num_train=200)
    _split(lvis / 'annotations/lvis_v1_train.json', (1, 5, 10))
    coco = write_data(folder / 'coco', CocoDataset.METAINFO['classes'], num_train=200)
    _split(coco / 'annotations/instances_train2017.json', (1, 2, 5, 10))
    shapes = ShapesConfig(num_train=28, num_unlabeled=8, num_val=8)
    generate_longtail_shapes(folder / 'shapes', shapes, progress=False, workers=1)
    return {1203: lvis, 80: coco, 12: folder / 'shapes', 4: _write_custom(folder)}


@pytest.fixture(scope='module')
def models() -> dict[str, CalibratedSoftTeacher]:
    """Models that were built already, by their config: shares and depths have the same one."""
    return {}


def heads_of(cfg: Config) -> list[Any]:
    head = cfg.model.detector.roi_head.bbox_head
    return head if isinstance(head, list) else [head]


def tiny(name: str, roots: dict[int, Path], work_dir: Path) -> Config:
    """The config for the data of its classes, so small that it steps in a second."""
    cfg = Config.fromfile(config_root() / name)
    classes = heads_of(cfg)[-1].num_classes
    cfg = make_tiny(cfg, roots[classes], work_dir)
    # An untrained network keeps each class of each proposal; NMS over them is all of the time.
    if classes == 1203:
        cfg.model.detector.test_cfg.rpn.max_per_img = 8
        cfg.model.semi_train_cfg.max_per_img = 10
    return cfg


def build(cfg: Config, models: dict[str, CalibratedSoftTeacher]) -> CalibratedSoftTeacher:
    key = repr(cfg.model)
    if key not in models:
        torch.manual_seed(0)
        models[key] = MODELS.build(cfg.model)
    # A copy, so that no test depends on which ones ran before it.
    return copy.deepcopy(models[key]).train()


def last_layers(model: CalibratedSoftTeacher) -> list[nn.Parameter]:
    """Weights of the student's classifiers and mask logits, of all stages."""
    return [
        parameter
        for name, parameter in model.student.roi_head.named_parameters()
        if name.endswith(('fc_cls.weight', 'conv_logits.weight'))
    ]


def test_file_names_are_unique() -> None:
    """``config-path NAME`` and mim find a config by its file name."""
    names = [path.name for path in config_root().rglob('*.py')]
    assert len(names) == len(set(names))


def test_every_architecture_and_share_has_a_recipe() -> None:
    wanted = {f'{a}_180k_{share}-lvis-v1' for a in ARCHITECTURES for share in LVIS_SHARES}
    wanted |= {f'{a}_180k_lvis-v1-coco-unlabeled' for a in ARCHITECTURES}
    wanted |= {f'mask-rcnn_r50_fpn_180k_{share}-coco' for share in COCO_SHARES}
    wanted |= {f'{a}_180k_semi-0.1-coco' for a in ARCHITECTURES}
    wanted |= {f'mask-rcnn_r50_fpn_custom-coco-format{tail}' for tail in ('', '-held-out')}
    assert set(RECIPES) == {f'{FOLDER}{PREFIX}{name}.py' for name in wanted}


@pytest.mark.parametrize('name', RECIPES)
def test_recipe_is_what_its_name_says(name: str) -> None:
    cfg = Config.fromfile(config_root() / name)
    architecture = re.sub('_(180k|custom).*', '', name.removeprefix(FOLDER + PREFIX))
    detector, dataset = cfg.model.detector, cfg.labeled_dataset
    for key, value in ARCHITECTURES[architecture].items():
        assert detector.backbone[key] == value
    assert detector.type == ('CascadeRCNN' if 'cascade' in name else 'MaskRCNN')
    optimizer = cfg.optim_wrapper.optimizer.type
    assert optimizer == ('AdamW' if 'swin' in name else 'SGD')
    classes = 1203 if 'lvis' in name else 4 if 'custom' in name else 80
    assert {head.num_classes for head in heads_of(cfg)} == {classes}
    assert {head.type for head in heads_of(cfg)} == {'mmdet_softpl.SmoothedCEHead'}
    assert detector.roi_head.mask_head.num_classes == classes
    assert detector.test_cfg.rcnn.max_per_img == (300 if classes == 1203 else 100)
    share = re.search(r'semi-([\d.]+)-', name)
    if share:
        assert dataset.ann_file.endswith(f'.1@{100 * float(share[1]):g}.json')
        assert cfg.unlabeled_dataset.ann_file == dataset.ann_file.replace(
            '.json', '-unlabeled.json'
        )
    # The labeller, the metric and the training read the same file.
    hooks = ['BurnInMeanTeacherHook', 'QuickResumeHook', 'RandomStateHook', 'ValidationRecordHook']
    hooks.append('RareBoostPseudoLabeler')
    if name.endswith('-held-out.py'):
        hooks.append('HeldOutCalibrationHook')
    assert [hook.type.split('.')[-1] for hook in cfg.custom_hooks] == hooks
    labeled = cfg.custom_hooks[4].labeled_ann_file
    assert labeled == dataset.data_root + dataset.ann_file
    assert cfg.val_evaluator.labeled_ann_file == cfg.test_evaluator.labeled_ann_file == labeled
    source, unlabeled = cfg.train_dataloader.dataset.datasets
    assert (source.type == 'ClassBalancedDataset') == (classes == 1203)
    assert (source.dataset if classes == 1203 else source) == dataset
    both = cfg.train_dataloader.dataset
    assert both.type == 'mmdet_softpl.RareCopyPasteDataset'
    assert both.get('balance', 1.0) == (0.5 if classes == 1203 else 1.0)
    assert unlabeled == cfg.unlabeled_dataset


@pytest.mark.parametrize('name', RECIPES)
def test_recipe_steps(
    name: str, roots: dict[int, Path], models: dict[str, CalibratedSoftTeacher], tmp_path: Path
) -> None:
    cfg = tiny(name, roots, tmp_path)
    # Few objects are left at this size; with these seeds the strong views show some of them.
    set_random_seed(3)
    with DefaultScope.overwrite_default_scope('mmdet'):
        for hook in cfg.custom_hooks:
            HOOKS.build(hook)
        METRICS.build(cfg.val_evaluator)
        validation = Runner.build_dataloader(cfg.val_dataloader).dataset
        assert len(validation) == 2
        batch = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
        model = build(cfg, models)
        assert len(validation.metainfo['classes']) == model.num_classes
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
        before = [parameter.detach().clone() for parameter in last_layers(model)]
        logs = model.train_step(batch, optimizer)
    assert all(math.isfinite(value) for value in map(float, logs.values())), logs
    stages = ('s0.', 's1.', 's2.') if 'cascade' in name else ('',)
    for stage in stages:
        for part in ('loss_cls', 'loss_bbox', 'loss_mask'):
            assert f'sup_{stage}{part}' in logs
            assert f'unsup_{stage}{part}' in logs
        assert logs[f'unsup_{stage}loss_mask'] > 0
    for old, new in zip(before, last_layers(model), strict=True):
        assert not torch.equal(old, new)


def test_the_held_out_example_trains(roots: dict[int, Path], tmp_path: Path) -> None:
    """Through the runner: the hook checks its part against the training set and looks at it."""
    cfg = tiny(f'{FOLDER}{PREFIX}mask-rcnn_r50_fpn_custom-coco-format-held-out.py', roots, tmp_path)
    loader = cfg.custom_hooks[-1].dataloader
    loader.update(num_workers=0)
    _, losses, metrics = train(cfg)
    assert_trained(losses, metrics)
    aside = json.loads((roots[4] / 'labelled.1@90-heldout.json').read_text())
    assert len(aside['images']) == 4
    checkpoint = torch.load(tmp_path / 'iter_3.pth', weights_only=False)
    assert checkpoint['state_dict']['class_state.reliability'].sum() > 0


@pytest.mark.parametrize('architecture', list(ARCHITECTURES))
def test_full_size_parts_fit(architecture: str) -> None:
    """Backbone, neck and heads as shipped, without weights from the net."""
    path = config_root() / f'{FOLDER}{PREFIX}{architecture}_180k_semi-0.1-lvis-v1.py'
    cfg = Config.fromfile(path)
    pretrained = cfg.model.detector.backbone.pop('init_cfg')
    assert pretrained.type == 'Pretrained'
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model).eval()
    with torch.no_grad():
        levels = model.student.extract_feat(torch.zeros(1, 3, 64, 64))
        heads = model.student.roi_head.bbox_head
        for head in heads if isinstance(heads, nn.ModuleList) else [heads]:
            assert isinstance(head, SmoothedCEHead)
            scores, deltas = head(torch.zeros(2, 256, 7, 7))
            assert scores.shape == (2, 1204)
            assert deltas.shape == (2, 4 if 'cascade' in architecture else 4 * 1203)
    assert [level.shape[1:] for level in levels] == [(256, s, s) for s in (16, 8, 4, 2, 1)]


@pytest.mark.parametrize(
    'architecture', ['cascade-mask-rcnn_r50_fpn', 'mask-rcnn_swin-t-p4-w7_fpn']
)
def test_bfloat16_trains_norms_and_the_teacher_follows(
    architecture: str,
    roots: dict[int, Path],
    models: dict[str, CalibratedSoftTeacher],
    tmp_path: Path,
) -> None:
    """Mixed precision, drop path and trainable LayerNorm through three steps and the average."""
    cfg = tiny(f'{FOLDER}{PREFIX}{architecture}_180k_semi-0.1-coco.py', roots, tmp_path)
    cfg.optim_wrapper.optimizer.lr = 0.01
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        batches = iter(Runner.build_dataloader(cfg.train_dataloader, seed=0))
        model = build(cfg, models)
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
        copy_teacher(model.student, model.teacher)
        start = {name: value.detach().clone() for name, value in model.student.named_parameters()}
        for _ in range(3):
            # As AmpOptimWrapper does, which refuses to work without a GPU.
            data = model.data_preprocessor(next(batches), True)
            with torch.autocast('cpu', torch.bfloat16):
                loss, logs = model.parse_losses(model(**data, mode='loss'))
            assert all(math.isfinite(value) for value in map(float, logs.values())), logs
            optimizer.update_params(loss)
    average_teacher(model.student, model.teacher, 0.25)
    teacher = dict(model.teacher.named_parameters())
    for name, value in model.student.named_parameters():
        assert value.dtype == torch.float32
        assert torch.isfinite(value).all(), name
        torch.testing.assert_close(teacher[name], start[name].lerp(value, 0.25))
        if 'norm' in name:
            assert not torch.equal(value, start[name]), f'{name} did not move'
    drops = [m for m in model.modules() if type(m).__name__ == 'DropPath' and m.drop_prob > 0]
    if 'swin' in architecture:
        assert any('norm' in name for name in start)
        assert {m.training for m in model.student.modules() if m in drops} == {True}
        assert {m.training for m in model.teacher.modules() if m in drops} == {False}


@pytest.mark.parametrize('name', EVALUATED)
def test_recipe_trains_and_evaluates(name: str, roots: dict[int, Path], tmp_path: Path) -> None:
    cfg = tiny(name, roots, tmp_path / 'work')
    runner, losses, metrics = train(cfg)
    assert_trained(losses, metrics)
    model = runner.model
    assert isinstance(model, CalibratedSoftTeacher)
    assert isinstance(model.student.roi_head.bbox_head, SmoothedCEHead)
    kinds = {type(hook) for hook in runner.hooks}
    assert {BurnInMeanTeacherHook, RareBoostPseudoLabeler} <= kinds
    assert any(step.get('unsup_loss_mask', 0) > 0 for step in losses)
    assert {'teacher/longtail/segm_AP', 'student/longtail/segm_AP'} <= set(metrics)
    audit = json.loads((tmp_path / 'work' / 'pseudo_label_audit.json').read_text())
    assert len(audit['classes']) == model.num_classes
    assert audit['unlabelled_images_seen'] == len(losses) - 1
