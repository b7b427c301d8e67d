"""The checks name file, key and value; the counts equal those by hand and pycocotools'."""

from __future__ import annotations

import json
import re
import time
import warnings

import numpy as np
import pytest

from mmdet_softpl.datasets.annotation_checks import (
    check_annotations,
    check_num_classes,
    check_same_categories,
)
from mmdet_softpl.datasets.annotation_file import AnnotationError, image_file_name


def _error(path, **kwargs) -> str:
    with pytest.raises(AnnotationError) as caught:
        check_annotations(path, **kwargs)
    return str(caught.value)


def test_counts_of_a_good_file(good, write):
    summary = check_annotations(write(good))
    assert summary.classes == ('cat', 'dog')
    assert summary.category_ids == (9, 2)
    assert summary.image_counts.tolist() == [1, 1]
    assert summary.instance_counts.tolist() == [1, 2]
    assert summary.num_images == 3
    assert not summary.federated and summary.known_classes is None
    assert summary.warnings == ()


def test_files_that_do_not_load(tmp_path, good):
    path = tmp_path / 'x.json'
    assert 'does not exist' in _error(path) and 'x.json' in _error(path)
    path.write_text('')
    assert 'empty (0 bytes)' in _error(path)
    path.write_text(json.dumps(good)[:-40])
    message = _error(path)
    assert 'line 1' in message and 'truncated' in message
    path.write_text(json.dumps(good), encoding='utf-8-sig')
    message = _error(path)
    assert 'byte order mark' in message and 'truncated' not in message
    path.write_bytes(b'\xff\xfe\x00')
    assert 'UTF-8' in _error(path)
    path.write_text('[1, 2]')
    assert 'list' in _error(path)


@pytest.mark.parametrize('key', ['images', 'categories', 'annotations'])
def test_missing_key(good, write, key):
    del good[key]
    assert f'`{key}`' in _error(write(good))


def test_no_annotation_at_all(good, write):
    good['annotations'] = []
    assert 'no annotation' in _error(write(good))
    summary = check_annotations(write(good), require_annotations=False)
    assert summary.warnings == ()
    assert summary.instance_counts.tolist() == [0, 0]
    del good['annotations']
    assert check_annotations(write(good), require_annotations=False).num_images == 3


def test_equal_entries_of_a_file_are_doubted(good, write):
    """Somebody may list an image twice for it to be seen twice; nothing is background in it."""
    good['images'][2]['file_name'] = 'b.jpg'
    good['annotations'].append(dict(good['annotations'][2], id=4, image_id=5))
    (warning,) = check_annotations(write(good)).warnings
    assert '1 image files have more than one entry: b.jpg' in warning
    good['annotations'][-1]['bbox'] = [0, 0, 4, 5]
    assert 'b.jpg: image ids 3, 5' in _error(write(good))


FAULTS = {
    'category id that': (lambda d: d['annotations'][0].update(category_id=44), 'category_id=44'),
    'image id that': (lambda d: d['annotations'][0].update(image_id=45), 'image_id=45'),
    'zero size': (lambda d: d['annotations'][0].update(bbox=[1, 2, 0, 5]), '[1, 2, 0, 5]'),
    'negative': (lambda d: d['annotations'][0].update(bbox=[1, 2, 3, -5]), '[1, 2, 3, -5]'),
    'infinite': (lambda d: d['annotations'][0].update(bbox=[1, 2, 3, float('nan')]), 'nan'),
    'without `id`': (lambda d: d['annotations'][0].pop('id'), 'annotations[0]'),
    'no finite number': (
        lambda d: d['annotations'][0]['segmentation'][0].__setitem__(0, float('nan')),
        'nan',
    ),
    'neither 0 nor 1': (lambda d: d['annotations'][0].update(iscrowd='0'), "'0'"),
    'write the ids of both as numbers': (
        lambda d: d['annotations'][0].update(category_id='2'),
        "category_id='2'",
    ),
    'usable `image_id`': (lambda d: d['annotations'][0].pop('bbox'), "'bbox'"),
    'fewer than three': (
        lambda d: d['annotations'][1].update(segmentation=[[1, 2, 3, 4]]),
        '[1, 2, 3, 4]',
    ),
    'duplicate annotation id': (lambda d: d['annotations'][1].update(id=1), 'id=1'),
    'duplicate image id': (lambda d: d['images'][1].update(id=7), 'id=7'),
    'several entries': (lambda d: d['images'][1].update(file_name='./a.jpg'), 'image ids 7, 3'),
    'duplicate category id': (lambda d: d['categories'][1].update(id=9), 'id=9'),
    'duplicate category name': (lambda d: d['categories'][1].update(name='cat'), "'cat'"),
    'category without': (lambda d: d['categories'][1].pop('name'), "{'id': 2}"),
    'image without': (lambda d: d['images'][1].pop('id'), 'b.jpg'),
    'unknown `frequency`': (lambda d: d['categories'][1].update(frequency='x'), "'x'"),
    'neither polygons nor an RLE': (
        lambda d: d['annotations'][0].update(segmentation=float('nan')),
        'segmentation=nan',
    ),
    '`image_count` that is no whole number': (
        lambda d: d['categories'][1].update(image_count=[]),
        'categories[1]: image_count=[]',
    ),
    '`instance_count` that is no whole number': (
        lambda d: d['categories'][1].update(instance_count=-1),
        'instance_count=-1',
    ),
    'no category': (lambda d: d.update(categories=[]), 'empty list'),
    'no image': (lambda d: d.update(images=[]), 'empty list'),
}


