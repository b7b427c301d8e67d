"""Splits: sizes, coverage, recomputed LVIS fields, what the unlabelled file may not tell."""

from __future__ import annotations

import json
from collections import Counter, defaultdict

import pytest

from mmdet_softpl.datasets.annotation_checks import check_annotations
from mmdet_softpl.datasets.annotation_file import AnnotationError
from mmdet_softpl.datasets.class_statistics import class_statistics
from mmdet_softpl.datasets.splits import write_split
from mmdet_softpl.evaluation.ground_truth import frequency_letters, groups_of_classes


@pytest.fixture()
def lvis_file(write):
    """60 images; class 1 in all of them, class k > 1 in images k and k + 10."""
    images = [
        {'id': 100 - i, 'coco_url': f'http://x/train2017/{i}.jpg', 'height': 9, 'width': 9}
        | {'neg_category_ids': [2], 'not_exhaustive_category_ids': []}
        for i in range(60)
    ]
    pairs = [(100 - i, 1) for i in range(60)]
    pairs += [(100 - i, k) for k in range(2, 8) for i in (k, k, k + 10)]
    annotations = [
        {'id': n, 'image_id': i, 'category_id': c, 'bbox': [0, 0, 5, 5], 'area': 25}
        for n, (i, c) in enumerate(pairs)
    ]
    categories = [
        {'id': c, 'name': f'c{c}', 'frequency': 'f', 'image_count': 999, 'instance_count': 999}
        for c in range(1, 8)
    ]
    return write(
        {'images': images, 'annotations': annotations, 'categories': categories, 'info': {'a': 1}},
        'lvis_v1_train.json',
    )


def _load(path):
    return json.loads(path.read_text())


def test_an_image_that_is_listed_twice_could_get_on_both_sides(lvis_file, tmp_path):
    data = _load(lvis_file)
    data['images'].append(dict(data['images'][30], id=500))
    data['annotations'] += [
        dict(a, id=1000 + a['id'], image_id=500)
        for a in data['annotations']
        if a['image_id'] == data['images'][30]['id']
    ]
    lvis_file.write_text(json.dumps(data))
    with pytest.raises(AnnotationError, match=r'train2017/30\.jpg.*on both sides'):
        write_split(lvis_file, tmp_path / 'out', percent=25)
    assert not (tmp_path / 'out').exists()


def test_partition_and_names(lvis_file, tmp_path):
    summary = write_split(lvis_file, tmp_path / 'new' / 'dir', percent=25, seed=3)
    assert summary.labeled_file.name == 'lvis_v1_train.3@25.json'
    assert summary.rest_file is not None
    assert summary.rest_file.name == 'lvis_v1_train.3@25-unlabeled.json'
    labeled, unlabeled = _load(summary.labeled_file), _load(summary.rest_file)
    ids = [{image['id'] for image in part['images']} for part in (labeled, unlabeled)]
    assert len(ids[0]) == 15 and len(ids[1]) == 45 and not ids[0] & ids[1]
    source = _load(lvis_file)
    assert labeled['annotations'] == [a for a in source['annotations'] if a['image_id'] in ids[0]]
    assert labeled['info'] == unlabeled['info'] == {'a': 1}
    assert sorted(path.name for path in summary.labeled_file.parent.iterdir()) == [
        'lvis_v1_train.3@25-unlabeled.json',
        'lvis_v1_train.3@25.json',
    ]


def test_unlabelled_part_tells_nothing(lvis_file, tmp_path):
    summary = write_split(lvis_file, tmp_path / 'o', percent=25)
    unlabeled = _load(summary.rest_file)
    assert unlabeled['annotations'] == []
    assert {key for image in unlabeled['images'] for key in image} == {
        'id',
        'coco_url',
        'height',
        'width',
    }


def test_held_out_part_keeps_its_labels(lvis_file, tmp_path):
    plain = write_split(lvis_file, tmp_path / 'o', percent=80, min_images_per_class=2)
    summary = write_split(
        lvis_file, tmp_path / 'o', percent=80, min_images_per_class=2, held_out=True, overwrite=True
    )
    assert summary.rest_file is not None
    assert summary.rest_file.name == 'lvis_v1_train.1@80-heldout.json'
    source, rest = _load(lvis_file), _load(summary.rest_file)
    ids = {image['id'] for image in rest['images']}
    assert ids == {image['id'] for image in _load(plain.rest_file)['images']} and len(ids) == 12
    assert rest['images'] == [image for image in source['images'] if image['id'] in ids]
    assert rest['annotations'] == [a for a in source['annotations'] if a['image_id'] in ids]
    counts = Counter(a['category_id'] for a in rest['annotations'])
    assert {c['id']: c['instance_count'] for c in rest['categories']} == {
        c: counts[c] for c in range(1, 8)
    }
    # Both images of every class but the first are needed to train it.
    assert set(counts) == {1}


