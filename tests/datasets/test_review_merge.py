"""Files of a review written, corrected as a person would, and merged."""

from __future__ import annotations

import copy
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.registry import DefaultScope

from mmdet_softpl.datasets.annotation_file import AnnotationError
from mmdet_softpl.datasets.review_masks import (
    decode_mask,
    encode_brush,
    encode_mask,
    segmentation_to_rle,
)
from mmdet_softpl.datasets.review_merge import match_objects, merge_review
from mmdet_softpl.datasets.review_reading import ReviewedObject, read_reviewed
from mmdet_softpl.datasets.review_writing import (
    UNFINISHED,
    coco_export,
    label_studio_config,
    label_studio_tasks,
)

CLASSES = ['cat', 'dog & <co>', 'owl']
DATE = '2026-01-02T03:04:05+00:00'


def disc(x: int, y: int, radius: int, height: int = 60, width: int = 80) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


MASKS = [disc(20, 20, 12), disc(55, 30, 15), disc(40, 45, 10)]


@pytest.fixture
def manifest() -> dict[str, Any]:
    """Two images: a cat and a dog in the first, an owl in the second."""

    def entry(name: str, mask: np.ndarray, confidence: float) -> dict[str, Any]:
        ys, xs = np.nonzero(mask)
        box = [xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1]
        return {
            'class': name,
            'bbox': [float(v) for v in box],
            'score': confidence,
            'confidence': confidence,
            'rle': encode_mask(mask),
        }

    def image(index: int, *objects: dict[str, Any]) -> dict[str, Any]:
        return dict(
            image=index,
            file=f'{index}.png',
            labeled_file_name=f'../more/{index}.png',
            height=60,
            width=80,
            objects=list(objects),
        )

    return dict(
        checkpoint_sha256='abc' * 20,
        classes=CLASSES,
        masks=True,
        images=[
            image(7, entry('cat', MASKS[0], 0.5), entry('dog & <co>', MASKS[1], 0.4)),
            image(9, entry('owl', MASKS[2], 0.3)),
        ],
    )


def labelled(lvis: bool = False) -> dict[str, Any]:
    categories: list[dict[str, Any]] = [dict(id=10 * i, name=n) for i, n in enumerate(CLASSES, 1)]
    image: dict[str, Any] = dict(id=5, height=60, width=80)
    if lvis:
        image.update(
            coco_url='http://images.cocodataset.org/train/a.png',
            neg_category_ids=[30],
            not_exhaustive_category_ids=[],
        )
        for category in categories:
            category.update(frequency='r', image_count=0, instance_count=0)
        categories[0].update(image_count=1, instance_count=1)
    else:
        image['file_name'] = 'a.png'
    annotation = dict(
        id=3, image_id=5, category_id=10, bbox=[1, 1, 9, 9], area=81, iscrowd=0,
        segmentation=[[1, 1, 10, 1, 10, 10, 1, 10]],
    )  # fmt: skip
    return dict(images=[image], annotations=[annotation], categories=categories)


