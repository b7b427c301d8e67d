"""RareCopyPasteDataset on images whose colours tell which object a pixel belongs to."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS as MMDET_DATASETS

from mmdet_softpl.datasets.config_sets import configured_sets
from mmdet_softpl.datasets.generated_image_dataset import GeneratedImageDataset
from mmdet_softpl.datasets.pasting_steps import PASTED_KEY
from mmdet_softpl.datasets.rare_copy_paste_dataset import MIN_VISIBLE, RareCopyPasteDataset
from mmdet_softpl.engine.training_sets import is_labelled, leaves
from mmdet_softpl.registry import DATASETS
from tests.support.album import BLUE, CLASSES, LOAD, Album


@pytest.fixture()
def album(tmp_path: Path) -> Album:
    """Eight frequent objects, two common ones, a rare one; an image of its own each."""
    made = Album(tmp_path)
    for label, number in enumerate((8, 2, 1)):
        for i in range(number):
            made.add(40, 30, (label, 3 + i, 5, 10, 8))
    return made


def seeded(dataset: RareCopyPasteDataset, index: int, seed: int) -> dict[str, Any]:
    np.random.seed(seed)
    return dataset[index]


def test_registered_under_both_names() -> None:
    assert DATASETS.get('RareCopyPasteDataset') is RareCopyPasteDataset
    assert MMDET_DATASETS.get('mmdet_softpl.RareCopyPasteDataset') is RareCopyPasteDataset


def test_masks_boxes_and_labels_are_those_of_the_pixels(album: Album) -> None:
    dataset = album.dataset(scale_range=(1.0, 1.0))
    seen: Counter[int] = Counter()
    for seed in range(60):
        results = seeded(dataset, seed % len(dataset), seed)
        masks, labels = results['gt_masks'].masks, results['gt_bboxes_labels']
        boxes = results['gt_bboxes'].tensor.numpy()
        assert len(masks) == len(labels) == len(boxes) == len(results['gt_ignore_flags'])
        assert not results['gt_ignore_flags'].any()
        seen[len(masks)] += 1
        # Of two objects the upper one has the pixel.
        assert masks.sum(0).max() == 1
        for mask, label, box in zip(masks, labels, boxes, strict=True):
            assert (results['img'][mask > 0] == (BLUE[label], 20, 20)).all()
            rows, columns = np.nonzero(mask)
            tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            margin = np.abs(box - tight)
            # As annotated where the object is whole, else the mask's.
            assert (margin == 0).all() or ((margin == 0.25).all() and mask.sum() == 80)
        if len(masks) == 4:
            # None was forgotten, so the rest is background.
            assert (results['img'][masks.sum(0) == 0] == 20).all()
    # 0 to 3 objects are pasted.
    assert set(seen) <= {1, 2, 3, 4} and min(seen[n] for n in (1, 2, 3, 4)) > 3


def test_without_pasting_the_image_is_the_hosts(album: Album) -> None:
    dataset, host = (
        album.dataset(),
        CocoDataset(**{k: v for k, v in album.config().items() if k != 'type'}),
    )
    untouched = 0
    for seed in range(20):
        results, expected = seeded(dataset, 3, seed), host[3]
        if len(results['gt_bboxes']) == 1 and (results['img'] == expected['img']).all():
            untouched += 1
            assert (results['gt_masks'].masks == expected['gt_masks'].masks).all()
            assert (results['gt_bboxes'].tensor == expected['gt_bboxes'].tensor).all()
    assert 0 < untouched < 20


@pytest.mark.parametrize(
    ('balance', 'expected'),
    [(0.0, (8, 2, 1)), (1.0, (1, 1, 1)), (0.5, (8**0.5, 2**0.5, 1))],
)
def test_how_often_a_class_is_drawn(
    album: Album, balance: float, expected: tuple[float, ...]
) -> None:
    # A large empty image: what is pasted does not cover what is there.
    album.add(400, 300)
    dataset = album.dataset(balance=balance, scale_range=(0.1, 0.1))
    drawn: Counter[int] = Counter()
    for seed in range(400):
        drawn.update(seeded(dataset, len(dataset) - 1, seed)['gt_bboxes_labels'].tolist())
    total, share = sum(drawn.values()), np.array(expected) / sum(expected)
    for label in range(3):
        deviation = (share[label] * (1 - share[label]) * total) ** 0.5
        assert abs(drawn[label] - total * share[label]) < 4 * deviation


def test_objects_keep_their_share_of_the_image(tmp_path: Path) -> None:
    album = Album(tmp_path)
    album.add(80, 60, (2, 10, 10, 20, 12))
    album.add(40, 30)
    dataset = album.dataset(scale_range=(1.0, 1.0), max_num_pasted=1)
    sizes = set()
    for seed in range(20):
        for mask in seeded(dataset, 1, seed)['gt_masks'].masks:
            rows, columns = np.nonzero(mask)
            sizes.add((np.ptp(columns) + 1, np.ptp(rows) + 1))
    assert sizes == {(10, 6)}


def test_an_object_fits_into_the_image(tmp_path: Path) -> None:
    album = Album(tmp_path)
    album.add(80, 20, (1, 0, 5, 80, 10))
    # As large, but upright: the object would be twice as long as it is wide.
    album.add(20, 80)
    dataset = album.dataset(max_num_pasted=1, scale_range=(1.0, 3.0))
    masks = [m for seed in range(20) for m in seeded(dataset, 1, seed)['gt_masks'].masks]
    assert masks and all(mask.any(0).all() for mask in masks)


def test_hidden_objects_are_forgotten(tmp_path: Path) -> None:
    album = Album(tmp_path)
    album.add(40, 30, (0, 10, 10, 10, 10), (1, 30, 20, 2, 2))
    dataset = album.dataset(max_num_pasted=3, balance=0.0, scale_range=(1.0, 3.0))
    gone = partly = 0
    for seed in range(200):
        results = seeded(dataset, 0, seed)
        for mask, label in zip(results['gt_masks'].masks, results['gt_bboxes_labels'], strict=True):
            assert mask.any()
            partly += label == 0 and mask.sum() < 100
        # The small one is whole, or the rest of it is at least two pixels.
        own = results['gt_masks'].masks[:, 20:22, 30:32][results['gt_bboxes_labels'] == 1]
        assert all(m.sum() == 0 or m.sum() >= MIN_VISIBLE * 4 for m in own)
        gone += 1 not in results['gt_bboxes_labels']
    assert gone > 5 and partly > 5


def test_crowds_are_not_pasted_and_keep_what_is_left_of_them(tmp_path: Path) -> None:
    album = Album(tmp_path)
    album.add(40, 30, (0, 0, 0, 40, 30), (1, 4, 4, 6, 6))
    album.content['annotations'][0]['iscrowd'] = 1
    dataset = album.dataset(scale_range=(1.0, 1.0))
    pasted = 0
    for seed in range(20):
        results = seeded(dataset, 0, seed)
        labels, ignored = results['gt_bboxes_labels'], results['gt_ignore_flags']
        assert (labels == 0).sum() == 1 and ignored.tolist() == (labels == 0).tolist()
        pasted += len(labels) > 2
    assert pasted


def test_an_outline_of_two_points_is_not_pasted(tmp_path: Path) -> None:
    album = Album(tmp_path)
    album.add(40, 30, (0, 5, 5, 10, 10))
    album.add(40, 30)
    album.content['annotations'][0]['segmentation'] = [[5, 5, 15, 15]]
    dataset = album.dataset()
    assert all(len(seeded(dataset, 1, seed)['gt_bboxes']) == 0 for seed in range(10))


def test_draws_go_by_the_seed_also_after_a_copy(album: Album) -> None:
    dataset = album.dataset()
    copy = pickle.loads(pickle.dumps(dataset))
    first, again, other = (seeded(d, 0, s) for d, s in ((dataset, 1), (copy, 1), (dataset, 2)))
    assert (first['img'] == again['img']).all()
    assert (first['img'] != other['img']).any()


def test_wrappers_within(album: Album) -> None:
    """What is in them is pasted into; they themselves work as they did."""
    balanced = dict(type='ClassBalancedDataset', oversample_thr=0.5, dataset=album.config())
    repeated = dict(type='RepeatDataset', times=2, dataset=balanced)
    nested = dict(type='ConcatDataset', datasets=[repeated])
    host = MMDET_DATASETS.build(nested)
    config = dict(
        type='mmdet_softpl.RareCopyPasteDataset',
        datasets=[nested, balanced],
        # Of the host's own wrapper alone.
        ignore_keys='cumulative_sizes',
    )
    dataset = MMDET_DATASETS.build(config)
    assert dataset.cumulative_sizes == [len(host), len(host) * 3 // 2] and len(host) > 22
    assert dataset.metainfo['classes'] == CLASSES
    for first in (0, len(host)):
        sizes = {len(dataset[first + i]['gt_bboxes']) for i in range(11)}
        assert max(sizes) > 1
    # An object counts once, however often its image is shown, so all classes come up alike often.
    drawn: Counter[int] = Counter()
    for seed in range(150):
        drawn.update(seeded(dataset, 0, seed)['gt_bboxes_labels'][1:].tolist())
    assert min(drawn[label] for label in range(3)) > 0.2 * sum(drawn.values())
    # What looks at the sets of a training finds the labelled one.
    found = list(leaves(dataset))
    assert len(found) == 2 and all(map(is_labelled, found))
    sets = configured_sets(dict(train_dataloader=dict(dataset=config)))
    assert [(s.role, s.source, s.times, s.oversample_thr) for s in sets] == [
        ('labelled', 0, 2, 0.5),
        ('labelled', 1, 1, 0.5),
    ]
    assert all(s.ann_file.endswith('labelled.json') and s.with_masks for s in sets)


def test_objects_of_all_labelled_sets(album: Album, tmp_path: Path) -> None:
    other = Album(tmp_path / 'other')
    other.folder.mkdir()
    other.add(400, 300)
    for _ in range(3):
        other.add(40, 30, (1, 3, 5, 10, 8))
    dataset = RareCopyPasteDataset([album.config(), other.config()], scale_range=(0.1, 0.1))
    assert len(dataset) == 11 + 4
    drawn: Counter[int] = Counter()
    for seed in range(300):
        drawn.update(seeded(dataset, 11, seed)['gt_bboxes_labels'].tolist())
    # Five common objects, a rare one: in both sets together all classes come up alike often.
    assert min(drawn[label] for label in range(3)) > 0.25 * sum(drawn.values())
    assert dataset._objects.tolist()[-3:] == [[1, 1, 0], [1, 2, 0], [1, 3, 0]]


def test_generated_images_stay_as_they_are(album: Album, tmp_path: Path) -> None:
    """Their labels are no truth that could be pasted elsewhere, and go by a gate of their own."""
    made = MMDET_DATASETS.build(album.config())
    made.__class__ = type('Generated', (GeneratedImageDataset,), {})
    other = Album(tmp_path / 'other')
    other.folder.mkdir()
    other.add(40, 30, (2, 3, 5, 10, 8))
    dataset = RareCopyPasteDataset([other.config(), made], scale_range=(1.0, 1.0))
    assert dataset.datasets[1] is made and dataset._objects.tolist() == [[0, 0, 0]]


def test_lazy_init(album: Album) -> None:
    config = album.config()
    Path(config['ann_file']).rename(album.folder / 'later.json')
    lazy, other = (
        RareCopyPasteDataset([dict(config, lazy_init=True)], lazy_init=True) for _ in range(2)
    )
    (album.folder / 'later.json').rename(config['ann_file'])
    lazy.full_init()
    lazy.full_init()
    assert len(lazy) == 11 and lazy.get_data_info(10)['instances'][0]['bbox_label'] == 2
    # As the host's wrappers, at the first use at the latest.
    assert (seeded(other, 1, 4)['img'] == seeded(lazy, 1, 4)['img']).all()


def test_the_data_set_itself_stays_as_it_is(album: Album) -> None:
    host = MMDET_DATASETS.build(album.config())
    before = host[2]['img'].copy()
    dataset = RareCopyPasteDataset([host])
    assert len(host.pipeline.transforms) == 2
    images = [seeded(dataset, 2, seed)['img'] for seed in range(10)]
    assert any((image != before).any() for image in images)
    assert all((seeded(host, 2, seed)['img'] == before).all() for seed in range(10))


def test_parts_are_taken_before(album: Album) -> None:
    part = RareCopyPasteDataset([album.config(indices=[9, 10])], scale_range=(1.0, 1.0))
    drawn = {label for seed in range(30) for label in seeded(part, 0, seed)['gt_bboxes_labels']}
    assert len(part) == 2 and drawn == {1, 2}


def test_images_of_another_kind(album: Album) -> None:
    grey = album.folder / '1.png'
    cv2.imwrite(str(grey), np.zeros((30, 40), dtype=np.uint16))
    load = [dict(LOAD[0], color_type='unchanged'), LOAD[1]]
    dataset = RareCopyPasteDataset([album.config(pipeline=load)])
    with pytest.raises(ValueError, match=r"1\.png.*color_type='color'"):
        for seed in range(10):
            seeded(dataset, 0, seed)


def test_every_box_has_an_area(tmp_path: Path) -> None:
    """Objects of one pixel and thin ones, from large images into small ones."""
    album = Album(tmp_path)
    album.add(400, 300, (0, 10, 10, 1, 1), (1, 20, 20, 200, 1), (2, 50, 50, 3, 90))
    album.content['annotations'][0]['segmentation'] = [[10, 10, 11, 10, 11, 11, 10, 11]]
    album.add(60, 50)
    dataset = album.dataset()
    sizes = [
        (bbox[2] - bbox[0], bbox[3] - bbox[1])
        for seed in range(100)
        for bbox in seeded(dataset, 1, seed)['gt_bboxes'].tensor.numpy()
    ]
    assert len(sizes) > 20 and np.min(sizes) >= 1


BRANCHES = ('unsup_teacher', 'unsup_student')


def unlabelled(folder: Path, **changes: Any) -> dict[str, Any]:
    """Two views of every image of a folder; the student's is mirrored."""
    pack = dict(type='mmdet.PackDetInputs', meta_keys=('img_path', 'homography_matrix'))
    views = [
        [dict(type='mmdet.Resize', scale_factor=1.0), dict(type='mmdet.RandomFlip', prob=p), pack]
        for p in (0.0, 1.0)
    ]
    pipeline = [
        LOAD[0],
        dict(type='mmdet.LoadEmptyAnnotations'),
        dict(
            type='mmdet.MultiBranch',
            branch_field=BRANCHES,
            **dict(zip(BRANCHES, views, strict=True)),
        ),
    ]
    return (
        dict(
            type='mmdet_softpl.UnlabeledImageDataset',
            data_prefix=dict(img=str(folder)),
            pipeline=pipeline,
        )
        | changes
    )