def test_a_held_out_part_is_told_by_how_often_a_class_was_seen_in_training(lvis_file, tmp_path):
    data = _load(lvis_file)
    del data['annotations'][60:]
    lvis_file.write_text(json.dumps(data))
    summary = write_split(lvis_file, tmp_path / 'o', percent=90, held_out=True)
    assert summary.rest_file is not None
    parts = [_load(path)['categories'][0] for path in (summary.labeled_file, summary.rest_file)]
    assert [part['frequency'] for part in parts] == ['c', 'c']
    assert [part['image_count'] for part in parts] == [54, 6]
    # The counts are right, so the letters are believed.
    assert class_statistics(summary.rest_file).groups[0] == 'c'
    names = tuple(f'c{c}' for c in range(1, 8))
    letters = frequency_letters(str(summary.labeled_file))
    groups = groups_of_classes(_load(summary.rest_file), names, letters)
    assert groups is not None and groups.tolist() == [1, 0, 0, 0, 0, 0, 0]


def test_ids_of_classes_may_be_numbers_and_words(lvis_file, tmp_path):
    data = _load(lvis_file)
    for item, key in [(c, 'id') for c in data['categories']] + [
        (a, 'category_id') for a in data['annotations']
    ]:
        item[key] = f'k{item[key]}' if item[key] > 4 else item[key]
    lvis_file.write_text(json.dumps(data))
    summary = write_split(lvis_file, tmp_path / 'o', percent=50)
    assert all(share.images_after for share in summary.classes)


def test_lvis_fields_are_those_of_the_labelled_part(lvis_file, tmp_path):
    summary = write_split(lvis_file, tmp_path / 'o', percent=40)
    labeled = _load(summary.labeled_file)
    images_of = defaultdict(set)
    for a in labeled['annotations']:
        images_of[a['category_id']].add(a['image_id'])
    instances = Counter(a['category_id'] for a in labeled['annotations'])
    for category in labeled['categories']:
        assert category['image_count'] == len(images_of[category['id']])
        assert category['instance_count'] == instances[category['id']]
        assert category['frequency'] == ('c' if category['id'] == 1 else 'r')
    assert class_statistics(summary.labeled_file).source == 'file'
    assert check_annotations(summary.labeled_file).warnings == ()


def test_wrong_counts_of_the_source_are_told_and_not_used(lvis_file, tmp_path):
    summary = write_split(lvis_file, tmp_path / 'o', percent=40)
    (warning,) = summary.warnings
    assert "'c1', declared 999, counted 60" in warning
    assert [c.group_before for c in summary.classes] == ['c'] + ['r'] * 6


@pytest.mark.parametrize('seed', range(5))
def test_every_class_is_kept(lvis_file, tmp_path, seed):
    summary = write_split(lvis_file, tmp_path / 'o', percent=10, seed=seed)
    assert summary.num_labeled == 6
    assert all(c.images_after >= 1 for c in summary.classes)
    two = write_split(lvis_file, tmp_path / 't', count=20, seed=seed, min_images_per_class=2)
    assert all(c.images_after >= 2 for c in two.classes)
    assert two.labeled_file.name == f'lvis_v1_train.{seed}@20images.json'


def test_minimum_beyond_what_a_class_has(lvis_file, tmp_path):
    summary = write_split(lvis_file, tmp_path, count=30, min_images_per_class=5)
    assert [c.images_after for c in summary.classes[1:]] == [2] * 6


@pytest.mark.parametrize('seed', range(5))
def test_crowds_are_no_images_of_a_class(lvis_file, tmp_path, seed):
    data = _load(lvis_file)
    # Class 2 is a crowd in one of its two images, so that the other one alone can cover it.
    crowd = next(a for a in data['annotations'] if a['category_id'] == 2)
    for annotation in data['annotations']:
        if annotation['category_id'] == 2 and annotation['image_id'] == crowd['image_id']:
            annotation['iscrowd'] = 1
    file = tmp_path / 'crowds.json'
    file.write_text(json.dumps(data))
    summary = write_split(file, tmp_path / 'o', count=7, seed=seed)
    share = summary.classes[1]
    assert (share.images_after, share.images_before) == (1, 1)
    assert share.instances_after <= share.instances_before
    (category,) = [c for c in _load(summary.labeled_file)['categories'] if c['id'] == 2]
    assert (category['image_count'], category['instance_count']) == (1, share.instances_after)


def test_folder_that_is_a_file(lvis_file, tmp_path):
    with pytest.raises(NotADirectoryError, match='a file, but a folder is needed'):
        write_split(lvis_file, lvis_file, percent=10)


