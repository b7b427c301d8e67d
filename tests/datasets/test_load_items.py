"""A picture that cannot be read is named, whoever asks for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmdet.datasets import CocoDataset
from mmengine.registry import init_default_scope

from mmdet_softpl.datasets.load_items import load_items, scale_of
from tests.support.tiny_data import write_data

CLASSES = ('a', 'b')


@pytest.fixture
def dataset(tmp_path: Path) -> CocoDataset:
    init_default_scope('mmdet')
    root = write_data(tmp_path, CLASSES, num_train=4)
    return CocoDataset(
        data_root=str(root),
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        metainfo=dict(classes=CLASSES),
        test_mode=True,
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackDetInputs')],
    )


def test_a_transform_that_fails_is_no_broken_image(dataset: CocoDataset) -> None:
    def fails(data: dict) -> None:
        raise AssertionError('a defect')

    dataset.pipeline.transforms.append(fails)
    with pytest.raises(AssertionError, match='a defect'):
        load_items(dataset, [0])


def test_what_the_data_set_gives_and_what_it_cannot(dataset: CocoDataset) -> None:
    assert [item['data_samples'].img_id for item in load_items(dataset, [2, 0])] == [
        dataset.get_data_info(i)['img_id'] for i in (2, 0)
    ]
    assert load_items(dataset, []) == []
    whole, gone = (Path(dataset.get_data_info(i)['img_path']) for i in (1, 3))
    whole.write_bytes(whole.read_bytes()[:20])
    gone.unlink()
    for index, path in ((1, whole), (3, gone)):
        with pytest.raises(ValueError) as error:
            load_items(dataset, [0, index])
        assert f'{path}: the image cannot be read' in str(error.value)
        assert 'instances_train2017.json' in str(error.value)


def test_the_scale_of_an_image() -> None:
    shapes = dict(img_shape=(96, 64), ori_shape=(48, 64))
    scale = scale_of(dict(shapes, scale_factor=(1.0, 2.0)))
    torch.testing.assert_close(scale, torch.tensor([1.0, 2.0, 1.0, 2.0]))
    # Without Resize there is no such key, and nothing to undo.
    same = scale_of(dict(img_shape=(48, 64, 3), ori_shape=(48, 64)))
    torch.testing.assert_close(same, torch.ones(4))
    with pytest.raises(ValueError, match=r'a\.png: 48 x 64 pixels became 96 x 64.*meta_keys'):
        scale_of(dict(shapes, img_path='a.png'))