def test_unlabelled_images_get_labelled_objects(album: Album, tmp_path: Path) -> None:
    folder = tmp_path / 'unlabelled'
    folder.mkdir()
    # An object of no label, which nobody says anything of.
    pixels = np.full((60, 80, 3), 20, dtype=np.uint8)
    pixels[40:50, 60:70, 0] = BLUE[1]
    cv2.imwrite(str(folder / 'a.png'), pixels)
    dataset = RareCopyPasteDataset([album.config(), unlabelled(folder)], scale_range=(0.5, 0.5))
    assert len(dataset) == 12
    drawn: Counter[int] = Counter()
    numbers = set()
    for seed in range(60):
        item = seeded(dataset, 11, seed)
        images, samples = item['inputs'], item['data_samples']
        weak, strong = (samples[name].gt_instances for name in BRANCHES)
        numbers.add(len(weak))
        drawn.update(weak.labels.tolist())
        # The student's view needs no labels: the detector projects what is in the teacher's.
        assert len(strong) == 0 and (images[BRANCHES[1]] == images[BRANCHES[0]].flip(2)).all()
        assert all(samples[name].metainfo[PASTED_KEY] is True for name in BRANCHES)
        image = images[BRANCHES[0]].numpy()
        for mask, label in zip(weak.masks.masks, weak.labels, strict=True):
            assert (image[:, mask > 0] == np.array([[BLUE[label]], [20], [20]])).all()
        rest = weak.masks.masks.sum(0) == 0
        assert (image[0] == pixels[..., 0])[rest].all()
    assert numbers == {0, 1, 2, 3}
    # All classes alike often, as in labelled images.
    assert min(drawn[label] for label in range(3)) > 0.25 * sum(drawn.values())


