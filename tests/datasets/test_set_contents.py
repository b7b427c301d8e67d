"""What a set holds against what the host's data sets make of it, and its faults."""

from __future__ import annotations

import copy
import json
import math
from collections import Counter
from pathlib import Path

import pytest
from mmdet.registry import DATASETS
from mmengine.registry import DefaultScope

from mmdet_softpl.datasets.config_sets import configured_sets
from mmdet_softpl.datasets.findings import ERROR, WARNING
from mmdet_softpl.datasets.host_requirements import host_file_name
from mmdet_softpl.datasets.set_contents import read_set, repeat_factors

SEMI = [{'type': 'LoadAnnotations', 'with_mask': True, 'with_bbox': True}]
CLASSES = ('cat', 'dog')


def _cfg(path: Path, **kwargs) -> dict:
    return dict(
        type='CocoDataset',
        ann_file=str(path),
        data_root=f'{path.parent}/',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=CLASSES),
        pipeline=SEMI,
        **kwargs,
    )


def _read(dataset: dict, loader: str = 'train_dataloader'):
    (one,) = configured_sets({loader: dict(dataset=dataset)})
    return read_set(one)


def _kinds(contents) -> dict[str, str]:
    return {finding.kind: finding.severity for finding in contents.findings}


@pytest.mark.parametrize('filter_empty', [False, True])
@pytest.mark.parametrize('min_size', [0, 41])
def test_as_the_host_counts(good, write, filter_empty: bool, min_size: int) -> None:
    good['images'][1].update(height=60, width=70)
    good['annotations'][2]['segmentation'].update(
        size=[60, 70], counts=[0, 4, 56, 4, 56, 4, 56, 4, 4016]
    )
    # Other than the host's: an image whose annotation is of no class in use.
    filters = dict(filter_empty_gt=filter_empty, min_size=min_size)
    cfg = _cfg(write(good), filter_cfg=filters)
    contents = _read(cfg)
    with DefaultScope.overwrite_default_scope('mmdet'):
        host = DATASETS.build(copy.deepcopy(cfg))
    assert contents.used_images == contents.epoch_images == len(host)
    host_paths = {host.get_data_info(i)['img_path'] for i in range(len(host))}
    assert host_paths <= {image.path for image in contents.images}
    assert contents.num_instances == 3
    left_out = {f.kind: f.count for f in contents.findings}
    assert left_out.pop('image without an annotation', 0) == int(filter_empty)
    # One of 40 x 60 and one of 60 x 40.
    assert left_out == ({'image below `min_size`': 2} if min_size else {})


@pytest.mark.parametrize('budget', [False, True])
def test_generated_images_as_they_are_taken(good, write, budget: bool) -> None:
    """Of images with the gate's verdicts, those within the budget, and their kept labels."""
    for annotation, keep in zip(good['annotations'], (True, False, True), strict=True):
        annotation.update(keep=keep, weight=0.9 if keep else 0.1)
    labelled = write(good | {'annotations': good['annotations'][:1]}, 'labelled.json')
    cfg = _cfg(write(good | {'gate': {'threshold': 0.5}}, 'gated.json'))
    cfg['type'] = 'mmdet_softpl.GeneratedImageDataset'
    if budget:
        # A dog is labelled already, so the cat's image alone is needed.
        cfg.update(labeled_ann_file=str(labelled), target_count=1)
    contents = _read(cfg)
    with DefaultScope.overwrite_default_scope('mmdet'):
        taken = DATASETS.build(copy.deepcopy(cfg))
    assert contents.used_images == contents.epoch_images == len(taken) == (1 if budget else 2)
    infos = [taken.get_data_info(i) for i in range(len(taken))]
    assert contents.num_instances == sum(len(info['instances']) for info in infos)
    assert len(contents.images) == len(good['images'])
    assert ERROR not in _kinds(contents).values()


def test_generated_images_that_no_training_would_take(good, write) -> None:
    cfg = _cfg(write(good, 'plain.json'))
    cfg['type'] = 'mmdet_softpl.GeneratedImageDataset'
    found = _read(cfg)
    assert _kinds(found)['generated images'] == ERROR
    (finding,) = (f for f in found.findings if f.kind == 'generated images')
    assert 'plain.json: key `gate` is missing' in finding.detail
    assert 'mmdet_softpl gate' in finding.remedy