@pytest.mark.parametrize('kind', FAULTS)
def test_each_fault_is_named_with_its_value(good, write, kind):
    change, value = FAULTS[kind]
    change(good)
    path = write(good)
    message = _error(path)
    assert kind in message
    assert value in message
    assert str(path) in message


@pytest.mark.parametrize('key', ['images', 'categories', 'annotations'])
@pytest.mark.parametrize('value', ['IMG_7', None, 7.5, float('nan')])
def test_ids_that_the_evaluation_cannot_keep(good, write, key, value):
    good[key][-1]['id'] = value
    message = _error(write(good), whole_ids=True)
    assert f'{key}[{len(good[key]) - 1}]: id={value!r}' in message
    assert 'COCO ids are integers; number them anew.' in message
    good[key][-1]['id'] = 8.0
    for annotation in good['annotations']:
        if key == 'categories' and annotation['category_id'] == 2:
            annotation['category_id'] = 8
    check_annotations(write(good), whole_ids=True)


@pytest.mark.parametrize('value', [2**53, 2**63, -(2**53)])
def test_ids_that_the_evaluation_would_mix_up(good, write, value):
    good['categories'][0]['id'] = value
    for annotation in good['annotations']:
        if annotation['category_id'] == 9:
            annotation['category_id'] = value
    assert f'categories[0]: id={value}' in _error(write(good), whole_ids=True)
    check_annotations(write(good))
    good['categories'][0]['id'] = value - (1 if value > 0 else -1)
    for annotation in good['annotations']:
        if annotation['category_id'] == value:
            annotation['category_id'] = good['categories'][0]['id']
    if value == 2**63:
        return
    check_annotations(write(good), whole_ids=True)


def test_words_are_ids_where_nothing_is_evaluated(good, write):
    good['images'][-1]['id'] = good['annotations'][-1]['image_id'] = 'IMG_7'
    good['annotations'][-1]['id'] = '6f1c'
    check_annotations(write(good))


def test_all_faults_in_one_error_ten_examples_each(good, write):
    for i in range(25):
        good['annotations'].append({**good['annotations'][0], 'id': 100 + i, 'category_id': 1000})
    good['annotations'][0]['image_id'] = 99
    message = _error(write(good))
    assert '(25):' in message and 'and 15 more' in message
    assert message.count('category_id=1000') == 10
    assert 'image_id=99' in message


def test_a_few_unusable_boxes_of_a_large_file_are_a_warning(good, write):
    good['annotations'] += [
        {**good['annotations'][0], 'id': 100 + i} for i in range(10_000 - len(good['annotations']))
    ]
    good['annotations'][0]['bbox'] = [1, 2, 0, 5]
    (warning,) = check_annotations(write(good)).warnings
    assert 'zero size' in warning and 'id=1' in warning
    good['annotations'][1]['bbox'] = [1, 2, 0, 5]
    assert 'zero size (2)' in _error(write(good))


def test_names_that_differ_in_case_alone_are_a_warning(good, write):
    good['categories'][1]['name'] = good['categories'][0]['name'].upper() + ' '
    (warning,) = check_annotations(write(good)).warnings
    for category in good['categories'][:2]:
        assert repr(category['name']) in warning


def test_class_without_image_is_a_warning(good, write):
    good['categories'].append({'id': 11, 'name': 'yak'})
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        summary = check_annotations(write(good))
    (warning,) = summary.warnings
    assert '1 of 3 classes have no labelled image: yak' in warning
    assert summary.image_counts.tolist() == [1, 1, 0]


def test_image_counts_of_a_larger_file_are_a_warning(good, write):
    for category, count in zip(good['categories'], (1, 50), strict=True):
        category.update(image_count=count)
    (warning,) = check_annotations(write(good, 'part.json')).warnings
    for word in (
        '`image_count` of 1 of 2',
        'part.json',
        "'dog'",
        'declared 50, counted 1',
        'python -m mmdet_softpl split',
    ):
        assert word in warning
    # Of classes that are left out, and of unlabelled sets, the counts do not matter.
    assert check_annotations(write(good), classes=('cat',)).warnings == ()
    assert check_annotations(write(good), require_annotations=False).warnings == ()


def test_image_root(good, write, tmp_path):
    for name in 'ab':
        (tmp_path / f'{name}.jpg').touch()
    message = _error(write(good), image_root=tmp_path)
    assert 'missing image file (1)' in message and 'c.jpg' in message
    (tmp_path / 'c.jpg').touch()
    assert check_annotations(write(good), image_root=tmp_path).num_images == 3


