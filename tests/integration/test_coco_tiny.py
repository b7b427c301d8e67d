"""Real photos: a short training with the full recipe, and masks that follow their objects."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.runner import Runner

from benchmarks.view_pairs import load_view_pairs
from tests.support.tiny_runs import KeptMetrics, Recorder, read_config, relocate

NUM_LABELED = 40
ITERS, SUPERVISED = 100, 50

RECIPE = """
_base_ = [
    '{configs}/_base_/models/calibrated-soft-teacher_mask-rcnn_r18_tiny.py',
    '{configs}/_base_/datasets/semi_coco_instance.py',
    '{configs}/_base_/schedules/semi_180k.py',
]
labeled_dataset = _base_.labeled_dataset
labeled_dataset.ann_file = 'labelled.json'
train_dataloader = dict(dataset=dict(datasets=[labeled_dataset, _base_.unlabeled_dataset]))
custom_hooks = _base_.custom_hooks + [
    dict(type='RareBoostPseudoLabeler', labeled_ann_file=_base_.data_root + 'labelled.json')
]
"""


@pytest.fixture
def photos(coco_tiny: Path, tmp_path: Path) -> Path:
    """40 labelled images with their json, the other 40 as a folder without one."""
    root = tmp_path / 'photos'
    content = json.loads((coco_tiny / 'instances_train2017.json').read_text())
    images = sorted(content['images'], key=lambda image: image['id'])
    labelled = {image['id'] for image in images[:NUM_LABELED]}
    for image in images:
        folder = root / ('train2017' if image['id'] in labelled else 'unlabeled2017')
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(coco_tiny / 'train2017' / image['file_name'], folder)
    content['images'] = images[:NUM_LABELED]
    content['annotations'] = [a for a in content['annotations'] if a['image_id'] in labelled]
    (root / 'labelled.json').write_text(json.dumps(content))
    return root


@pytest.mark.slow
def test_full_recipe_on_photos(photos: Path, repository: Path, tmp_path: Path) -> None:
    cfg = read_config(RECIPE, tmp_path, configs=repository / 'configs')
    relocate(cfg._cfg_dict, f'{photos}/', factor=0.15)
    cfg.work_dir = str(tmp_path / 'work')
    cfg.randomness = dict(seed=0)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False, pin_memory=False)
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.update(ann_file='labelled.json', data_prefix=dict(img='train2017/'))
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        labelled = str(photos / 'labelled.json')
        evaluator.update(ann_file=labelled, labeled_ann_file=labelled)
    cfg.train_cfg.update(max_iters=ITERS, val_interval=ITERS, val_begin=1)
    # From scratch, in seconds: what 180,000 iterations do, as far as it goes.
    cfg.optim_wrapper.optimizer = dict(type='AdamW', lr=0.001, weight_decay=0.01)
    cfg.param_scheduler = []
    mean_teacher, labeler = cfg.custom_hooks[0], cfg.custom_hooks[-1]
    mean_teacher.update(supervised_iters=SUPERVISED, ramp_iters=10, momentum=0.02)
    # A teacher of 50 iterations is sure of nothing.
    labeler.update(interval=10, fixed_thr=0.02, alpha=1.0, thr_range=(0.01, 0.9))
    cfg.model.semi_train_cfg.update(score_floor=0.01, refresh_interval=20)
    recorder, kept = Recorder(), KeptMetrics()
    runner = Runner.from_cfg(cfg)
    runner.register_hook(recorder)
    runner.register_hook(kept)
    runner.train()

    assert len(recorder.losses) == ITERS
    for step in recorder.losses:
        assert all(math.isfinite(value) for value in step.values()), step
    unsupervised = recorder.losses[SUPERVISED:]
    learned = [step['unsup_loss_mask'] > 0 for step in unsupervised]
    assert np.mean(learned) >= 0.3
    supervised = [step['sup_loss_mask'] for step in recorder.losses]
    assert np.mean(supervised[-20:]) < np.mean(supervised[:20])
    assert 'teacher/longtail/segm_AP' in kept.metrics
    audit = json.loads((tmp_path / 'work' / 'pseudo_label_audit.json').read_text())
    assert sum(record['kept'] for record in audit['classes']) > 0


def test_masks_follow_their_objects_into_the_strong_view(coco_tiny: Path) -> None:
    pairs, _ = load_view_pairs(coco_tiny, 'instances_train2017.json', 'train2017/')
    means, mirrored, turned = [], 0, 0
    boxes, hulls = [], []
    for pair, _ in zip(pairs, range(40), strict=False):
        if np.isfinite(pair.overlaps).any():
            means.append(float(np.nanmean(pair.overlaps)))
        boxes.append(pair.box_overlaps)
        hulls.append(pair.hull_overlaps)
        mirrored += bool(np.linalg.det(pair.homography[:2, :2]) < 0)
        turned += bool(abs(pair.homography[[0, 1], [1, 0]]).max() > 0.01)
    assert len(means) >= 35
    # The augmentations that could go wrong did happen.
    assert mirrored >= 8 and turned >= 8
    # 28 x 28 cells an object leave a little at the edges, whatever the geometry.
    assert np.mean(means) > 0.9
    assert min(means) > 0.8
    # A turned box is too large for its object; the box of the turned mask is not.
    assert np.nanmean(np.concatenate(boxes)) > 0.93 > np.nanmean(np.concatenate(hulls))
