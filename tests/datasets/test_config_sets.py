"""Sets of a config against the data sets that the host builds of it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmdet_softpl.datasets.config_sets import (
    COCO,
    FOLDER,
    LABELLED,
    LVIS_V1,
    OTHER,
    TEST,
    UNLABELLED,
    VALIDATION,
    configured_sets,
)
from mmdet_softpl.shipped_configs import config_path

SEMI = [{'type': 'LoadAnnotations', 'with_mask': True}, {'type': 'MultiBranch', 'sup': []}]
UNSUP = [{'type': 'MultiBranch', 'unsup_teacher': [], 'unsup_student': []}]


@pytest.fixture()
def demo(tiny_shapes: Path) -> Config:
    """The demo's config on a tiny data set."""
    name = 'calibrated-soft-teacher_mask-rcnn_r18_longtail-shapes'
    cfg = Config.fromfile(str(config_path(name)))
    classes = dict(classes=f'{tiny_shapes}/annotations/classes.txt')
    balanced, unlabeled = cfg.train_dataloader.dataset.datasets
    for dataset in (balanced.dataset, unlabeled, cfg.val_dataloader.dataset):
        dataset.update(data_root=f'{tiny_shapes}/', metainfo=classes)
    cfg.test_dataloader = cfg.val_dataloader
    return cfg


def test_as_the_host_builds_them(demo: Config) -> None:
    sets = configured_sets(demo)
    assert [s.role for s in sets] == [LABELLED, UNLABELLED, VALIDATION]
    assert [s.name for s in sets] == [LABELLED, UNLABELLED, VALIDATION]
    assert [s.kind for s in sets] == [COCO, FOLDER, COCO]
    assert sets[0].key == 'train_dataloader.dataset.datasets[0].dataset'
    assert (sets[0].oversample_thr, sets[1].oversample_thr) == (0.1, None)
    assert (sets[0].source, sets[1].source) == (0, 1)
    assert sets[0].with_masks and sets[0].filter_empty and not sets[2].filter_empty
    balanced, unlabeled = demo.train_dataloader.dataset.datasets
    with DefaultScope.overwrite_default_scope('mmdet'):
        for one, cfg in zip(
            sets, (balanced.dataset, unlabeled, demo.val_dataloader.dataset), strict=True
        ):
            built = DATASETS.build(copy.deepcopy(cfg))
            assert one.ann_file == built.ann_file
            assert Path(one.image_root) == Path(built.data_prefix['img'])
            assert one.classes == tuple(built.metainfo['classes'])


def _config(*datasets: dict, **loaders: dict) -> dict:
    train = dict(type='ConcatDataset', datasets=list(datasets))
    return dict(train_dataloader=dict(dataset=train), **loaders)


def test_wrappers_and_roles() -> None:
    inner = dict(type='LVISV1Dataset', ann_file='a.json', pipeline=SEMI)
    wrapped = dict(
        type='RepeatDataset',
        times=3,
        dataset=dict(type='ClassBalancedDataset', oversample_thr=0.5, dataset=inner),
    )
    plain = dict(type='CocoDataset', ann_file='b.json', data_root='root', pipeline=UNSUP)
    nested = dict(type='ConcatDataset', datasets=[plain, dict(plain, ann_file='/c.json')])
    sets = configured_sets(_config(wrapped, nested))
    assert [s.name for s in sets] == [LABELLED, f'{UNLABELLED} 1', f'{UNLABELLED} 2']
    assert (sets[0].kind, sets[0].times, sets[0].oversample_thr) == (LVIS_V1, 3, 0.5)
    assert len(sets[0].classes) == 1203
    assert [s.ann_file for s in sets[1:]] == ['root/b.json', '/c.json']
    assert [s.source for s in sets] == [0, 1, 1]


def test_a_mixing_wrapper_goes_on_with_the_pipeline() -> None:
    """Mosaic is configured so, with the branches behind it."""
    step = dict(type='MultiBranch', unsup_teacher=[], unsup_student=[])
    inner = dict(
        type='CocoDataset', ann_file='rest.json', pipeline=[dict(type='LoadImageFromFile')]
    )
    wrapped = dict(type='MultiImageMixDataset', dataset=inner, pipeline=[step])
    repeated = dict(type='RepeatDataset', times=2, dataset=wrapped)
    (one,) = configured_sets(dict(train_dataloader=dict(dataset=repeated)))
    assert one.role == 'unlabelled' and one.times == 2
    masks = dict(type='LoadAnnotations', with_mask=True)
    (one,) = configured_sets(dict(train_dataloader=dict(dataset=dict(wrapped, pipeline=[masks]))))
    assert one.role == 'labelled' and one.with_masks
    assert len(inner['pipeline']) == 1


def test_test_set_is_named_where_it_is_another_one() -> None:
    one = dict(type='CocoDataset', ann_file='val.json')
    loaders = dict(val_dataloader=dict(dataset=one), test_dataloader=dict(dataset=one))
    assert [s.role for s in configured_sets(_config(**loaders))] == [VALIDATION]
    loaders['test_dataloader'] = dict(dataset=dict(one, ann_file='test.json'))
    assert [s.role for s in configured_sets(_config(**loaders))] == [VALIDATION, TEST]


@pytest.mark.parametrize('type_', ['NoSuchDataset', 'no_scope.Thing', 'VOCDataset', None])
def test_other_types(type_: str | None) -> None:
    (one,) = configured_sets(_config(dict(type=type_, ann_file='a.json')))
    assert one.kind == OTHER and one.type == str(type_)


def test_remote_files_and_strings_for_classes() -> None:
    remote = dict(type='CocoDataset', ann_file='a.json', backend_args=dict(backend='petrel'))
    text = dict(type='CocoDataset', ann_file='s3://a.json', metainfo=dict(classes='cat'))
    first, second = configured_sets(_config(remote, text))
    assert not first.local and not second.local
    assert second.classes == 'cat'


def test_no_data_at_all() -> None:
    assert configured_sets({}) == []
    assert configured_sets(dict(train_dataloader=None, val_dataloader={})) == []


@pytest.mark.parametrize(
    ('evaluator', 'with_masks'),
    [
        (dict(type='mmdet_softpl.LongTailMetric'), True),
        (dict(type='LongTailMetric', metric='bbox'), False),
        (dict(type='CocoMetric'), False),
        (dict(type='CocoMetric', metric='segm'), True),
        ([dict(type='CocoMetric'), dict(type='LVISMetric', metric=['bbox', 'segm'])], True),
        (None, False),
    ],
)
@pytest.mark.parametrize('split', ['val', 'test'])
def test_masks_that_an_evaluator_needs(evaluator, with_masks: bool, split: str) -> None:
    dataset = dict(type='CocoDataset', ann_file=f'{split}.json', pipeline=[])
    loaders = {f'{split}_dataloader': dict(dataset=dataset), f'{split}_evaluator': evaluator}
    (one,) = configured_sets(loaders)
    assert one.with_masks == with_masks