def test_classes_choose_a_subset_but_not_an_order(good, write):
    path = write(good)
    summary = check_annotations(path, classes=('dog',))
    assert summary.category_ids == (2,) and summary.instance_counts.tolist() == [2]
    assert 'order' in _error(path, classes=('dog', 'cat'))
    assert "'yak'" in _error(path, classes=('cat', 'yak'))
    assert "('dog',)" in _error(path, classes='dog')


def test_num_classes(good, write):
    summary = check_annotations(write(good), num_classes=2)
    with pytest.raises(AnnotationError, match=r'2 classes.*num_classes=80'):
        check_num_classes(summary, 80)


def test_same_categories(good, write):
    first = check_annotations(write(good))
    check_same_categories(first, first)
    good['categories'].reverse()
    other = check_annotations(write(good, 'other.json'))
    with pytest.raises(AnnotationError, match=r"other.json.*label 0 is 'dog' here, 'cat' there"):
        check_same_categories(first, other)
    good['categories'][0]['name'] = 'yak'
    other = check_annotations(write(good, 'other.json'))
    with pytest.raises(AnnotationError, match=r"\['dog'\].*\['yak'\]"):
        check_same_categories(first, other)


def test_many_classes_take_no_square_of_time(good, write):
    categories = [{'id': i, 'name': f'class {i}'} for i in range(13_204)]
    good['categories'] = categories
    names = tuple(c['name'] for c in categories)
    start = time.process_time()
    first = check_annotations(write(good), classes=names)
    good['categories'] = [dict(c, name=f'{c["name"]}!') for c in categories]
    other = check_annotations(write(good, 'other.json'))
    with pytest.raises(AnnotationError, match=r'only in the first \(13204\)'):
        check_same_categories(first, other)
    assert time.process_time() - start < 1.5


def test_federated_known_classes(good, write):
    for image, negative in zip(good['images'], ([9], [], [9, 2]), strict=True):
        image.update(neg_category_ids=negative, not_exhaustive_category_ids=[])
    good['images'][0]['not_exhaustive_category_ids'] = [2]
    summary = check_annotations(write(good))
    assert summary.federated
    assert summary.known_classes == {7: {0, 1}, 3: {0}, 5: {0, 1}}
    assert summary.not_exhaustive_classes == {7: {1}}
    subset = check_annotations(write(good), classes=('dog',))
    assert subset.known_classes == {7: {0}, 3: set(), 5: {0}}


def test_image_file_name():
    url = 'http://images.cocodataset.org/train2017/000000391895.jpg'
    assert image_file_name({'coco_url': url}) == 'train2017/000000391895.jpg'
    assert image_file_name({'coco_url': url, 'file_name': 'x.jpg'}) == 'x.jpg'
    assert image_file_name({'id': 1}) is None


def test_coco_tiny_counts_equal_pycocotools(coco_tiny):
    from pycocotools.coco import COCO

    path = coco_tiny / 'instances_train2017.json'
    summary = check_annotations(path, num_classes=80, image_root=coco_tiny / 'train2017')
    coco = COCO(str(path))
    ids = coco.getCatIds()
    assert list(summary.category_ids) == ids
    single = [coco.loadAnns(coco.getAnnIds(catIds=[i], iscrowd=False)) for i in ids]
    assert sum(map(len, single)) < len(coco.anns), 'there are crowds'
    images = [{a['image_id'] for a in of_class} for of_class in single]
    np.testing.assert_array_equal(summary.image_counts, [len(found) for found in images])
    np.testing.assert_array_equal(summary.instance_counts, [len(found) for found in single])
    assert summary.num_labelled_images == len(set().union(*images))


def test_a_file_of_crowds_is_no_labelled_file(good, write):
    """As CVAT may export masks: the host would train on nothing."""
    for annotation in good['annotations']:
        annotation['iscrowd'] = 1
    with pytest.raises(AnnotationError, match='no annotation but crowds'):
        check_annotations(write(good))


@pytest.mark.parametrize(
    ('key', 'entry', 'words'),
    [
        ('categories', dict(id=3, name=5), 'no text'),
        ('categories', dict(id=[3], name='c'), 'no text'),
        ('images', dict(id=[9], file_name='x.png'), 'image `id` that is no number'),
        ('images', dict(id=9, neg_category_ids=None), '`neg_category_ids` that is no list'),
        ('images', dict(id=9, neg_category_ids=[[2]]), 'neg_category_ids=[[2]]'),
        ('annotations', dict(id=[7]), 'without usable `image_id`'),
        ('annotations', dict(image_id=[7]), 'without usable `image_id`'),
    ],
)
def test_values_of_another_kind_are_named(good, write, key, entry, words):
    good[key].append({**(good[key][0] if key == 'annotations' else {}), **entry})
    with pytest.raises(AnnotationError, match=re.escape(words)):
        check_annotations(write(good))


def test_checking_takes_about_as_long_as_loading(good, write):
    annotation = good['annotations'][0]
    good['annotations'] = [{**annotation, 'id': i} for i in range(30_000)]
    good['annotations'][0]['category_id'] = 9
    path = write(good)
    start = time.process_time()
    json.loads(path.read_text())
    load = time.process_time() - start
    start = time.process_time()
    check_annotations(path)
    assert time.process_time() - start < 4 * load + 0.5
