"""The written config: every architecture reads as one, and holds what it was told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from mmengine.config import Config

from mmdet_softpl.datasets.config_text import config_text
from mmdet_softpl.datasets.own_data import OwnData, check_own_data
from mmdet_softpl.datasets.training_plan import ARCHITECTURES, plan_training
from tests.support.tiny_data import write_data

# Quotes of both kinds, braces and letters of other scripts.
CLASSES = ('rider\'s "bag"', 'дерево', '{brace}', '木\\')


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> OwnData:
    root = write_data(tmp_path_factory.mktemp('data'), CLASSES, num_train=4)
    for split in ('train', 'val'):
        path = root / f'annotations/instances_{split}2017.json'
        content = json.loads(path.read_text())
        # Ids neither dense nor sorted.
        ids = {1: 40, 2: 7, 3: 1000, 4: 8}
        for category in content['categories']:
            category['id'] = ids[category['id']]
        for annotation in content['annotations']:
            annotation['category_id'] = ids[annotation['category_id']]
        path.write_text(json.dumps(content))
    return check_own_data(
        dict(
            labeled_json=str(root / 'annotations/instances_train2017.json'),
            labeled_images=str(root / 'train2017'),
            unlabeled_images=str(root / 'unlabeled2017'),
            val_json=str(root / 'annotations/instances_val2017.json'),
            val_images=str(root / 'val2017'),
        )
    )


def _config(
    data: OwnData, arch: str, folder: Path, gpus: int = 1, labelled: int = 4, **kwargs
) -> Config:
    plan = plan_training(arch, labelled, 4, gpus=gpus, **kwargs)
    memory = kwargs.get('gpu_memory', 24)
    text = config_text(data, plan, arch, base_lr=0.01, gpus=gpus, gpu_memory=memory)
    assert max(map(len, text.splitlines())) <= 100 + len(data.paths['labeled_json'])
    path = folder / 'own.py'
    path.write_text(text, encoding='utf-8')
    return Config.fromfile(path)


@pytest.mark.parametrize('arch', ARCHITECTURES)
def test_every_architecture(arch: str, data: OwnData, tmp_path: Path) -> None:
    # As if there were enough images for repeat factor sampling.
    counts = [16_000, 6000, 4000, 800]
    cfg = _config(data, arch, tmp_path, labelled=20_000, longer_side=128, image_counts=counts)
    assert cfg.classes == CLASSES
    balanced = cfg.train_dataloader.dataset.datasets[0]
    assert balanced.type == 'ClassBalancedDataset' and balanced.oversample_thr == 0.25
    assert cfg.train_dataloader.dataset.type == 'mmdet_softpl.RareCopyPasteDataset'
    labelled = balanced.dataset
    unlabelled = cfg.train_dataloader.dataset.datasets[1]
    assert labelled.ann_file == cfg.custom_hooks[-1].labeled_ann_file
    assert cfg.val_evaluator.ann_file == cfg.val_dataloader.dataset.ann_file
    assert cfg.test_evaluator == cfg.val_evaluator
    assert labelled.metainfo.classes == cfg.val_dataloader.dataset.metainfo.classes == CLASSES
    views = unlabelled.pipeline[2]
    scales = [labelled.pipeline[2].scale, views.unsup_teacher[0].scale]
    scales.append(views.unsup_student[0].scale)
    assert scales == [[(256, 64), (256, 224)]] * 3
    resizes = [labelled.pipeline[2], views.unsup_teacher[0], views.unsup_student[0]]
    assert all(resize.type == 'RandomResize' for resize in resizes)
    assert cfg.val_dataloader.dataset.pipeline[1] == dict(
        type='Resize', scale=(256, 160), keep_ratio=True
    )
    roi = cfg.model.detector.roi_head
    heads = roi.bbox_head if isinstance(roi.bbox_head, list) else [roi.bbox_head]
    assert len(heads) == (3 if arch.startswith('cascade') else 1)
    assert {head.num_classes for head in [*heads, roi.mask_head]} == {4}
    assert {head.type for head in heads} == {'mmdet_softpl.SmoothedCEHead'}
    kind = 'AdamW' if 'swin' in arch else 'SGD'
    assert cfg.optim_wrapper.optimizer.type == kind
    assert cfg.train_dataloader.sampler.batch_size == cfg.train_dataloader.batch_size


def test_plain_data_keeps_the_shipped_sizes(data: OwnData, tmp_path: Path) -> None:
    cfg = _config(data, 'mask-rcnn_r50', tmp_path, gpus=2, gpu_memory=16)
    assert cfg.train_dataloader.dataset.type == 'mmdet_softpl.RareCopyPasteDataset'
    labelled = cfg.train_dataloader.dataset.datasets[0]
    assert labelled.type == 'CocoDataset' and labelled.pipeline[2].scale[0] == (1333, 400)
    assert cfg.train_dataloader.batch_size == 4
    assert cfg.optim_wrapper.optimizer.lr == 0.01
    # The config is read again from what mmengine writes into the work directory.
    cfg.dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py').classes == CLASSES


@pytest.mark.parametrize(('gpus', 'said'), [(0, 'CPU'), (1, 'not even two images fit')])
def test_comments_say_what_is_tight(gpus: int, said: str, data: OwnData) -> None:
    plan = plan_training('mask-rcnn_r50', 4, 4, gpus=gpus, gpu_memory=2)
    text = config_text(data, plan, 'mask-rcnn_r50', base_lr=0.01, gpus=gpus, gpu_memory=2)
    assert said in text


@pytest.mark.parametrize(('federated', 'balance'), [(False, 1.0), (True, 0.5)])
def test_lvis_files_are_balanced_as_in_the_shipped_configs(
    data: OwnData, tmp_path: Path, federated: bool, balance: float
) -> None:
    summary = dataclasses.replace(data.labelled.summary, federated=federated)
    labelled = dataclasses.replace(data.labelled, summary=summary)
    cfg = _config(dataclasses.replace(data, labelled=labelled), 'mask-rcnn_r50', tmp_path)
    assert cfg.train_dataloader.dataset.get('balance', 1.0) == balance
