"""Every shipped config parses, builds, and trains for a few iterations on tiny data.

The data is laid out as the configs' comments say, and split by the command that they name.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from mmdet.datasets import CocoDataset, LVISV1Dataset
from mmengine.config import Config

from mmdet_softpl.__main__ import main
from mmdet_softpl.cli.config_path import config_names, config_root
from mmdet_softpl.datasets.longtail_shapes import ShapesConfig, generate_longtail_shapes
from mmdet_softpl.engine import BurnInMeanTeacherHook, RareBoostPseudoLabeler
from mmdet_softpl.models import CalibratedSoftTeacher, SmoothedCEHead
from tests.support.tiny_data import write_data
from tests.support.tiny_runs import assert_trained, make_tiny, train

RECIPES = [name for name in config_names() if name.startswith('calibrated_soft_teacher/')]
SEMI = [*RECIPES, *(name for name in config_names() if name.startswith('demo/'))]


def _split(ann_file: Path, percents: tuple[int, ...]) -> None:
    out = str(ann_file.parents[1] / 'semi_anns')
    for percent in percents:
        arguments = ['split', str(ann_file), '--percent', str(percent), '--seed', '1']
        assert main([*arguments, '--out', out]) == 0


@pytest.fixture(scope='module')
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Data roots by data set."""
    folder = tmp_path_factory.mktemp('data')
    lvis = write_data(folder / 'lvis', LVISV1Dataset.METAINFO['classes'], True, num_train=200)
    _split(lvis / 'annotations/lvis_v1_train.json', (1, 5, 10))
    coco = write_data(folder / 'coco', CocoDataset.METAINFO['classes'])
    _split(coco / 'annotations/instances_train2017.json', (10,))
    shapes = ShapesConfig(num_train=28, num_unlabeled=8, num_val=8)
    generate_longtail_shapes(folder / 'shapes', shapes, progress=False, workers=1)
    return dict(lvis=lvis, coco=coco, shapes=folder / 'shapes')


def test_file_names_are_unique() -> None:
    """``config-path NAME`` and mim find a config by its file name."""
    names = [path.name for path in config_root().rglob('*.py')]
    assert len(names) == len(set(names))


def test_every_share_of_the_issue_has_a_recipe() -> None:
    shares = {re.search(r'semi-([\d.]+)-lvis', name) for name in RECIPES}
    assert {match[1] for match in shares if match} == {'0.01', '0.05', '0.1'}
    assert any('lvis-v1-coco-unlabeled' in name for name in RECIPES)


@pytest.mark.parametrize('name', SEMI)
def test_recipe_trains_and_evaluates(name: str, roots: dict[str, Path], tmp_path: Path) -> None:
    cfg = Config.fromfile(config_root() / name)
    classes = cfg.model.detector.roi_head.bbox_head.num_classes
    data = {1203: 'lvis', 80: 'coco', 12: 'shapes'}[classes]
    labeled = cfg.custom_hooks[1 if data == 'shapes' else -1].labeled_ann_file
    # The labeller, the metric and the training read the same file.
    dataset = cfg.labeled_dataset
    assert labeled == dataset.data_root + dataset.ann_file
    assert cfg.val_evaluator.labeled_ann_file == cfg.test_evaluator.labeled_ann_file == labeled
    source = cfg.train_dataloader.dataset.datasets[0]
    assert source.get('dataset', source).ann_file == dataset.ann_file
    assert cfg.train_dataloader.dataset.datasets[1] == cfg.unlabeled_dataset

    runner, losses, metrics = train(make_tiny(cfg, roots[data], tmp_path / 'work'))
    assert_trained(losses, metrics)
    model = runner.model
    assert isinstance(model, CalibratedSoftTeacher)
    assert isinstance(model.student.roi_head.bbox_head, SmoothedCEHead)
    kinds = {type(hook) for hook in runner.hooks}
    assert {BurnInMeanTeacherHook, RareBoostPseudoLabeler} <= kinds
    assert any(step.get('unsup_loss_mask', 0) > 0 for step in losses)
    assert {'teacher/longtail/segm_AP', 'student/longtail/segm_AP'} <= set(metrics)
    audit = json.loads((tmp_path / 'work' / 'pseudo_label_audit.json').read_text())
    assert len(audit['classes']) == classes
    assert audit['unlabelled_images_seen'] == len(losses) - 1
