"""Settings derived from data against what the labeller itself starts from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmdet_softpl.datasets.class_statistics import class_statistics
from mmdet_softpl.datasets.config_sets import configured_sets, keeps_empty
from mmdet_softpl.datasets.set_contents import read_set
from mmdet_softpl.engine import RareBoostPseudoLabeler
from mmdet_softpl.engine.derived_settings import labeller_settings, training_length
from tests.support.tiny_data import write_data

CLASSES = ('a', 'b', 'c', 'd', 'never')


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Counts of 2, 2, 2, 1 and 0 images."""
    root = write_data(tmp_path_factory.mktemp('data'), CLASSES, num_train=4)
    path = root / 'annotations/instances_train2017.json'
    data = json.loads(path.read_text())
    last = [a for a in data['annotations'] if a['category_id'] == 4][-1]
    data['annotations'].remove(last)
    path.write_text(json.dumps(data))
    return root


def test_as_the_labeller_starts(root: Path) -> None:
    ann_file = str(root / 'annotations/instances_train2017.json')
    values = dict(boost_gamma=1.0, alpha=0.3)
    hook = RareBoostPseudoLabeler(ann_file, **values)
    hook.policy.set_initial(hook.class_state, hook.statistics)
    cfg = dict(custom_hooks=[dict(type='RareBoostPseudoLabeler', **values)])
    settings = labeller_settings(cfg, class_statistics(ann_file))
    assert settings.arguments['max_boost'] == hook.policy.max_boost
    np.testing.assert_allclose(settings.boosts, hook.class_state.boosts.numpy())
    np.testing.assert_allclose(
        settings.expected_per_image, 0.3 * hook.labelled_rate.numpy(), rtol=1e-6
    )
    assert settings.boosts.tolist() == [1, 1, 1, 2, 1]
    np.testing.assert_allclose(settings.expected_per_image, np.array([2, 2, 2, 1, 0]) * 0.3 / 4)


@pytest.mark.parametrize('drops, images', [(True, 4), (False, 6)])
def test_images_that_training_keeps_empty_count(
    root: Path, tmp_path: Path, drops: bool, images: int
) -> None:
    data = json.loads((root / 'annotations/instances_train2017.json').read_text())
    data['images'] += [dict(data['images'][0], id=i, file_name=f'{i}.jpg') for i in (900, 901)]
    path = tmp_path / 'labelled.json'
    path.write_text(json.dumps(data))
    labelled = dict(
        type='CocoDataset',
        ann_file=str(path),
        metainfo=dict(classes=CLASSES),
        filter_cfg=dict(filter_empty_gt=drops),
    )
    hook = dict(type='RareBoostPseudoLabeler', labeled_ann_file=str(path), alpha=1.0)
    cfg = dict(custom_hooks=[hook], train_dataloader=dict(dataset=labelled))
    assert keeps_empty(cfg, str(path)) != drops
    settings = labeller_settings(cfg, class_statistics(path))
    np.testing.assert_allclose(
        settings.expected_per_image, np.array([2, 2, 2, 1, 0]) / images, rtol=1e-6
    )


def test_other_modes_and_no_labeller(root: Path) -> None:
    statistics = class_statistics(root / 'annotations/instances_train2017.json')
    fixed = [dict(type='mmdet_softpl.RareBoostPseudoLabeler', threshold_mode='fixed')]
    assert labeller_settings(dict(custom_hooks=fixed), statistics).expected_per_image is None
    assert labeller_settings({}, statistics) is None


def test_length(root: Path) -> None:
    labelled = dict(
        type='CocoDataset',
        ann_file=str(root / 'annotations/instances_train2017.json'),
        metainfo=dict(classes=CLASSES),
    )
    folder = dict(type='mmdet_softpl.UnlabeledImageDataset', data_root=f'{root}/unlabeled2017')
    repeated = dict(type='RepeatDataset', times=2, dataset=labelled)
    cfg = dict(
        train_cfg=dict(max_iters=100),
        custom_hooks=[dict(type='BurnInMeanTeacherHook', supervised_iters=20)],
        train_dataloader=dict(
            sampler=dict(batch_size=5, source_ratio=[1, 4]),
            dataset=dict(datasets=[repeated, folder]),
        ),
    )
    sets = [read_set(one) for one in configured_sets(cfg)]
    length = training_length(cfg, sets)
    assert (length.labelled_per_batch, length.unlabelled_per_batch) == (1, 4)
    assert length.labelled_passes == 100 * 1 / 8
    assert length.supervised_passes == 20 * 1 / 8
    assert length.unlabelled_passes == 80 * 4 / 4
    assert length.supervised_iters == 20
    # Generated images are a source of their own, with a share of their own.
    generated = dict(cfg['train_dataloader']['dataset'], datasets=[repeated, labelled, folder])
    sampler = dict(batch_size=8, source_ratio=[3, 1, 4])
    cfg_3 = dict(cfg, train_dataloader=dict(sampler=sampler, dataset=generated))
    three = training_length(cfg_3, [read_set(one) for one in configured_sets(cfg_3)])
    assert three.labelled_per_batch == 4
    assert three.labelled_passes == 100 * 3 / 8
    assert training_length(dict(cfg, train_cfg=dict(max_epochs=2)), sets) is None
    assert training_length({}, []) is None