def submitted(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As a reviewer who agrees with everything sends them back."""
    tasks = copy.deepcopy(tasks)
    for number, task in enumerate(tasks):
        result = task.pop('predictions')[0]['result']
        task['id'] = number
        task['annotations'] = [dict(completed_by=dict(email='a@b.c'), result=result)]
    return tasks


def merged_from(path: Path, content: Any, manifest: dict, lvis: bool = False, complete=None):
    path.write_text(json.dumps(content))
    reviewed = read_reviewed(path, manifest)
    return merge_review(
        labelled(lvis),
        reviewed,
        manifest,
        labeled_file='labelled.json',
        complete={i.file for i in reviewed} if complete is None else complete,
        reviewer='ann',
        date=DATE,
    )


@pytest.mark.parametrize('kind', ['polygon', 'rle', 'label-studio'])
def test_a_round_trip_loses_nothing(kind: str, manifest: dict, tmp_path: Path) -> None:
    if kind == 'label-studio':
        content: Any = submitted(label_studio_tasks(manifest, 'x/'))
    else:
        content = coco_export(manifest, kind)
        # Tools give new ids and other orders, and put folders before names.
        for category in content['categories']:
            category['id'] = 100 - category['id']
        for annotation in content['annotations']:
            annotation.update(id=50 - annotation['id'], category_id=100 - annotation['category_id'])
        content['images'][0]['file_name'] = 'task_1/7.png'
    merged, summary = merged_from(tmp_path / 'back.json', content, manifest)

    assert summary.images == 2 and summary.left_out == ()
    assert summary.accepted == {'cat': 1, 'dog & <co>': 1, 'owl': 1}
    assert not summary.corrected and not summary.added and not summary.deleted
    assert merged['images'][0] == labelled()['images'][0]
    assert [i['file_name'] for i in merged['images'][1:]] == ['../more/7.png', '../more/9.png']
    new = sorted(merged['annotations'][1:], key=lambda a: a['category_id'])
    assert [a['category_id'] for a in new] == [10, 20, 30]
    for annotation, mask, confidence in zip(new, MASKS, (0.5, 0.4, 0.3), strict=True):
        back = decode_mask(segmentation_to_rle(annotation['segmentation'], 60, 80))
        if kind == 'polygon':
            assert isinstance(annotation['segmentation'], list)
            assert (back & mask).sum() / (back | mask).sum() >= 0.98
        else:
            np.testing.assert_array_equal(back, mask)
        ys, xs = np.nonzero(back)
        assert annotation['area'] == back.sum()
        assert annotation['bbox'] == [
            xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1,
        ]  # fmt: skip
        assert annotation['provenance'] == dict(
            source='accepted',
            pseudo_confidence=confidence,
            pseudo_class=CLASSES[[10, 20, 30].index(annotation['category_id'])],
            reviewer='a@b.c' if kind == 'label-studio' else 'ann',
            checkpoint_sha256='abc' * 20,
            date=DATE,
        )
    assert len({a['id'] for a in merged['annotations']}) == 4


def cvat_export(content: dict[str, Any]) -> dict[str, Any]:
    """As CVAT's "COCO 1.0" writes masks: counts as numbers, and as crowds."""
    content = copy.deepcopy(content)
    for annotation in content['annotations']:
        flat = decode_mask(annotation['segmentation']).ravel(order='F')
        starts = np.flatnonzero(np.diff(flat)) + 1
        runs = np.diff(np.concatenate(([0], starts, [flat.size]))).tolist()
        counts = [0, *runs] if flat[0] else runs
        annotation.update(iscrowd=1, segmentation=dict(size=[60, 80], counts=counts))
    return content


def test_masks_from_cvat_are_trained_on(manifest: dict, tmp_path: Path) -> None:
    """The host ignores crowds, and CVAT calls every mask one."""
    content = cvat_export(coco_export(manifest, 'rle'))
    merged, summary = merged_from(tmp_path / 'back.json', content, manifest)
    assert summary.accepted == {'cat': 1, 'dog & <co>': 1, 'owl': 1}
    (tmp_path / 'merged.json').write_text(json.dumps(merged))
    with DefaultScope.overwrite_default_scope('mmdet'):
        host = DATASETS.build(
            dict(
                type='CocoDataset',
                ann_file=str(tmp_path / 'merged.json'),
                data_prefix=dict(img=''),
                metainfo=dict(classes=CLASSES),
                pipeline=[],
            )
        )
    new = [one for i in (1, 2) for one in host.get_data_info(i)['instances']]
    assert [one['ignore_flag'] for one in new] == [0, 0, 0]
    np.testing.assert_array_equal([decode_mask(one['mask']) for one in new], MASKS)


def test_corrections_are_told_apart_and_lvis_fields_follow(manifest: dict, tmp_path: Path) -> None:
    tasks = submitted(label_studio_tasks(manifest, ''))
    first = tasks[0]['annotations'][0]['result']
    # The cat is an owl, the dog is gone, a new cat is drawn; the owl of image 9 is reshaped.
    first[0]['value']['brushlabels'] = ['owl']
    added = copy.deepcopy(first[1])
    added['value'] = dict(format='rle', rle=encode_brush(disc(60, 50, 6)), brushlabels=['cat'])
    first[1] = added
    tasks[1]['annotations'][0]['result'][0]['value']['rle'] = encode_brush(disc(40, 45, 8))
    before = labelled(lvis=True)
    merged, summary = merged_from(tmp_path / 'back.json', tasks, manifest, lvis=True)

    assert summary.accepted == {}
    assert summary.corrected == {'cat': 1, 'owl': 1} and summary.relabelled == 1
    assert summary.added == {'cat': 1}
    assert summary.deleted == {'dog & <co>': 1}
    sources = [a['provenance']['source'] for a in merged['annotations'][1:]]
    assert sources == ['corrected', 'added', 'corrected']
    assert merged['annotations'][2]['provenance']['pseudo_confidence'] is None
    assert merged['images'][0] == before['images'][0]
    image = merged['images'][1]
    assert image['neg_category_ids'] == [20] and image['not_exhaustive_category_ids'] == []
    assert image['coco_url'].endswith('/../more/7.png')
    assert [(c['image_count'], c['instance_count']) for c in merged['categories']] == [
        (2, 2), (0, 0), (2, 2),
    ]  # fmt: skip


def test_a_class_that_is_left_is_not_absent(manifest: dict, tmp_path: Path) -> None:
    for entry in manifest['images'][0]['objects']:
        entry['class'] = 'dog & <co>'
    content = coco_export(manifest, 'rle')
    del content['annotations'][0]
    merged, summary = merged_from(tmp_path / 'back.json', content, manifest, lvis=True)
    assert summary.deleted == {'dog & <co>': 1}
    assert merged['images'][1]['neg_category_ids'] == []


@pytest.mark.parametrize('order', [('cat', 'dog'), ('dog', 'cat')])
def test_of_labels_in_one_place_that_of_the_same_class_is_meant(order: tuple[str, ...]) -> None:
    rle = encode_mask(MASKS[0])
    exported = {name: {'class': name, 'bbox': [8, 8, 25, 25], 'rle': rle} for name in order}
    reviewed = ReviewedObject('dog', [8, 8, 25, 25], rle, rle)
    matches, gone = match_objects([reviewed], [exported[name] for name in order])
    assert matches == [('accepted', exported['dog'])] and gone == [exported['cat']]


def test_only_whole_images_become_labelled(manifest: dict, tmp_path: Path) -> None:
    content = coco_export(manifest, 'rle')
    merged, summary = merged_from(tmp_path / 'a.json', content, manifest, complete={'9.png'})
    assert summary.images == 1 and summary.left_out == ('7.png',)
    assert len(merged['images']) == 2 and len(merged['annotations']) == 2

    tasks = submitted(label_studio_tasks(manifest, ''))
    tasks[0]['annotations'][0]['result'].append(
        dict(type='choices', value=dict(choices=[UNFINISHED]))
    )
    tasks[1]['annotations'][0]['was_cancelled'] = True
    path = tmp_path / 'b.json'
    path.write_text(json.dumps(tasks))
    assert [image.complete for image in read_reviewed(path, manifest)] == [False, False]


def test_faults_are_named_together(manifest: dict, tmp_path: Path) -> None:
    content = coco_export(manifest, 'rle')
    content['images'].append(dict(id=77, file_name='other.png'))
    content['categories'][2]['name'] = 'crow'
    content['annotations'][0]['segmentation'] = [[1, 1, 2, 2]]
    content['annotations'][1]['segmentation'] = []
    path = tmp_path / 'back.json'
    path.write_text(json.dumps(content))
    with pytest.raises(AnnotationError) as caught:
        read_reviewed(path, manifest)
    for words in (str(path), "'other.png'", "'crow'", 'three points', 'no mask', 'id=1', '7.png'):
        assert words in str(caught.value)
    assert len(caught.value.problems) == 3
    assert all(problem.endswith('.') for problem in caught.value.problems), 'each with its advice'


def test_labels_of_resized_images_are_refused(manifest: dict, tmp_path: Path) -> None:
    content = coco_export(manifest, 'polygon')
    content['images'][0].update(height=30, width=40)
    # A tool that leaves the size out says nothing wrong.
    del content['images'][1]['height'], content['images'][1]['width']
    path = tmp_path / 'back.json'
    path.write_text(json.dumps(content))
    with pytest.raises(AnnotationError, match=r'another size.*7\.png: 30 x 40.*with 60 x 80') as e:
        read_reviewed(path, manifest)
    assert '9.png' not in str(e.value)


def test_image_ids_of_two_tasks_in_one_file_are_refused(manifest: dict, tmp_path: Path) -> None:
    content = coco_export(manifest, 'rle')
    for entry in (*content['images'], *content['annotations']):
        key = 'id' if 'file_name' in entry else 'image_id'
        entry[key] = content['images'][0]['id']
    path = tmp_path / 'back.json'
    path.write_text(json.dumps(content))
    with pytest.raises(AnnotationError, match=r'image id that comes twice \(1\)'):
        read_reviewed(path, manifest)


def test_ids_may_be_floats(manifest: dict, tmp_path: Path) -> None:
    """As tables of numbers write them."""
    content = coco_export(manifest, 'rle')
    for annotation in content['annotations']:
        annotation.update({k: float(annotation[k]) for k in ('image_id', 'category_id')})
    _, summary = merged_from(tmp_path / 'back.json', content, manifest)
    assert sum(summary.accepted.values()) == 3


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda c: c.update(annotations=None), '`annotations` is a NoneType'),
        (lambda c: c.update(images={}), '`images` is a dict'),
        (lambda c: c['annotations'].append(3), "entry 3 of `annotations` is '3'"),
        (lambda c: c['annotations'][0].update(image_id=[1]), 'image id that `images` does not'),
        (lambda c: c['annotations'][0].update(category_id={}), 'class that the labelled set'),
        (lambda c: c['categories'][0].update(name=['cat']), "['cat']"),
        (lambda c: c['images'][0].update(file_name=7), "image that is not in the export (1): '7'"),
        (lambda c: c['images'][0].update(id=None), 'image id that `images` does not'),
    ],
)
def test_what_is_no_coco_entry_is_named(
    change: Any, words: str, manifest: dict, tmp_path: Path
) -> None:
    content = coco_export(manifest, 'rle')
    change(content)
    path = tmp_path / 'back.json'
    path.write_text(json.dumps(content))
    with pytest.raises(AnnotationError) as caught:
        read_reviewed(path, manifest)
    assert str(path) in str(caught.value) and words in str(caught.value)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda t: t.update(data='7.png'), '`data` of task 0'),
        (lambda t: t.update(annotations=dict(a=1)), '`annotations` of task 0 is a dict'),
        (lambda t: t['annotations'].append('x'), 'entry 1 of `annotations` of task 0'),
        (lambda t: t['annotations'][0].update(result='x'), '`result` of task 0 is a str'),
        (lambda t: t['annotations'][0]['result'].append([]), 'of `result` of task 0'),
        (lambda t: t['annotations'][0]['result'][0].update(value=3), '`value` of task 0'),
        (
            lambda t: t['annotations'][0]['result'][0]['value'].update(brushlabels=[['cat']]),
            "['cat'] (task 0",
        ),
    ],
)
def test_what_is_no_label_studio_entry_is_named(
    change: Any, words: str, manifest: dict, tmp_path: Path
) -> None:
    tasks = submitted(label_studio_tasks(manifest, ''))
    change(tasks[0])
    path = tmp_path / 'back.json'
    path.write_text(json.dumps(tasks))
    with pytest.raises(AnnotationError) as caught:
        read_reviewed(path, manifest)
    assert str(path) in str(caught.value) and words in str(caught.value)