def _as_floats(data: dict, items: str, *keys: str, step: int = 1) -> None:
    for item in data[items][::step]:
        item.update({key: float(item[key]) for key in keys})


@pytest.mark.parametrize(
    'change',
    [
        lambda d: _as_floats(d, 'annotations', 'category_id'),
        lambda d: _as_floats(d, 'images', 'id'),
        lambda d: _as_floats(d, 'annotations', 'image_id', step=2),
        lambda d: _as_floats(d, 'annotations', 'id', 'image_id', 'category_id'),
        lambda d: _as_floats(d, 'categories', 'id'),
    ],
    ids=['categories of labels', 'images', 'images of every other label', 'labels', 'categories'],
)
def test_numbers_as_pandas_writes_them(change, good, write) -> None:
    change(good)
    cfg = _cfg(write(good), filter_cfg=dict(filter_empty_gt=True))
    contents = _read(cfg)
    with DefaultScope.overwrite_default_scope('mmdet'):
        host = DATASETS.build(copy.deepcopy(cfg))
    infos = [host.get_data_info(i) for i in range(len(host))]
    assert contents.used_images == len(infos) == 2
    assert contents.num_instances == sum(len(info['instances']) for info in infos) == 3
    without = {str(Path(path).name) for path in contents.without_annotation}
    assert without == {'c.jpg'}
    assert [f.kind for f in contents.findings] == ['image without an annotation']


def test_words_as_ids_end_the_training_at_its_first_validation(good, write) -> None:
    for image in good['images']:
        image['id'] = f'IMG_{image["id"]}'
    for annotation in good['annotations']:
        annotation['image_id'] = f'IMG_{annotation["image_id"]}'
    cfg = _cfg(write(good), filter_cfg=dict(filter_empty_gt=True))
    kind = 'id that is no whole number'
    for loader, severity in (('train_dataloader', WARNING), ('val_dataloader', ERROR)):
        contents = _read(cfg, loader)
        assert _kinds(contents).get(kind) == severity
        # What the file holds is still counted.
        assert len(contents.images) == 3 and contents.num_instances == 3
    unlabelled = dict(cfg, type='mmdet_softpl.UnlabeledImageDataset', filter_cfg={})
    assert _kinds(_read(unlabelled)) == {}


def test_image_ids_below_zero_end_the_first_validation(good, write) -> None:
    good['images'][0]['id'] = -5
    for annotation in good['annotations']:
        annotation['image_id'] = -5 if annotation['image_id'] == 1 else annotation['image_id']
    contents = _read(_cfg(write(good)), 'val_dataloader')
    assert _kinds(contents).get('id below 0') == ERROR


def test_a_class_left_out_of_the_config_is_named(good, write) -> None:
    cfg = dict(_cfg(write(good)), metainfo=dict(classes=('dog',)))
    (finding,) = _read(cfg).findings
    assert finding.kind == 'class that is not trained' and 'cat (' in finding.detail


def test_repeats_as_the_host_repeats(tiny_shapes: Path) -> None:
    classes = tuple((tiny_shapes / 'annotations/classes.txt').read_text().split())
    inner = dict(
        type='CocoDataset',
        ann_file=f'{tiny_shapes}/annotations/train.json',
        data_prefix=dict(img=f'{tiny_shapes}/train'),
        metainfo=dict(classes=classes),
        pipeline=[],
    )
    balanced = dict(type='ClassBalancedDataset', oversample_thr=0.6, dataset=inner)
    contents = _read(dict(type='RepeatDataset', times=2, dataset=balanced))
    with DefaultScope.overwrite_default_scope('mmdet'):
        host = DATASETS.build(copy.deepcopy(balanced))
    assert contents.epoch_images == 2 * len(host) > 2 * contents.used_images
    counts = Counter(c for i in range(28) for c in set(host.dataset.get_cat_ids(i)))
    for label, count in counts.items():
        expected = max(1, math.sqrt(0.6 / (count / 28)))
        assert contents.repeat_factors[classes[label]] == pytest.approx(expected)


def test_repeat_factors_of_empty_images() -> None:
    factors, total = repeat_factors([set(), {'a'}, {'a'}, {'a', 'b'}], 1.0)
    assert factors == pytest.approx({'a': math.sqrt(4 / 3), 'b': 2.0})
    assert total == 1 + 2 + 2 + 2
    assert repeat_factors([], 1.0) == ({}, 0)


