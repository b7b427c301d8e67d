"""Images and classes of sets among each other, with every fault planted."""

from __future__ import annotations

import json
import shutil
import unicodedata
import urllib.parse
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.registry import DefaultScope

from mmdet_softpl.datasets.config_sets import configured_sets
from mmdet_softpl.datasets.findings import ERROR, WARNING, Finding
from mmdet_softpl.datasets.image_scan import HOST_CANNOT, ScannedImage, scan_images
from mmdet_softpl.datasets.set_comparisons import class_findings, image_findings, leak_findings
from mmdet_softpl.datasets.set_contents import SetContents, read_set
from tests.support.tiny_data import write_data

CLASSES = ('a', 'b', 'c', 'd')


@pytest.fixture()
def root(tmp_path: Path) -> Path:
    return write_data(tmp_path / 'data', CLASSES, num_train=4)


def _sets(root: Path, unlabeled: dict | None = None) -> list[SetContents]:
    def coco(split: str) -> dict:
        return dict(
            type='CocoDataset',
            ann_file=str(root / f'annotations/instances_{split}2017.json'),
            data_prefix=dict(img=str(root / f'{split}2017')),
            metainfo=dict(classes=CLASSES),
        )

    folder = dict(type='mmdet_softpl.UnlabeledImageDataset', data_root=str(root))
    folder.update(unlabeled or dict(data_prefix=dict(img='unlabeled2017')))
    cfg = dict(
        train_dataloader=dict(dataset=dict(datasets=[coco('train'), folder])),
        val_dataloader=dict(dataset=coco('val')),
    )
    return [read_set(one) for one in configured_sets(cfg)]


def _look(sets: list[SetContents], read: bool = True) -> list[Finding]:
    paths = [i.path for one in sets for i in one.images if Path(i.path).is_file()]
    scanned = scan_images(paths) if read else None
    findings = [f for one in sets for f in image_findings(one, scanned)]
    return findings + leak_findings(sets, scanned) + class_findings(sets)


def _edit(path: Path, change) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def _files(root: Path, split: str) -> list[Path]:
    return sorted((root / f'{split}2017').iterdir())


@pytest.mark.parametrize('read', [True, False])
def test_sound_data_has_no_finding(root: Path, read: bool) -> None:
    assert _look(_sets(root), read) == []


def test_missing_images(root: Path) -> None:
    _files(root, 'train')[1].unlink()
    (finding,) = _look(_sets(root))
    assert (finding.kind, finding.severity, finding.count) == ('missing image', ERROR, 1)
    assert 'fetch' in finding.remedy
    for path in _files(root, 'train'):
        path.unlink()
    (finding,) = _look(_sets(root), read=False)
    assert finding.count == 4 and 'another data set' in finding.remedy
    (root / 'train2017').rmdir()
    assert 'does not exist' in _look(_sets(root), read=False)[0].remedy


def test_links_to_nothing_in_a_folder_are_skipped_as_in_training(root: Path) -> None:
    """What git-annex and DVC leave of files that were not fetched."""
    (root / 'unlabeled2017' / 'later.png').symlink_to(root / 'nowhere.png')
    (finding,) = _look(_sets(root))
    assert (finding.severity, finding.kind, finding.count) == (WARNING, 'missing image', 1)
    assert 'leaves them out' in finding.remedy
    cfg = dict(type='mmdet_softpl.UnlabeledImageDataset', data_root=str(root / 'unlabeled2017'))
    with DefaultScope.overwrite_default_scope('mmdet'), pytest.warns(UserWarning, match='skipped'):
        taken = DATASETS.build(cfg)
    (folder,) = (one for one in _sets(root) if one.configured.kind == 'images')
    assert len(taken) == len(folder.images) - 1
    for path in _files(root, 'unlabeled'):
        path.unlink()
        path.symlink_to(root / 'nowhere.png')
    assert any(f.severity == ERROR and f.kind == 'missing image' for f in _look(_sets(root)))


def test_file_names_that_windows_wrote(root: Path) -> None:
    def change(data: dict) -> None:
        for image in data['images']:
            image['file_name'] = f'.\\train2017\\{image["file_name"]}'

    _edit(root / 'annotations/instances_train2017.json', change)
    cfg = dict(
        type='CocoDataset',
        ann_file=str(root / 'annotations/instances_train2017.json'),
        data_prefix=dict(img=str(root)),
        metainfo=dict(classes=CLASSES),
    )
    (labelled,) = configured_sets(dict(train_dataloader=dict(dataset=cfg)))
    (finding,) = image_findings(read_set(labelled), None)
    assert finding.kind == 'missing image' and finding.count == 4
    assert 'write / for \\ in the file names' in finding.remedy
    _edit(
        root / 'annotations/instances_train2017.json',
        lambda d: [i.update(file_name=i['file_name'].replace('\\', '/')) for i in d['images']],
    )
    assert image_findings(read_set(labelled), None) == []


