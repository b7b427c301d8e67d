"""The report of an inspection: a dict that json takes, with the figures of the data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmdet_softpl.datasets.data_inspection import inspect_data
from mmdet_softpl.engine.derived_settings import LabellerSettings, TrainingLength
from mmdet_softpl.reporting.data_report import data_report, image_sizes
from tests.support.tiny_data import write_data

CLASSES = ('a', 'b', 'c', 'd', 'never')


@pytest.fixture(scope='module')
def inspection(tmp_path_factory: pytest.TempPathFactory):
    root = write_data(tmp_path_factory.mktemp('data'), CLASSES, num_train=4)

    def coco(split: str) -> dict:
        return dict(
            type='CocoDataset',
            ann_file=str(root / f'annotations/instances_{split}2017.json'),
            data_prefix=dict(img=str(root / f'{split}2017')),
            metainfo=dict(classes=CLASSES),
        )

    folder = dict(
        type='mmdet_softpl.UnlabeledImageDataset', data_root=str(Path(root) / 'unlabeled2017')
    )
    cfg = dict(
        train_dataloader=dict(dataset=dict(datasets=[coco('train'), folder])),
        val_dataloader=dict(dataset=coco('val')),
    )
    return inspect_data(cfg)


def test_figures(inspection) -> None:
    labeller = LabellerSettings(dict(alpha=0.2), np.arange(5.0), np.full(5, 0.5))
    length = TrainingLength(100, 20, 4, 4, 1.5, 0.3, 2.5)
    report = json.loads(
        json.dumps(data_report('x.py', inspection, labeller, length, has_labeller=True))
    )
    labelled, unlabelled, validation = report['sets']
    assert (labelled['images'], labelled['instances'], labelled['num_classes']) == (4, 8, 5)
    assert labelled['groups'] == {'r': 5, 'c': 0, 'f': 0}
    assert labelled['classes_without_images'] == ['never']
    assert labelled['image_sizes']['shorter_side'] == dict(min=96, median=96, max=96)
    assert labelled['image_sizes']['portrait'] == 2
    assert unlabelled['num_classes'] is None and unlabelled['image_sizes']['known'] == 4
    assert validation['groups'] is None and validation['instances'] == 4
    first, *_, last = report['classes']
    assert first == dict(
        name='a',
        group='r',
        images=2,
        instances=2,
        validation_images=1,
        validation_instances=1,
        boost=0.0,
        expected_per_image=0.5,
        expected_total=2.0,
        repeat_factor=1.0,
    )
    assert (last['name'], last['images'], last['boost']) == ('never', 0, 4.0)
    assert report['settings']['length']['unlabelled_passes'] == 2.5
    assert report['trains'] and report['images_read']
    assert {f['kind'] for f in report['findings']} == {
        'doubtful file',
        'class without a validation image',
    }


def test_without_settings(inspection) -> None:
    report = data_report('x.py', inspection, None, None, has_labeller=False)
    assert report['settings'] == dict(labeller=None, length=None, has_labeller=False)
    assert report['classes'][0]['boost'] is None
    assert report['classes'][0]['expected_total'] is None


def test_sizes_are_those_of_the_files(inspection) -> None:
    assert image_sizes(inspection, inspection.sets[0]) == [(128, 96), (96, 128)] * 2
