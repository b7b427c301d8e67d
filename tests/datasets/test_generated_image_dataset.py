"""GeneratedImageDataset: verdicts, regions to ignore, budget; and what an assigner makes of it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.models.task_modules.assigners import MaxIoUAssigner
from mmdet.registry import DATASETS as MMDET_DATASETS
from mmengine.structures import InstanceData

from mmdet_softpl.datasets.annotation_file import AnnotationError
from mmdet_softpl.datasets.gated_labels import gated_images
from mmdet_softpl.datasets.generated_image_dataset import GeneratedImageDataset
from mmdet_softpl.registry import DATASETS

CLASSES = ('cat', 'dog')
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='mmdet.PackDetInputs'),
]


@pytest.fixture()
def gated(good: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Image 7: a kept and a rejected dog and a region; image 3: a kept cat; 5: a region alone."""
    for image in good['images']:
        pixels = np.zeros((image['height'], image['width'], 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / image['file_name']), pixels)
    for annotation, weight in zip(good['annotations'], (0.9, 0.2, 0.8), strict=True):
        annotation.update(weight=weight, keep=weight > 0.5)
    region = dict(
        category_id=9,
        bbox=[20, 2, 10, 5],
        area=50,
        iscrowd=1,
        segmentation=[[20, 2, 30, 2, 30, 7, 20, 7]],
        weight=0.7,
        keep=True,
    )
    good['annotations'] += [dict(region, id=4, image_id=7), dict(region, id=5, image_id=5)]
    return good | {'gate': {'threshold': 0.5}}


def build(path: Path, **kwargs: Any) -> GeneratedImageDataset:
    return GeneratedImageDataset(
        ann_file=str(path),
        data_prefix=dict(img=str(path.parent)),
        metainfo=dict(classes=CLASSES),
        **kwargs,
    )


def test_registered_under_both_names() -> None:
    assert DATASETS.get('GeneratedImageDataset') is GeneratedImageDataset
    assert MMDET_DATASETS.get('mmdet_softpl.GeneratedImageDataset') is GeneratedImageDataset


def test_rejected_labels_and_empty_images_are_left_out(gated: dict[str, Any], write) -> None:
    dataset = build(write(gated), pipeline=PIPELINE)
    assert [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))] == [
        'generated-7',
        'generated-3',
    ]
    sample = dataset[0]['data_samples']
    assert sample.gt_instances.bboxes.tensor.tolist() == [[1, 2, 11, 7]]
    assert sample.gt_instances.labels.tolist() == [1]
    assert len(sample.gt_instances.masks) == 1
    assert sample.ignored_instances.bboxes.tensor.tolist() == [[20, 2, 30, 7]]
    assert dataset[1]['data_samples'].gt_instances.labels.tolist() == [0]


def test_with_everything_kept_it_is_the_hosts(gated: dict[str, Any], write) -> None:
    for annotation in gated['annotations']:
        annotation['keep'] = True
    path = write(gated)
    ours = build(path, filter_cfg=dict(filter_empty_gt=True, min_size=8))
    host = CocoDataset(
        ann_file=str(path),
        data_prefix=dict(img=str(path.parent)),
        metainfo=dict(classes=CLASSES),
    )
    infos = [ours.get_data_info(i) for i in range(len(ours))]
    expected = [host.get_data_info(i) for i in range(len(host))]
    # Image 5 shows nothing but a region, so it says nothing.
    for info in (*infos, *expected):
        del info['sample_idx']
    # A number that the labelled file may have as well is none of its images.
    assert infos and infos == [
        dict(e, img_id=f'generated-{e["img_id"]}') for e in expected if e['img_id'] != 5
    ]


def test_min_size(gated: dict[str, Any], write) -> None:
    gated['images'][1].update(height=9, width=60)
    dataset = build(write(gated), filter_cfg=dict(min_size=10))
    assert [info['img_id'] for info in dataset] == ['generated-7']


@pytest.mark.parametrize(
    ('counts', 'target', 'expected'), [((0, 5), 5, [3]), ((5, 0), 5, [7]), ((0, 0), 9, [7, 3])]
)
def test_budget(
    gated: dict[str, Any], write, counts: tuple[int, int], target: int, expected: list[int]
) -> None:
    labels = [9] * counts[0] + [2] * counts[1]
    labeled = dict(
        images=gated['images'],
        categories=gated['categories'],
        annotations=[
            dict(id=i, image_id=7, category_id=label, bbox=[0, 0, 4, 4], area=16)
            for i, label in enumerate(labels, 1)
        ]
        or [dict(id=1, image_id=7, category_id=9, bbox=[0, 0, 4, 4], area=16)],
    )
    dataset = build(
        write(gated), labeled_ann_file=str(write(labeled, 'labeled.json')), target_count=target
    )
    found = [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))]
    assert found == [f'generated-{number}' for number in expected]


def test_regions_are_no_background_to_an_assigner(gated: dict[str, Any], write) -> None:
    """The option that the docs name does what they say, and is needed."""
    sample = build(write(gated), pipeline=PIPELINE)[0]['data_samples']
    truth = InstanceData(
        bboxes=sample.gt_instances.bboxes.tensor, labels=sample.gt_instances.labels
    )
    ignored = InstanceData(bboxes=sample.ignored_instances.bboxes.tensor)
    priors = torch.tensor([[1.0, 2, 11, 7], [21, 2, 30, 7], [40, 20, 50, 30]])
    for thr, expected in ((0.5, [1, -1, 0]), (-1, [1, 0, 0])):
        assigner = MaxIoUAssigner(pos_iou_thr=0.5, neg_iou_thr=0.5, ignore_iof_thr=thr)
        result = assigner.assign(InstanceData(priors=priors), truth, ignored)
        assert result.gt_inds.tolist() == expected