def test_annotations_of_unlabelled_images_are_forgotten(album: Album) -> None:
    """Those of the benchmark protocol, where a labelled json plays the unlabelled one."""
    config = unlabelled(album.folder)
    load = [LOAD[0], LOAD[1], dict(type='mmdet.LoadEmptyAnnotations'), config['pipeline'][2]]
    dataset = RareCopyPasteDataset([album.config(), album.config(pipeline=load)])
    # Nor do their objects go elsewhere.
    assert set(dataset._objects[:, 0]) == {0}
    counts = [
        len(seeded(dataset, 11 + i, i)['data_samples'][BRANCHES[0]].gt_instances) for i in range(11)
    ]
    assert 0 in counts and max(counts) <= 3


def test_unlabelled_sets_are_known_by_their_branches(album: Album) -> None:
    """The host's configs read a labelled json for both; its labels must not leak."""
    config = unlabelled(album.folder)
    leaky = [LOAD[0], LOAD[1], config['pipeline'][2]]
    folder = dict(config, pipeline=leaky)
    for other in (album.config(pipeline=leaky), folder):
        dataset = RareCopyPasteDataset([album.config(), other])
        assert set(dataset._objects[:, 0]) == {0}
        counts = set()
        for i in range(11):
            weak = seeded(dataset, 11 + i, i)['data_samples'][BRANCHES[0]]
            assert weak.metainfo[PASTED_KEY]
            counts.add(len(weak.gt_instances))
        assert 0 in counts
        plain = RareCopyPasteDataset([album.config(), other], unlabeled=False)
        assert set(plain._objects[:, 0]) == {0}


