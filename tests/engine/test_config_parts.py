"""Parts of configs: found, joined, refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from mmdet_softpl.config_file import find_hook
from mmdet_softpl.datasets.config_sets import dataset_leaves
from mmdet_softpl.engine import RareBoostPseudoLabeler
from mmdet_softpl.engine.config_parts import (
    ConfigPartError,
    annotation_path,
    held_out_set,
    labelled_leaves,
    labeller_of,
    training_set,
)


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Config wants to read the file that it is said to come from."""
    (tmp_path / 'my.py').write_text('')
    monkeypatch.chdir(tmp_path)


def config(**changes) -> Config:
    labelled = dict(type='CocoDataset', data_root='data', ann_file='a/train.json')
    unlabelled = dict(type='UnlabeledImageDataset', data_root='data', ann_file='')
    balanced = dict(type='ClassBalancedDataset', dataset=labelled)
    cfg = dict(
        train_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=[balanced, unlabelled])),
        val_dataloader=dict(dataset=dict(type='CocoDataset', ann_file='/v/val.json')),
        custom_hooks=[
            dict(type='MeanTeacherHook'),
            dict(type='mmdet_softpl.RareBoostPseudoLabeler', labeled_ann_file='data/a/train.json'),
        ],
    )
    return Config({**cfg, **changes}, filename='my.py')


def test_hooks() -> None:
    cfg = config()
    index, hook = labeller_of(cfg)
    assert index == 1 and hook is cfg.custom_hooks[1]
    assert find_hook(cfg, 'MeanTeacherHook')[0] == 0
    assert find_hook(cfg, 'TeacherHook') is None
    assert find_hook(Config({}), 'MeanTeacherHook') is None
    # As mmengine's configs in pure Python name it.
    hooks = [dict(type=RareBoostPseudoLabeler, labeled_ann_file='x.json')]
    assert labeller_of(Config(dict(custom_hooks=hooks)))[0] == 0
    with pytest.raises(ConfigPartError, match=r'my\.py.*RareBoostPseudoLabeler'):
        labeller_of(config(custom_hooks=None))


def test_leaves_and_paths() -> None:
    cfg = config()
    leaves = list(dataset_leaves(cfg.train_dataloader.dataset))
    assert [annotation_path(leaf) for leaf in leaves] == ['data/a/train.json', '']
    assert annotation_path(cfg.val_dataloader.dataset) == '/v/val.json'
    (leaf,) = labelled_leaves(cfg, './data/a/../a/train.json')
    # The very part of the config: changing it changes the config.
    leaf.ann_file = 'b.json'
    assert cfg.train_dataloader.dataset.datasets[0].dataset.ann_file == 'b.json'
    with pytest.raises(ConfigPartError, match=r'data/a/train\.json'):
        labelled_leaves(cfg, 'data/a/train.json')
    assert list(dataset_leaves(None)) == []


def test_training_sets() -> None:
    labelled, leaf = training_set(config(), 'labelled')
    assert labelled.ann_file == 'data/a/train.json' and leaf['ann_file'] == 'a/train.json'
    assert training_set(config(), 'unlabelled')[1]['type'] == 'UnlabeledImageDataset'
    # By what they are, not by where they stand: mmdet's recipes read both kinds as CocoDataset.
    views = dict(type='MultiBranch', unsup_teacher=[], unsup_student=[])
    sets = [
        dict(type='CocoDataset', ann_file='unlabelled.json', pipeline=[views]),
        dict(type='CocoDataset', ann_file='labelled.json', pipeline=[]),
        dict(type='mmdet_softpl.GeneratedImageDataset', ann_file='generated.json', pipeline=[]),
    ]
    for order in (sets, sets[::-1]):
        cfg = config(train_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=order)))
        assert training_set(cfg, 'unlabelled')[1]['ann_file'] == 'unlabelled.json'
    cfg = config(train_dataloader=dict(dataset=sets[1]))
    with pytest.raises(ConfigPartError, match=r'my\.py.*no unlabelled set.*training, or else\.'):
        training_set(cfg, 'unlabelled', ', or else')


def test_held_out(tmp_path: Path) -> None:
    own, images = tmp_path / 'val.json', tmp_path / 'images'
    own.write_text('{}')
    images.mkdir()
    val = dict(type='CocoDataset', data_root=str(tmp_path), ann_file='val.json', pipeline=[1])
    cfg = config(val_dataloader=dict(dataset=val))
    assert held_out_set(cfg) == val
    other = tmp_path / 'other.json'
    other.write_text('{}')
    leaf = held_out_set(cfg, str(other), str(images))
    assert annotation_path(leaf) == str(other)
    assert leaf['data_prefix'] == dict(img=str(images)) and leaf['pipeline'] == [1]
    # The config is as it was.
    assert cfg.val_dataloader.dataset.ann_file == 'val.json'
    with pytest.raises(ConfigPartError, match='give both'):
        held_out_set(cfg, str(other))
    with pytest.raises(FileNotFoundError, match='no folder'):
        held_out_set(cfg, str(other), str(other))
    with pytest.raises(FileNotFoundError, match=r'/v/val\.json'):
        held_out_set(config())
    with pytest.raises(ConfigPartError, match='no val_dataloader'):
        held_out_set(config(val_dataloader=None))
    twice = dict(type='ConcatDataset', datasets=[val, val])
    with pytest.raises(ConfigPartError, match='2 data sets'):
        held_out_set(config(val_dataloader=dict(dataset=twice)))
