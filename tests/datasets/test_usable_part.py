"""What is left of a faulty file is sound, and is what was sound before."""

from __future__ import annotations

import pytest

from mmdet_softpl.datasets.annotation_checks import check_annotations
from mmdet_softpl.datasets.usable_part import usable_part

BOX = [1, 1, 5, 5]
FAULTS = {
    'image without id': lambda d: d['images'].append({'file_name': 'x.jpg'}),
    'image that is no dict': lambda d: d['images'].append('x.jpg'),
    'duplicate image': lambda d: d['images'].append({'id': 7, 'file_name': 'x.jpg'}),
    'category without name': lambda d: d['categories'].append({'id': 4}),
    'duplicate category id': lambda d: d['categories'].append({'id': 9, 'name': 'yak'}),
    'duplicate category name': lambda d: d['categories'].append({'id': 4, 'name': 'cat'}),
    'annotation without box': lambda d: d['annotations'].append(
        {'id': 4, 'image_id': 7, 'category_id': 2}
    ),
    'annotation that is no dict': lambda d: d['annotations'].append(None),
    'unknown image': lambda d: d['annotations'].append(
        {'id': 4, 'image_id': 99, 'category_id': 2, 'bbox': BOX}
    ),
    'image id that is a list': lambda d: d['annotations'].append(
        {'id': 4, 'image_id': [7], 'category_id': 2, 'bbox': BOX}
    ),
    'category id that pandas did not know': lambda d: d['annotations'].append(
        {'id': 4, 'image_id': 7, 'category_id': float('nan'), 'bbox': BOX}
    ),
    'unknown category': lambda d: d['annotations'].append(
        {'id': 4, 'image_id': 7, 'category_id': 99, 'bbox': BOX}
    ),
    'empty box': lambda d: d['annotations'].append(
        {'id': 4, 'image_id': 7, 'category_id': 2, 'bbox': [1, 1, 0, 5]}
    ),
    'infinite box': lambda d: d['annotations'].append(
        {'id': 4, 'image_id': 7, 'category_id': 2, 'bbox': [1, 1, float('inf'), 5]}
    ),
    'box of words': lambda d: d['annotations'].append(
        {'id': 4, 'image_id': 7, 'category_id': 2, 'bbox': ['a', 'b', 'c', 'd']}
    ),
    'line for a polygon': lambda d: d['annotations'].append(
        {'id': 4, 'image_id': 7, 'category_id': 2, 'bbox': BOX, 'segmentation': [[1, 1, 2, 2]]}
    ),
    'mask that pandas did not know': lambda d: d['annotations'].append(
        {'id': 4, 'image_id': 7, 'category_id': 2, 'bbox': BOX, 'segmentation': float('nan')}
    ),
    'duplicate annotation': lambda d: d['annotations'].append(dict(d['annotations'][0])),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_fault_is_left_out(fault, good):
    wanted = check_annotations('good.json', data=good)
    before = {key: list(value) for key, value in good.items()}
    FAULTS[fault](good)
    with pytest.raises(ValueError):
        check_annotations('bad.json', data=good)
    part, classes = usable_part(good)
    assert classes is None
    found = check_annotations('part.json', data=part)
    assert found.classes == wanted.classes
    assert found.instance_counts.tolist() == wanted.instance_counts.tolist()
    assert {key: part[key] for key in before} == before


def test_what_cannot_be_worked_with_is_no_key(good):
    good['categories'][0].update(image_count=[], instance_count=None, frequency='x')
    good['images'][0].update(neg_category_ids=[[2]], not_exhaustive_category_ids=[2])
    part, _ = usable_part(good)
    assert part['categories'][0] == {'id': 9, 'name': 'cat', 'instance_count': None}
    kept = {'id', 'file_name', 'height', 'width', 'not_exhaustive_category_ids'}
    assert set(part['images'][0]) == kept
    check_annotations('part.json', data=part)


def test_classes_are_cut_down_and_ordered(good):
    _, classes = usable_part(good, ('dog', 'yak', 'cat'))
    assert classes == ('cat', 'dog')
    assert usable_part(good, 'cat')[1] is None


def test_annotations_may_be_missing(good):
    del good['annotations']
    assert usable_part(good)[0]['annotations'] == []