@pytest.mark.parametrize(
    ('kind', 'image', 'name'),
    [
        ('coco', {'file_name': 'a/b.jpg', 'coco_url': 'http://x/c.jpg'}, 'a/b.jpg'),
        ('coco', {'coco_url': 'http://x/c.jpg'}, None),
        (
            'lvis v1',
            {'coco_url': 'http://images.cocodataset.org/train2017/1.jpg', 'file_name': 'z.jpg'},
            'train2017/1.jpg',
        ),
        ('lvis v1', {'file_name': 'z.jpg'}, None),
        ('lvis v0.5', {'file_name': 'COCO_val2014_000000000042.jpg'}, '000000000042.jpg'),
        ('images', {'coco_url': 'http://x/y/c.jpg'}, 'y/c.jpg'),
    ],
)
def test_file_names(kind: str, image: dict, name: str | None) -> None:
    assert host_file_name(kind, image) == name


def test_dropped_annotations_are_those_that_the_host_drops(good, write) -> None:
    boxes = [[1, 1, 0.5, 5], [70, 1, 5, 5], [-9, 1, 5, 5], [55, 1, 9, 9], [2, 2, 3, 3]]
    for i, box in enumerate(boxes):
        extra = dict(good['annotations'][0], id=10 + i, image_id=7, bbox=box)
        good['annotations'].append(extra)
    good['annotations'][-1]['area'] = 0
    extra = dict(good['annotations'][0], id=20, image_id=7, bbox=[3, 3, 5, 5], ignore=1)
    good['annotations'].append(extra)
    cfg = _cfg(write(good))
    contents = _read(cfg)
    with DefaultScope.overwrite_default_scope('mmdet'):
        host = DATASETS.build(copy.deepcopy(cfg))
    kept = sum(len(host.get_data_info(i)['instances']) for i in range(len(host)))
    dropped, ignored = contents.findings[1], contents.findings[0]
    assert (dropped.count, ignored.count) == (4, 1) and len(good['annotations']) - kept == 5
    assert dropped.severity == ignored.severity == WARNING
    assert 'pixels' in dropped.remedy and '`ignore` to 0' in ignored.remedy


@pytest.mark.parametrize(
    ('crowds', 'severity'),
    [((1, 2, 3), ERROR), ((3,), ERROR), ((1,), WARNING), ((), None)],
    ids=['all', 'all of a class', 'one of a class', 'none'],
)
def test_crowds_are_named_because_the_host_ignores_them(
    good, write, crowds: tuple[int, ...], severity: str | None
) -> None:
    for annotation in good['annotations']:
        annotation['iscrowd'] = int(annotation['id'] in crowds)
    cfg = _cfg(write(good))
    contents = _read(cfg)
    with DefaultScope.overwrite_default_scope('mmdet'):
        host = DATASETS.build(copy.deepcopy(cfg))
    every = [one for i in range(len(host)) for one in host.get_data_info(i)['instances']]
    learned = {one['bbox_label'] for one in every if not one['ignore_flag']}
    assert (len(learned) < len(CLASSES)) == (severity == ERROR)
    kind = 'annotation that is a crowd'
    kinds = _kinds(contents)
    assert kinds.pop(kind, None) == severity
    # Beside it, what the training itself would say.
    of_training = {'no annotation but crowds': ERROR} if not learned else {}
    if 0 < len(learned) < len(CLASSES):
        of_training = {'doubtful file': WARNING}
    assert kinds == of_training
    named = [f.count for f in contents.findings if f.kind == kind]
    assert sum(named) == sum(one['ignore_flag'] for one in every)
    # A class that cannot be evaluated is doubtful, a file without an object is useless.
    found = _kinds(_read(cfg, 'val_dataloader'))
    assert found.get(kind) == (ERROR if len(crowds) == 3 else severity and WARNING)