@pytest.mark.parametrize('is_folder', [False, True])
def test_unlabelled_images_that_are_mixed_stay_as_they_are(album: Album, is_folder: bool) -> None:
    """Their branches stand behind the mixing, where nobody knows what was pasted before."""
    config = unlabelled(album.folder)
    load, branches = config['pipeline'][:2], config['pipeline'][2]
    inner = dict(config, pipeline=load) if is_folder else album.config(pipeline=LOAD)
    mixed = dict(type='mmdet.MultiImageMixDataset', dataset=inner, pipeline=[branches])
    dataset = RareCopyPasteDataset([album.config(), mixed], ignore_keys=['classes', 'palette'])
    # Nor do hidden labels get out.
    assert set(dataset._objects[:, 0]) == {0}
    plain = MMDET_DATASETS.build(mixed)
    for i in range(11):
        with_it, without = seeded(dataset, 11 + i, i), seeded(plain, i, i)
        for name in BRANCHES:
            assert torch.equal(with_it['inputs'][name], without['inputs'][name])
            assert PASTED_KEY not in with_it['data_samples'][name].metainfo


def test_labels_of_an_image_for_samplers_of_the_host(album: Album) -> None:
    dataset = RareCopyPasteDataset([album.config(), album.config()])
    host = MMDET_DATASETS.build(album.config())
    assert [dataset.get_cat_ids(i) for i in range(22)] == 2 * [
        host.get_cat_ids(i) for i in range(11)
    ]


