"""Each module put into configs that users have already: the interface of the package.

A composition is the text of a config, at most 15 lines long. The tests shrink the network and
the pictures, and leave what is composed as it is.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmdet.datasets import CocoDataset, LVISV1Dataset
from mmengine.config import Config

from mmdet_softpl.engine import RareBoostPseudoLabeler
from mmdet_softpl.models import CalibratedSoftTeacher, SmoothedCEHead
from tests.support.tiny_data import write_data
from tests.support.tiny_runs import assert_trained, make_tiny, read_config, train

MAX_LINES = 15
STOCK = 'mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py'
WITH_IMPORTS = "custom_imports = dict(imports=['mmdet_softpl'], allow_failed_imports=False)\n"
# Both ways to name our types: prefix and the line that makes the plain name known.
PREFIXED, IMPORTED = ('mmdet_softpl.', ''), ('', WITH_IMPORTS)
SPELLINGS = [pytest.param(PREFIXED, id='prefixed'), pytest.param(IMPORTED, id='imported')]

SMOOTHED_SOFT_TEACHER = """
_base_ = '{stock}'
{imports}
model = dict(detector=dict(roi_head=dict(bbox_head=dict(type='{prefix}SmoothedCEHead'))))
"""

BOOSTED_SOFT_TEACHER = """
_base_ = '{stock}'
{imports}
custom_hooks = [
    dict(type='MeanTeacherHook'),
    dict(
        type='{prefix}RareBoostPseudoLabeler',
        labeled_ann_file='data/coco/semi_anns/instances_train2017.1@10.json',
    ),
]
"""

BOOSTED_SEMI_BASE = """
_base_ = '{stock}'
{imports}
model = dict(type='SemiBaseDetector')
custom_hooks = [
    dict(type='MeanTeacherHook'),
    dict(
        type='{prefix}RareBoostPseudoLabeler',
        labeled_ann_file='data/coco/semi_anns/instances_train2017.1@10.json',
    ),
]
"""

CALIBRATED = """
_base_ = [
    'mmdet::_base_/models/{detector}_r50_fpn.py',
    '{configs}/_base_/datasets/semi_coco_instance.py',
    '{configs}/_base_/schedules/semi_180k.py',
]
{imports}
detector = _base_.model
{head}
preprocessor = dict(
    type='MultiBranchDataPreprocessor', data_preprocessor=detector.data_preprocessor
)
model = dict(
    _delete_=True, type='{prefix}CalibratedSoftTeacher', detector=detector,
    data_preprocessor=preprocessor)
"""
ONE_HEAD = "detector.roi_head.bbox_head.type = '{prefix}SmoothedCEHead'"
HEADS = (
    'detector.roi_head.bbox_head = '
    "[dict(head, type='{prefix}SmoothedCEHead') for head in detector.roi_head.bbox_head]"
)


@pytest.fixture(scope='module')
def coco_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COCO's 80 classes, with the two files of the split that stock configs name."""
    from mmdet_softpl.datasets.splits import write_split

    root = write_data(tmp_path_factory.mktemp('data') / 'coco', CocoDataset.METAINFO['classes'])
    source = root / 'annotations/instances_train2017.json'
    write_split(source, root / 'semi_anns', percent=10)
    return root


def compose(
    text: str, folder: Path, repository: Path, spelling: tuple[str, str] = ('', ''), **names: str
) -> Config:
    """The config of a composition, after a look at its length."""
    prefix, imports = spelling
    names = dict(imports=imports, **names, prefix=prefix, stock=STOCK)
    cfg = read_config(text, folder, configs=repository / 'configs', **names)
    lines = (folder / 'config.py').read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= MAX_LINES
    return cfg


def test_smoothed_head_in_the_hosts_supervised_lvis_config(
    repository: Path, tmp_path: Path
) -> None:
    root = write_data(tmp_path / 'lvis_v1', LVISV1Dataset.METAINFO['classes'], lvis=True)
    path = repository / 'configs/smoothed_ce'
    path /= 'smoothed-ce_mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py'
    cfg = make_tiny(Config.fromfile(path), root, tmp_path / 'work')
    cfg.model.roi_head.bbox_head.update(warmup_iters=1, refresh_interval=1)
    runner, losses, metrics = train(cfg)
    assert_trained(losses, metrics)
    head = runner.model.roi_head.bbox_head
    assert isinstance(head, SmoothedCEHead) and head.num_classes == 1203
    assert head.current_smoothing() == pytest.approx(0.1)
    assert (head.prototype_counts > 0).nonzero().squeeze(1).tolist() == [0, 1, 2, 3]
    assert {'longtail/segm_APr', 'longtail/bbox_APf'} <= set(metrics)