def test_a_few_crowds_are_as_usual(good, write) -> None:
    first = good['annotations'][0]
    good['annotations'] += [dict(first, id=i, iscrowd=int(i < 12)) for i in range(10, 60)]
    assert _kinds(_read(_cfg(write(good)))) == {}
    good['annotations'] += [dict(first, id=i, iscrowd=1) for i in range(60, 62)]
    assert _kinds(_read(_cfg(write(good)))) == {'annotation that is a crowd': WARNING}
    # Regions that `gate` adds are crowds on purpose.
    for annotation in good['annotations']:
        if annotation.get('iscrowd'):
            annotation['source'] = 'teacher'
    assert not _kinds(_read(_cfg(write(good))))


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (dict(size=[60, 40]), 'of size [60, 40], the image of [40, 60]'),
        (dict(counts=[0, 4, 2395]), 'add up to 40 x 60'),
        (dict(counts='0'), 'add up to 40 x 60'),
        (dict(size=None), 'of size None'),
        (dict(size=5), 'of size 5'),
        ({}, ''),
    ],
)
def test_run_lengths_of_another_image(change: dict, said: str, good, write) -> None:
    good['annotations'][2]['segmentation'].update(change)
    path = write(good)
    found = [f for f in _read(_cfg(path)).findings if 'mask' in f.kind]
    assert [f.severity for f in found] == [ERROR] * bool(said)
    for finding in found:
        assert '1 of 3 annotations: id 3 (the ' in finding.detail and said in finding.detail
    # Where no mask is loaded it does no harm.
    found = [f for f in _read(dict(_cfg(path), pipeline=[])).findings if 'mask' in f.kind]
    assert [f.severity for f in found] == [WARNING] * bool(said)


def test_normalised_boxes_are_an_error(good, write) -> None:
    for annotation in good['annotations']:
        annotation['bbox'] = [0.1, 0.1, 0.3, 0.3]
    assert _kinds(_read(_cfg(write(good)))) == {'annotation that mmdet leaves out': ERROR}


def _faults():
    def drop(where: str, key: str):
        return lambda d: [item.pop(key, None) for item in d[where]]

    return {
        'no area': (drop('annotations', 'area'), 'annotation without `area`', ERROR),
        'no masks': (
            drop('annotations', 'segmentation'),
            'annotation without `segmentation`',
            ERROR,
        ),
        'no size': (drop('images', 'height'), 'image without `height` or `width`', ERROR),
        'no names': (drop('images', 'file_name'), 'image without `file_name`', ERROR),
        'no annotations': (lambda d: d['annotations'].clear(), 'no annotation', ERROR),
        'no categories': (lambda d: d.pop('categories'), 'unusable file', ERROR),
        'other classes': (
            lambda d: d['categories'][0].update(name='yak'),
            'class of `metainfo.classes` that the file does not define',
            ERROR,
        ),
        'a bad box': (
            lambda d: d['annotations'][0].update(bbox=[1, 2, -3, 4]),
            'box of negative or infinite size',
            ERROR,
        ),
        'a mask that is none': (
            lambda d: d['annotations'][0].update(segmentation=math.nan),
            '`segmentation` that is neither polygons nor an RLE',
            ERROR,
        ),
        'an endless image': (
            lambda d: d['images'][0].update(height=math.inf),
            'image without `height` or `width`',
            ERROR,
        ),
        'a class without images': (
            lambda d: d['annotations'].pop(),
            'doubtful file',
            WARNING,
        ),
    }


@pytest.mark.parametrize(('metric', 'severity'), [('segm', ERROR), ('bbox', WARNING)])
def test_an_object_without_a_mask_where_masks_are_judged(good, write, metric, severity) -> None:
    del good['annotations'][1]['segmentation']
    path = write(good)
    cfg = dict(
        val_dataloader=dict(dataset=dict(_cfg(path), pipeline=[])),
        val_evaluator=dict(type='CocoMetric', ann_file=str(path), metric=['bbox', metric]),
    )
    (one,) = configured_sets(cfg)
    assert _kinds(read_set(one)) == {'annotation without `segmentation`': severity}


@pytest.mark.parametrize('fault', _faults())
def test_faults_are_findings(fault: str, good, write) -> None:
    change, kind, severity = _faults()[fault]
    change(good)
    path = write(good)
    contents = _read(_cfg(path))
    assert _kinds(contents).get(kind) == severity, contents.findings
    assert all(f.detail and f.remedy for f in contents.findings)
    assert any(str(path) in f.detail for f in contents.findings)


def test_a_bad_box_does_not_hide_the_rest(good, write) -> None:
    good['annotations'][2]['bbox'] = [0, 0, -1, 4]
    contents = _read(_cfg(write(good)))
    assert contents.num_instances == 2 and contents.statistics.classes == CLASSES
    assert len(contents.images) == 3