@pytest.mark.parametrize(
    ('split', 'severity'), [('train', ERROR), ('val', ERROR), ('unlabeled', WARNING)]
)
def test_unreadable_images(root: Path, split: str, severity: str) -> None:
    path = _files(root, split)[0]
    path.write_bytes(b'no image')
    (finding,) = _look(_sets(root))
    assert (finding.kind, finding.severity) == ('unreadable image', severity)
    assert str(path) in finding.detail and 'not an image' in finding.detail
    assert _look(_sets(root), read=False) == []


def test_truncated_image_that_opencv_reads_in_part(root: Path) -> None:
    sets = _sets(root)
    scanned = scan_images(i.path for one in sets for i in one.images)
    path = sets[0].images[0].path
    scanned[path] = replace(scanned[path], error='image file is truncated')
    (finding,) = image_findings(sets[0], scanned)
    assert (finding.kind, finding.severity) == ('truncated image', WARNING)
    assert f'{path} (image file is truncated)' in finding.detail


def test_images_of_12_bits(root: Path) -> None:
    path = _files(root, 'unlabeled')[0]
    picture = np.random.default_rng(0).integers(0, 4096, (128, 96)).astype(np.uint16)
    assert cv2.imwrite(str(path.with_suffix('.png')), picture)
    (finding,) = _look(_sets(root))
    assert (finding.kind, finding.severity, finding.count) == (
        'image that is nearly black to mmdet',
        WARNING,
        1,
    )
    assert str(path.with_suffix('.png')) in finding.detail


def test_folder_keeps_what_pillow_reads(root: Path) -> None:
    sets = _sets(root)
    scanned = scan_images(i.path for one in sets for i in one.images)
    first, second = (image.path for image in sets[1].images[:2])
    scanned[first] = ScannedImage(error=HOST_CANNOT)
    scanned[second] = ScannedImage(error='image file is truncated')
    findings = image_findings(sets[1], scanned)
    assert [(f.severity, f.count) for f in findings] == [(ERROR, 1), (WARNING, 1)]
    assert first in findings[0].detail and second in findings[1].detail


def test_other_size(root: Path) -> None:
    def swap(data: dict) -> None:
        image = data['images'][0]
        image['height'], image['width'] = image['width'], image['height']

    _edit(root / 'annotations/instances_train2017.json', swap)
    (finding,) = _look(_sets(root))
    assert finding.kind == 'image of another size than the json says'
    assert 'is 128 x 96, declared 96 x 128' in finding.detail
    assert finding.severity == WARNING

    # Of half the images or more it is another version of them.
    def swap_all(data: dict) -> None:
        for image in data['images'][1:]:
            image['height'], image['width'] = image['width'], image['height']

    _edit(root / 'annotations/instances_train2017.json', swap_all)
    finding = next(f for f in _look(_sets(root)) if 'another size' in f.kind)
    assert finding.severity == ERROR


@pytest.mark.parametrize(
    ('rename', 'said'),
    [
        (lambda name: unicodedata.normalize('NFD', name), 'Unicode form NFC'),
        (urllib.parse.quote, 'urllib.parse.unquote'),
    ],
    ids=['macOS', 'address'],
)
def test_names_that_are_written_otherwise(root: Path, rename: Any, said: str) -> None:
    def change(data: dict) -> None:
        image = data['images'][0]
        name = 'Öl fleck.jpg'
        (root / 'train2017' / image['file_name']).rename(root / 'train2017' / name)
        image['file_name'] = rename(name)

    _edit(root / 'annotations/instances_train2017.json', change)
    (finding,) = (f for f in _look(_sets(root)) if f.kind == 'missing image')
    assert said in finding.remedy