def test_nothing_is_pasted_where_that_is_wanted(album: Album) -> None:
    """Also into what could not give objects."""
    host = MMDET_DATASETS.build(album.config(pipeline=LOAD[:1]))
    dataset = RareCopyPasteDataset([album.config(pipeline=LOAD[:1])], max_num_pasted=0)
    assert len(dataset) == len(host)
    assert all((dataset[i]['img'] == host[i]['img']).all() for i in range(11))


def test_labelled_sets_of_other_classes(album: Album) -> None:
    """The host's comparison is switched off where the unlabelled set has none."""
    other = album.config(metainfo=dict(classes=CLASSES[::-1]))
    with pytest.raises(ValueError, match=r"'frequent'.*'rare'.*metainfo"):
        RareCopyPasteDataset([album.config(), other], ignore_keys='classes')


def test_equal_classes_in_another_kind_of_sequence(album: Album) -> None:
    other = album.config(metainfo=dict(classes=list(CLASSES)))
    dataset = RareCopyPasteDataset([album.config(), other], ignore_keys='classes')
    assert set(dataset._objects[:, 0]) == {0, 1}


def test_a_pipeline_without_branches_is_marked_too(album: Album) -> None:
    pack = dict(type='mmdet.PackDetInputs', meta_keys=())
    load = [LOAD[0], dict(type='mmdet.LoadEmptyAnnotations'), pack]
    dataset = RareCopyPasteDataset([album.config(), album.config(pipeline=load)])
    assert dataset[11]['data_samples'].metainfo[PASTED_KEY]