@pytest.mark.parametrize('content', [None, '', '{"images": [', '[]', '{"images": []}'])
def test_files_that_are_none(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / 'ann.json'
    if content is not None:
        path.write_text(content)
    contents = _read(_cfg(path))
    (finding,) = contents.findings
    assert (finding.kind, finding.severity) == ('unusable file', ERROR)
    assert str(path) in finding.detail and finding.remedy
    assert contents.images == () and contents.statistics is None


def test_validation_without_annotations_or_some_class(good, write) -> None:
    good['annotations'].pop()
    found = _kinds(_read(_cfg(write(good)), 'val_dataloader'))
    assert found == {'class without a validation image': WARNING}
    good['annotations'] = []
    found = _kinds(_read(_cfg(write(good)), 'val_dataloader'))
    assert found == {'no annotation': ERROR}
    # As of test-dev, whose annotations nobody has: a training does not read them.
    found = _kinds(_read(_cfg(write(good)), 'test_dataloader'))
    assert found == {'no annotation': WARNING}


def test_unlabelled_json_needs_no_annotation(good, write, tmp_path: Path) -> None:
    good.update(annotations=[], categories=[])
    dataset = dict(type='mmdet_softpl.UnlabeledImageDataset', ann_file=str(write(good)))
    contents = _read(dict(dataset, data_prefix=dict(img=str(tmp_path))))
    assert len(contents.images) == 3 and not contents.findings
    good['images'] = []
    contents = _read(dict(dataset, ann_file=str(write(good))))
    assert _kinds(contents) == {'no image': ERROR}


def test_folders(tmp_path: Path) -> None:
    dataset = dict(type='mmdet_softpl.UnlabeledImageDataset', data_root=str(tmp_path))
    assert _kinds(_read(dataset)) == {'no image': ERROR}
    (tmp_path / 'a.jpg').touch()
    contents = _read(dataset)
    assert [Path(i.path).name for i in contents.images] == ['a.jpg'] and not contents.findings
    missing = _read(dict(dataset, data_prefix=dict(img='nowhere/')))
    assert _kinds(missing) == {'missing folder': ERROR}
    file = _read(dict(dataset, data_prefix=dict(img='a.jpg')))
    assert 'is a file' in file.findings[0].detail


def test_what_cannot_be_looked_at_is_said(good, write) -> None:
    path = write(good)
    assert _kinds(_read(dict(type='VOCDataset', ann_file='x'))) == {
        'unknown type of data set': WARNING
    }
    remote = _cfg(path, backend_args=dict(backend='petrel'))
    assert _kinds(_read(remote)) == {'not on this disk': WARNING}
    assert _kinds(_read(_cfg(path, indices=2))) == {'part of a set': WARNING}
    assert _kinds(_read(dict(type='CocoDataset'))) == {'no file': ERROR}


def test_nothing_is_left_after_filters(good, write) -> None:
    cfg = _cfg(write(good), filter_cfg=dict(min_size=500))
    assert _kinds(_read(cfg)) == {'no image is used': ERROR}


def test_lvis_names(good, write) -> None:
    for image in good['images']:
        name = image.pop('file_name')
        image['coco_url'] = f'http://images.cocodataset.org/train2017/{name}'
    cfg = dict(_cfg(write(json.loads(json.dumps(good)))), type='LVISV1Dataset')
    contents = _read(cfg)
    assert not contents.findings
    assert contents.images[0].path.endswith('images/train2017/a.jpg')


def test_lvis_sets_number_all_categories(good, write) -> None:
    for image in good['images']:
        image.update(neg_category_ids=[], not_exhaustive_category_ids=[])
        image['coco_url'] = f'http://x/{image["file_name"]}'
    _, *rest = (category['name'] for category in good['categories'])
    cfg = dict(_cfg(write(good)), type='LVISV1Dataset', metainfo=dict(classes=tuple(rest)))
    with DefaultScope.overwrite_default_scope('mmdet'):
        host = DATASETS.build(copy.deepcopy(cfg))
    infos = [host.get_data_info(i) for i in range(len(host))]
    labels = {one['bbox_label'] for info in infos for one in info['instances']}
    # More than it has names, so that the first name stands for another class.
    assert max(labels) == len(rest)
    assert _kinds(_read(cfg))['classes of a part of an LVIS file'] == ERROR