def test_a_byte_order_mark_is_no_fault(manifest: dict, tmp_path: Path) -> None:
    path = tmp_path / 'back.json'
    path.write_text(json.dumps(coco_export(manifest, 'rle')), encoding='utf-8-sig')
    assert [image.file for image in read_reviewed(path, manifest)] == ['7.png', '9.png']


@pytest.mark.parametrize(
    'content, words',
    [
        ('{', 'not a json'),
        ('{"a": 1}', 'neither'),
        ('[{"bbox": []}]', 'neither'),
        ('3', 'neither'),
    ],
)
def test_other_files_are_refused(content: str, words: str, manifest: dict, tmp_path: Path) -> None:
    path = tmp_path / 'x.json'
    path.write_text(content)
    with pytest.raises(AnnotationError, match=words):
        read_reviewed(path, manifest)
    with pytest.raises(AnnotationError, match='no such file'):
        read_reviewed(tmp_path / 'none.json', manifest)


def test_names_in_addresses(manifest: dict, tmp_path: Path) -> None:
    """Label Studio asks for what `?d=` decodes to."""
    names = ['R&D #4.png', 'x%20y.png']
    manifest['images'] = manifest['images'][:2]
    for image, name in zip(manifest['images'], names, strict=True):
        image['file'] = name
    tasks = submitted(label_studio_tasks(manifest, '/data/local-files/?d=images/'))
    asked = [parse_qs(urlsplit(task['data']['image']).query)['d'] for task in tasks]
    assert asked == [[f'images/{name}'] for name in names]
    # Where a tool keeps nothing but the address.
    for task in tasks:
        del task['data']['file']
    path = tmp_path / 'project.json'
    path.write_text(json.dumps(tasks))
    assert [image.file for image in read_reviewed(str(path), manifest)] == names