def test_without_coverage_classes_get_lost(lvis_file, tmp_path):
    lost = 0
    for seed in range(5):
        summary = write_split(lvis_file, tmp_path, percent=5, seed=seed, min_images_per_class=0)
        assert summary.num_labeled == 3 and summary.num_for_coverage == 0
        lost += sum(c.images_after == 0 for c in summary.classes)
    assert lost > 0


def test_same_seed_same_split_whatever_the_order_of_the_file(lvis_file, tmp_path, write):
    first = write_split(lvis_file, tmp_path / '1', percent=30, seed=1)
    source = _load(lvis_file)
    source['images'].reverse()
    source['annotations'].reverse()
    again = write_split(write(source, 'lvis_v1_train.json'), tmp_path / '2', percent=30, seed=1)
    other = write_split(lvis_file, tmp_path / '3', percent=30, seed=2)
    ids = [{i['id'] for i in _load(s.labeled_file)['images']} for s in (first, again, other)]
    assert ids[0] == ids[1] != ids[2]


def test_ids_may_be_numbers_and_words(lvis_file, tmp_path, write):
    data = _load(lvis_file)
    names = {image['id']: f'n{image["id"]}' for image in data['images'][::2]}
    for image in data['images']:
        image['id'] = names.get(image['id'], image['id'])
    for annotation in data['annotations']:
        annotation['image_id'] = names.get(annotation['image_id'], annotation['image_id'])
    split = write_split(write(data, 'mixed.json'), tmp_path, percent=50)
    assert split.num_labeled == 30


def test_all_images(lvis_file, tmp_path):
    summary = write_split(lvis_file, tmp_path / 'o', percent=100)
    assert summary.rest_file is None and summary.num_rest == 0
    assert [p.name for p in (tmp_path / 'o').iterdir()] == ['lvis_v1_train.1@100.json']


def test_existing_output(lvis_file, tmp_path):
    write_split(lvis_file, tmp_path / 'o', percent=30)
    with pytest.raises(FileExistsError, match=r'1@30\.json.*--overwrite'):
        write_split(lvis_file, tmp_path / 'o', percent=30)
    write_split(lvis_file, tmp_path / 'o', percent=30, overwrite=True)


@pytest.mark.parametrize(
    ('kwargs', 'text'),
    [
        ({'percent': 0}, 'percent'),
        ({'percent': 100.5}, '100.5'),
        ({'percent': float('nan')}, 'nan'),
        ({'count': 0}, 'count'),
        ({'count': 61}, '61'),
        ({}, 'either'),
        ({'percent': 5, 'count': 5}, 'either'),
        ({'percent': 5, 'min_images_per_class': -1}, 'min_images_per_class'),
        ({'percent': 5, 'seed': -1}, 'seed'),
    ],
)
def test_bad_arguments(lvis_file, tmp_path, kwargs, text):
    with pytest.raises(ValueError, match=text):
        write_split(lvis_file, tmp_path / 'o', **kwargs)
    assert not (tmp_path / 'o').exists()


def test_too_few_images_for_the_classes(lvis_file, tmp_path):
    with pytest.raises(AnnotationError, match=r'1 labelled images are too few.*takes \d+'):
        write_split(lvis_file, tmp_path, count=1)


def test_coco_tiny(coco_tiny, tmp_path):
    source = coco_tiny / 'instances_train2017.json'
    summary = write_split(source, tmp_path, percent=90)
    assert summary.num_labeled == 72 and summary.num_rest == 8
    assert all(c.images_after >= 1 for c in summary.classes)
    assert 'frequency' not in _load(summary.labeled_file)['categories'][0]


def test_the_host_reads_both_parts(lvis_file, tmp_path):
    from mmdet.datasets import LVISV1Dataset

    from mmdet_softpl.datasets.unlabeled_image_dataset import UnlabeledImageDataset

    pytest.importorskip('lvis')
    summary = write_split(lvis_file, tmp_path, percent=25)
    labeled = LVISV1Dataset(ann_file=str(summary.labeled_file), data_prefix={'img': ''})
    assert len(labeled) == 15
    # The host also reads the unlabelled part, as its own semi-supervised configs do.
    assert len(LVISV1Dataset(ann_file=str(summary.rest_file), data_prefix={'img': ''})) == 45
    (tmp_path / 'train2017').mkdir()
    for image in _load(summary.rest_file)['images']:
        (tmp_path / image['coco_url'].removeprefix('http://x/')).touch()
    unlabeled = UnlabeledImageDataset(data_root=str(tmp_path), ann_file=summary.rest_file.name)
    assert len(unlabeled) == 45