def test_unlabelled_images_may_be_left_alone(album: Album) -> None:
    config = unlabelled(album.folder)
    dataset = RareCopyPasteDataset([album.config(), config], unlabeled=False)
    host = MMDET_DATASETS.build(config)
    for i in range(11):
        item, expected = dataset[11 + i], host[i]
        assert PASTED_KEY not in item['data_samples'][BRANCHES[0]].metainfo
        for name in BRANCHES:
            assert (item['inputs'][name] == expected['inputs'][name]).all()


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        (dict(max_num_pasted=-1), 'max_num_pasted must lie in [0, inf), got -1'),
        (dict(max_num_pasted=1.5), 'max_num_pasted must be a whole number, got 1.5'),
        (dict(balance=1.5), 'balance must lie in [0, 1], got 1.5'),
        (dict(scale_range=(0.0, 1.0)), 'scale_range[0] must lie in (0, inf), got 0.0'),
        (dict(scale_range=1.0), 'scale_range must be two factors, got 1.0'),
        (dict(scale_range=(2.0, 1.0)), 'scale_range[1] must lie in [2, inf), got 1.0'),
    ],
)
def test_values_out_of_range(album: Album, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as error:
        album.dataset(**changes)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ('pipeline', 'said'),
    [
        ([LOAD[0]], 'has neither LoadAnnotations nor'),
        ([LOAD[0], dict(type='mmdet.LoadAnnotations', with_bbox=True)], 'with_mask=True'),
        ([LOAD[0], {**LOAD[1], 'poly2mask': False}], 'poly2mask must not be False'),
        ([LOAD[0], {**LOAD[1], 'with_seg': True}], 'with_seg'),
        ([LOAD[0], {**LOAD[1], 'box_type': None}], 'box_type=None'),
    ],
)
def test_pipelines_without_what_is_needed(album: Album, pipeline: list[dict], said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        RareCopyPasteDataset([album.config(pipeline=pipeline)])
    assert 'labelled.json' in str(error.value) or 'with_seg' in said


def test_nothing_to_paste(album: Album, tmp_path: Path) -> None:
    empty = Album(tmp_path / 'empty')
    empty.folder.mkdir()
    empty.add(40, 30)
    with pytest.raises(ValueError, match=r'in .*labelled\.json; set max_num_pasted=0'):
        empty.dataset()
    with pytest.raises(ValueError, match='none of them is labelled'):
        RareCopyPasteDataset([unlabelled(album.folder)])


def test_photos(coco_tiny: Path) -> None:
    """Real outlines, crowds and sizes: nothing but the pasted object changes."""
    config = dict(
        type='mmdet.CocoDataset',
        ann_file=str(coco_tiny / 'instances_train2017.json'),
        data_prefix=dict(img=str(coco_tiny / 'train2017')),
        pipeline=LOAD,
    )
    dataset, host = RareCopyPasteDataset([config], max_num_pasted=1), MMDET_DATASETS.build(config)
    pasted = 0
    for index in range(0, len(host), 4):
        results, expected = seeded(dataset, index, index), host[index]
        masks, own = results['gt_masks'].masks, expected['gt_masks'].masks
        same = (results['img'] == expected['img']).all(2)
        if same.all():
            assert (masks == own).all()
            continue
        pasted += 1
        new = masks[-1] > 0
        assert same[~new].all() and not masks[:-1, new].any()
        left_over = own * (1 - masks[-1])
        kept = left_over.sum((1, 2)) >= MIN_VISIBLE * own.sum((1, 2))
        assert (masks[:-1] == left_over[kept]).all()
        assert (results['gt_bboxes_labels'][:-1] == expected['gt_bboxes_labels'][kept]).all()
        crowds = results['gt_ignore_flags'][:-1] == expected['gt_ignore_flags'][kept]
        assert crowds.all() and not results['gt_ignore_flags'][-1]
    assert pasted >= 5