@pytest.mark.parametrize('spelling', SPELLINGS)
def test_smoothed_head_in_the_hosts_soft_teacher(
    spelling: tuple[str, str], coco_root: Path, repository: Path, tmp_path: Path
) -> None:
    cfg = compose(SMOOTHED_SOFT_TEACHER, tmp_path, repository, spelling)
    cfg = make_tiny(cfg, coco_root, tmp_path / 'work')
    cfg.model.detector.roi_head.bbox_head.refresh_interval = 2
    runner, losses, metrics = train(cfg)
    assert_trained(losses, metrics)
    student = runner.model.student.roi_head.bbox_head
    assert isinstance(student, SmoothedCEHead)
    assert isinstance(runner.model.teacher.roi_head.bbox_head, SmoothedCEHead)
    assert student.prototype_counts.sum() > 0
    assert all('unsup_loss_cls' in step for step in losses)


@pytest.mark.parametrize('spelling', SPELLINGS)
@pytest.mark.parametrize(
    'text', [BOOSTED_SOFT_TEACHER, BOOSTED_SEMI_BASE], ids=['SoftTeacher', 'SemiBaseDetector']
)
def test_labeler_on_the_hosts_detectors(
    text: str, spelling: tuple[str, str], coco_root: Path, repository: Path, tmp_path: Path
) -> None:
    cfg = compose(text, tmp_path, repository, spelling)
    cfg = make_tiny(cfg, coco_root, tmp_path / 'work')
    # The host filters by one threshold, which the labeller maps those of the classes to.
    cfg.model.detector.test_cfg.rcnn.score_thr = 0.0
    runner, losses, metrics = train(cfg)
    assert_trained(losses, metrics)
    (hook,) = (h for h in runner.hooks if isinstance(h, RareBoostPseudoLabeler))
    images = hook.history['total_images'] + hook.class_state.num_images
    assert images == len(losses)
    assert hook.history['total_kept'].sum() > 0
    assert (tmp_path / 'work' / 'pseudo_label_audit.json').is_file()


@pytest.mark.parametrize('smoothed', [False, True], ids=['stock-head', 'smoothed'])
@pytest.mark.parametrize(
    ('name', 'spelling'),
    [('faster-rcnn', PREFIXED), ('mask-rcnn', IMPORTED), ('cascade-mask-rcnn', PREFIXED)],
)
def test_calibrated_soft_teacher_over_every_detector(
    name: str,
    smoothed: bool,
    spelling: tuple[str, str],
    coco_root: Path,
    repository: Path,
    tmp_path: Path,
) -> None:
    head = (HEADS if 'cascade' in name else ONE_HEAD) if smoothed else ''
    cfg = compose(CALIBRATED, tmp_path, repository, spelling, detector=name, head=head)
    masks = name != 'faster-rcnn'
    if not masks:
        cfg.val_evaluator.metric = cfg.test_evaluator.metric = 'bbox'
    # Labelled and unlabelled images as in the semi-supervised base: all of train is labelled.
    runner, losses, metrics = train(make_tiny(cfg, coco_root, tmp_path / 'work'))
    assert_trained(losses, metrics)
    assert isinstance(runner.model, CalibratedSoftTeacher)
    stage = 's2.' if 'cascade' in name else ''
    key = f'unsup_{stage}loss_mask'
    # The first iteration is the supervised phase.
    assert 'unsup_loss_rpn_cls' not in losses[0]
    assert all(f'unsup_{stage}loss_cls' in step for step in losses[1:])
    assert (any(step.get(key, 0) > 0 for step in losses[1:])) == masks
    assert runner.model.class_state.num_images == len(losses) - 1
    kind = SmoothedCEHead if smoothed else torch.nn.Module
    heads = runner.model.student.roi_head.bbox_head
    for module in heads if isinstance(heads, torch.nn.ModuleList) else [heads]:
        assert isinstance(module, kind)
        assert isinstance(module, SmoothedCEHead) == smoothed
    assert ('teacher/longtail/segm_AP' in metrics) == masks
    assert 'student/longtail/bbox_AP' in metrics