@pytest.mark.parametrize('base', ['/data/local-files/?d=images/', 'http://host/f?d=', 'images/'])
def test_an_address_is_that_of_one_image(base: str, manifest: dict, tmp_path: Path) -> None:
    names = ['x y.png', 'x%20y.png']
    for image, name in zip(manifest['images'], names, strict=True):
        image['file'] = name
    tasks = submitted(label_studio_tasks(manifest, base))
    for task in tasks:
        del task['data']['file']
    path = tmp_path / 'project.json'
    path.write_text(json.dumps(tasks))
    assert [image.file for image in read_reviewed(str(path), manifest)] == names


def test_keys_of_a_cloud_storage_are_as_they_are(manifest: dict) -> None:
    manifest['images'][0]['file'] = 'R&D #4.png'
    tasks = label_studio_tasks(manifest, 's3://bucket/x/')
    assert tasks[0]['data']['image'] == 's3://bucket/x/R&D #4.png'


def test_label_studio_faults_are_named(manifest: dict, tmp_path: Path) -> None:
    tasks = submitted(label_studio_tasks(manifest, ''))
    first, second = tasks[0]['annotations'][0]['result']
    first['value']['rle'] = first['value']['rle'][:-4]
    second['original_width'] = 81
    tasks[1]['annotations'][0]['result'][0]['type'] = 'polygonlabels'
    path = tmp_path / 'back.json'
    path.write_text(json.dumps(tasks))
    with pytest.raises(AnnotationError) as caught:
        read_reviewed(path, manifest)
    for words in ('truncated', '(60, 81)', 'polygonlabels', 'task 1', "'label0'"):
        assert words in str(caught.value)