def test_images_that_would_be_all_background_are_left_out(gated: dict[str, Any], write) -> None:
    """mmdet drops a label of area 0, and stops at one without; the image would stay, empty."""
    for spoil in (
        dict(area=0),
        dict(area=None),
        dict(bbox=[1.0, 2.0, 0.5, 5.0]),
        dict(bbox=[500.0, 2.0, 10.0, 5.0]),
        dict(ignore=1),
    ):
        content = copy.deepcopy(gated)
        first = content['annotations'][0]
        first.update(spoil)
        if first['area'] is None:
            del first['area']
        with pytest.warns(UserWarning, match=r'ann\.json: mmdet cannot use 1 of 2 kept.*id 1:'):
            dataset = build(write(content))
        assert [info['img_id'] for info in dataset] == ['generated-3']
        content['annotations'][2].update(spoil)
        if content['annotations'][2]['area'] is None:
            del content['annotations'][2]['area']
        with pytest.raises(ValueError, match=r'cannot use 2 of 2 kept labels.*Correct the file'):
            build(write(content))


def test_a_label_added_by_hand_counts(gated: dict[str, Any], write) -> None:
    hand = dict(id=9, image_id=5, category_id=2, bbox=[1, 1, 8, 8], area=64)
    gated['annotations'].append(dict(hand, segmentation=[[1, 1, 9, 1, 9, 9, 1, 9]]))
    counted = write(gated, 'counted.json')
    for budget in ({}, dict(labeled_ann_file=str(counted), target_count=9)):
        dataset = build(write(gated), **budget)
        assert 'generated-5' in [info['img_id'] for info in dataset]


def test_a_part_of_the_classes(gated: dict[str, Any], write) -> None:
    """As `gate` takes it: the generated json has the trained classes, the labelled one more."""
    cats = {c['name']: c for c in gated['categories']}
    more = dict(id=77, name='cow')
    labeled = dict(
        images=gated['images'],
        categories=[more, *gated['categories']],
        annotations=[
            dict(id=1, image_id=7, category_id=cats['dog']['id'], bbox=[0, 0, 4, 4], area=16),
            dict(id=2, image_id=7, category_id=77, bbox=[0, 0, 4, 4], area=16),
        ],
    )
    path = str(write(labeled, 'labeled.json'))
    dataset = build(write(gated), labeled_ann_file=path, target_count=1)
    assert [info['img_id'] for info in dataset] == ['generated-3']
    gated['categories'].append(more)
    gated['annotations'].append(dict(gated['annotations'][0], id=8, image_id=5, category_id=77))
    dataset = build(write(gated), labeled_ann_file=path, target_count=1)
    assert [info['img_id'] for info in dataset] == ['generated-3']


def test_errors(gated: dict[str, Any], write) -> None:
    bare = {k: v for k, v in gated.items() if k != 'gate'}
    with pytest.raises(ValueError, match=r'ann\.json: key `gate` is missing.*mmdet_softpl gate'):
        build(write(bare))
    with pytest.raises(ValueError, match='belong together'):
        build(write(gated), target_count=5)
    with pytest.raises(ValueError, match='target_count must be at least 1, got 0'):
        build(write(gated), target_count=0, labeled_ann_file='x.json')
    with pytest.raises(AnnotationError, match=r'nowhere\.json'):
        build(write(gated), target_count=5, labeled_ann_file='nowhere.json')
    with pytest.raises(ValueError, match=r'ann\.json: each of the 2 images has a side .*=500'):
        build(write(gated), filter_cfg=dict(min_size=500))
    full = dict(
        images=gated['images'],
        categories=gated['categories'],
        annotations=[
            dict(id=i, image_id=7, category_id=(9, 2)[i % 2], bbox=[0, 0, 4, 4], area=16)
            for i in range(10)
        ],
    )
    with pytest.raises(ValueError, match=r'no image is taken.*target_count=5 instances in .*full'):
        build(write(gated), labeled_ann_file=str(write(full, 'full.json')), target_count=5)
    for annotation in gated['annotations']:
        annotation['keep'] = bool(annotation.get('iscrowd'))
    with pytest.raises(ValueError, match='kept none of 3 labels'):
        build(write(gated))


def test_the_budget_takes_the_surest_labels_first(tmp_path: Path) -> None:
    """One cat is wanted: that of image 2, which the file names last."""
    content = dict(
        images=[dict(id=i, file_name=f'{i}.png', height=40, width=40) for i in (1, 2)],
        categories=[dict(id=1, name='cat')],
        annotations=[
            dict(
                id=i,
                image_id=i,
                category_id=1,
                bbox=[2, 2, 10, 10],
                area=100,
                iscrowd=0,
                keep=True,
                weight=weight,
            )
            for i, weight in ((1, 0.6), (2, 0.9))
        ],
    )
    labeled = tmp_path / 'labeled.json'
    labeled.write_text(json.dumps(dict(content, annotations=content['annotations'][:1])))
    chosen, _ = gated_images('gated.json', content | dict(gate={}), None, str(labeled), 2)
    assert chosen == {2}