def test_other_size_under_a_mask_of_run_lengths(root: Path) -> None:
    """The host stops there, where it stretches a polygon."""
    path = root / 'annotations/instances_train2017.json'

    def change(data: dict) -> None:
        for image in data['images'][:2]:
            image['height'], image['width'] = image['width'], image['height']
        rle = dict(size=[128, 96], counts=[0, 9, 128 * 96 - 9])
        data['annotations'][0].update(image_id=data['images'][0]['id'], segmentation=rle)

    _edit(path, change)
    sets = _sets(root)
    masks = dict(type='LoadAnnotations', with_mask=True, with_bbox=True)
    for pipeline, severities in ([masks], [ERROR, WARNING]), ([], [WARNING]):
        cfg = dict(
            type='CocoDataset',
            ann_file=str(path),
            data_prefix=dict(img=str(root / 'train2017')),
            metainfo=dict(classes=CLASSES),
            pipeline=[dict(type='LoadImageFromFile'), *pipeline],
        )
        (labelled,) = configured_sets(dict(train_dataloader=dict(dataset=cfg)))
        found = _look([read_set(labelled), *sets[1:]])
        assert [f.severity for f in found] == severities
        assert found[0].kind == 'image of another size than the json says'
    cfg['pipeline'].append(masks)
    with DefaultScope.overwrite_default_scope('mmdet'):
        host = DATASETS.build(cfg)
    host[1]
    with pytest.raises((AssertionError, ValueError)):
        host[0]


@pytest.mark.parametrize(
    ('a', 'b', 'subject'),
    [
        ('train', 'val', 'labelled, validation'),
        ('unlabeled', 'val', 'unlabelled, validation'),
        ('train', 'unlabeled', 'labelled, unlabelled'),
    ],
)
def test_leaks_are_found_by_content(root: Path, a: str, b: str, subject: str) -> None:
    source, target = _files(root, a)[0], _files(root, b)[0]
    shutil.copy(source, target)
    (finding,) = _look(_sets(root))
    assert (finding.kind, finding.severity) == ('images in both sets', WARNING)
    assert finding.subject == subject and finding.count == 1
    assert str(source) in finding.detail and str(target) in finding.detail
    # A copy has another path; a link has not.
    assert _look(_sets(root), read=False) == []
    target.unlink()
    target.symlink_to(source)
    assert [f.subject for f in _look(_sets(root), read=False)] == [subject]


def test_duplicates(root: Path) -> None:
    first, second, *_ = _files(root, 'unlabeled')
    shutil.copy(first, second)
    (finding,) = _look(_sets(root))
    assert (finding.kind, finding.count) == ('duplicate image', 1)
    assert f'2 alike: {first} = {second}' in finding.detail


def test_of_many_copies_few_are_named(root: Path) -> None:
    a, b, *_ = _files(root, 'unlabeled')
    for source, count in ((a, 20), (b, 1)):
        for k in range(count):
            shutil.copy(source, source.with_name(f'{source.stem}-copy{k}{source.suffix}'))
    (finding,) = _look(_sets(root))
    assert finding.count == 21 and finding.detail.startswith('21 of ')
    many, two = finding.detail.split(': ', 1)[1].split('; ')
    assert many.startswith('21 alike: ') and many.endswith(' and 16 more')
    assert many.count(' = ') == 4
    assert two.startswith('2 alike: ') and two.count(' = ') == 1


def test_classes_of_validation_differ(root: Path) -> None:
    path = root / 'annotations/instances_val2017.json'
    _edit(path, lambda d: d['categories'].reverse())
    sets = _sets(root)
    # Its own check names the order first; without metainfo the comparison does.
    assert any(f.severity == ERROR for one in sets for f in one.findings)
    _edit(path, lambda d: d['categories'].append(dict(id=9, name='e')))
    cfg = dict(
        train_dataloader=dict(dataset=dict(type='CocoDataset', metainfo=dict(classes=CLASSES))),
        val_dataloader=dict(
            dataset=dict(type='CocoDataset', metainfo=dict(classes=('d', 'c', 'b', 'a', 'e')))
        ),
    )
    for loader, split in (('train_dataloader', 'train'), ('val_dataloader', 'val')):
        file = f'annotations/instances_{split}2017.json'
        cfg[loader]['dataset']['ann_file'] = str(root / file)
    (finding,) = class_findings([read_set(one) for one in configured_sets(cfg)])
    assert finding.severity == ERROR and finding.subject == 'labelled, validation'
    assert "'e'" in finding.detail


def test_classes_of_an_unlabelled_json(root: Path) -> None:
    path = root / 'unlabeled.json'
    names = [p.name for p in _files(root, 'unlabeled')]
    content = dict(
        images=[dict(id=i, file_name=n, height=9, width=9) for i, n in enumerate(names)],
        categories=[dict(id=1, name='z')],
        annotations=[],
    )
    path.write_text(json.dumps(content))
    unlabeled = dict(ann_file=str(path), data_prefix=dict(img='unlabeled2017'))
    (finding,) = class_findings(_sets(root, unlabeled))
    assert finding.severity == WARNING
    _edit(path, lambda d: d.update(categories=[dict(id=i, name=n) for i, n in enumerate('dcbaz')]))
    assert class_findings(_sets(root, unlabeled)) == []


def test_no_labelled_set() -> None:
    assert class_findings([]) == leak_findings([], None) == []