def test_an_import_happens_once(manifest: dict, tmp_path: Path) -> None:
    content = coco_export(manifest, 'rle')
    path = tmp_path / 'back.json'
    merged, _ = merged_from(path, content, manifest)
    reviewed = read_reviewed(path, manifest)
    kwargs = dict(labeled_file='merged.json', complete={'7.png'}, reviewer=None, date=DATE)
    with pytest.raises(AnnotationError, match=r'labelled already.*7\.png'):
        merge_review(merged, reviewed, manifest, **kwargs)
    # The finished file of a project has the images of an import before it, too.
    part, first = merged_from(path, content, manifest, complete={'7.png'})
    assert first.images == 1 and first.labelled_already == ()
    kwargs['complete'] = {'7.png', '9.png'}
    whole, second = merge_review(part, reviewed, manifest, **kwargs)
    assert second.images == 1 and second.labelled_already == ('7.png',)
    assert [i['file_name'] for i in whole['images']] == [i['file_name'] for i in merged['images']]
    kwargs['complete'] = {'7.png'}
    other = labelled()
    other['images'][0]['id'] = 'IMG_5'
    with pytest.raises(AnnotationError, match=r"id='IMG_5'.*number them anew"):
        merge_review(other, reviewed, manifest, **kwargs)
    other = labelled()
    other['categories'].pop()
    with pytest.raises(AnnotationError, match='owl'):
        merge_review(other, reviewed, manifest, **kwargs)


def test_boxes_alone_make_the_round_trip(manifest: dict, tmp_path: Path) -> None:
    manifest['masks'] = False
    for image in manifest['images']:
        for entry in image['objects']:
            del entry['rle']
    for content in (
        coco_export(manifest, 'polygon'),
        submitted(label_studio_tasks(manifest, '')),
    ):
        merged, summary = merged_from(tmp_path / 'back.json', content, manifest)
        assert sum(summary.accepted.values()) == 3
        boxes = [a['bbox'] for a in merged['annotations'][1:]]
        expected = [e['bbox'] for image in manifest['images'] for e in image['objects']]
        np.testing.assert_allclose(boxes, expected)
        areas = [a['area'] for a in merged['annotations'][1:]]
        np.testing.assert_allclose(areas, [w * h for _, _, w, h in expected])


def test_the_labeling_interface_has_every_class() -> None:
    root = ElementTree.fromstring(label_studio_config(CLASSES, masks=True))
    tag = root.find('BrushLabels')
    assert tag is not None
    assert [label.get('value') for label in tag] == CLASSES
    names = {node.get('name') for node in root.iter()}
    # What the results of the tasks refer to.
    assert {'label', 'image'} <= names
