"""UnlabeledImageDataset over folders and json files, in the host's pipelines and samplers."""

from __future__ import annotations

import itertools
import os
import struct

import cv2
import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from mmdet.datasets.samplers import GroupMultiSourceSampler, MultiSourceSampler
from mmdet.datasets.transforms import LoadAnnotations, LoadEmptyAnnotations, MultiBranch
from mmdet.registry import DATASETS as MMDET_DATASETS
from mmengine.dataset import ConcatDataset
from PIL import Image

from mmdet_softpl.datasets.config_sets import configured_sets
from mmdet_softpl.datasets.image_scan import scan_image
from mmdet_softpl.datasets.set_contents import read_set
from mmdet_softpl.datasets.unlabeled_image_dataset import (
    UnlabeledImageDataset,
    find_images,
    read_image_size,
)
from mmdet_softpl.registry import DATASETS


def _picture(path, height=8, width=12, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **kwargs)
    return path


@pytest.fixture()
def folder(tmp_path):
    """b/1.PNG (tall), a.jpg (wide), b/c/2.jpeg (wide), and files that are not taken."""
    _picture(tmp_path / 'b' / '1.PNG', 20, 10)
    _picture(tmp_path / 'a.jpg')
    _picture(tmp_path / 'b' / 'c' / '2.jpeg')
    _picture(tmp_path / '.thumbnails' / 'x.jpg')
    _picture(tmp_path / '._a.jpg', format='JPEG')
    (tmp_path / 'notes.txt').write_text('no image')
    return tmp_path


def test_both_registries():
    assert DATASETS.get('UnlabeledImageDataset') is UnlabeledImageDataset
    assert MMDET_DATASETS.get('UnlabeledImageDataset') is UnlabeledImageDataset
    assert MMDET_DATASETS.get('mmdet_softpl.UnlabeledImageDataset') is UnlabeledImageDataset


def test_folder_is_recursive_sorted_and_takes_any_case(folder):
    dataset = UnlabeledImageDataset(data_root=str(folder))
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    assert [os.path.relpath(info['img_path'], folder) for info in infos] == [
        'a.jpg',
        'b/1.PNG',
        'b/c/2.jpeg',
    ]
    assert [(info['height'], info['width']) for info in infos] == [(8, 12), (20, 10), (8, 12)]
    assert [info['img_id'] for info in infos] == [0, 1, 2]
    assert all(info['instances'] == [] for info in infos)
    assert dataset.get_cat_ids(0) == []


def test_prefix_and_links(folder):
    dataset = UnlabeledImageDataset(data_root=str(folder), data_prefix={'img': 'b/'})
    assert len(dataset) == 2
    (folder / 'b' / 'c' / 'loop').symlink_to(folder)
    (folder / 'link').symlink_to(folder / 'b' / 'c')
    # b/c is seen once, through whichever name comes first.
    assert len(find_images(folder)) == 3


def test_links_to_folders_elsewhere_are_followed(tmp_path):
    _picture(tmp_path / 'disk' / 'x.jpg')
    (tmp_path / 'photos').mkdir()
    (tmp_path / 'photos' / 'link').symlink_to(tmp_path / 'disk')
    assert find_images(tmp_path / 'photos') == [str(tmp_path / 'photos' / 'link' / 'x.jpg')]


def test_size_is_that_of_the_decoded_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = _picture(tmp_path / 'turned.jpg', 8, 12, exif=exif)
    assert read_image_size(path) == cv2.imread(str(path)).shape[:2] == (12, 8)
    # Pillow turns a TIFF's size itself; OpenCV 4 leaves a WebP as it is.
    for suffix in ('tiff', 'png', 'webp'):
        path = _picture(tmp_path / f'turned.{suffix}', 8, 12, exif=exif)
        decoded = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
        assert read_image_size(path) == decoded.shape[:2]
    # Of XMP, which editors write, the host's decoder does not know.
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    path = _picture(tmp_path / 'edited.jpg', 8, 12, xmp=xmp)
    with Image.open(path) as image:
        assert image.getexif()[0x0112] == 6
    assert read_image_size(path) == cv2.imread(str(path)).shape[:2] == (8, 12)
    for suffix in ('png', 'bmp', 'webp', 'tiff'):
        path = _picture(tmp_path / f'x.{suffix}', 8, 12)
        assert read_image_size(path) == (8, 12)


def test_a_very_large_image_is_no_broken_one(tmp_path, monkeypatch):
    path = _picture(tmp_path / 'x.png', 80, 60)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)
    assert read_image_size(path) == (80, 60)


def test_a_damaged_header_that_promises_too_much_is_a_broken_image(folder):
    path = _picture(folder / 'x.bmp', 24, 32)
    content = bytearray(path.read_bytes())
    # Width and height: Pillow suspects an attack, and OpenCV raises.
    content[18:26] = struct.pack('<ii', 2_000_000, 24_000)
    path.write_bytes(content)
    with pytest.raises(OSError, match=r'x\.bmp.*cannot read'):
        read_image_size(path)
    assert 'cannot read' in scan_image(path).error
    with pytest.warns(UserWarning, match=r'x\.bmp'):
        dataset = UnlabeledImageDataset(data_root=str(folder))
    assert len(dataset) == 3


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'bmp', 'webp'])
def test_truncated_file_is_found(tmp_path, suffix):
    path = _picture(tmp_path / f'x.{suffix}', 64, 64)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(OSError):
        read_image_size(path)


@pytest.mark.parametrize(('suffix', 'end'), [('jpg', b'\xff\xd9'), ('png', b'IEND')])
def test_the_end_of_a_thumbnail_is_not_that_of_the_image(tmp_path, suffix, end):
    """A thumbnail is a whole file within the EXIF data, which come before the pixels."""
    exif = Image.Exif().tobytes() + end
    path = _picture(tmp_path / f'x.{suffix}', 128, 96, exif=exif)
    data = path.read_bytes()
    assert data.count(end) == 2 and read_image_size(path) == (128, 96)
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(OSError):
        read_image_size(path)


def test_trailer_after_the_end_marker_is_no_fault(tmp_path):
    for suffix in ('jpg', 'png'):
        path = _picture(tmp_path / f'x.{suffix}', 64, 48)
        path.write_bytes(path.read_bytes() + b'\0' * 5000)
        assert read_image_size(path) == (64, 48)


def test_unreadable_files_are_skipped_with_one_warning(folder):
    for i in range(12):
        (folder / f'z{i:02d}.jpg').write_bytes(b'not a jpeg' if i else b'')
    with pytest.warns(UserWarning) as caught:
        dataset = UnlabeledImageDataset(data_root=str(folder))
    ours = [str(w.message) for w in caught if 'UnlabeledImageDataset' in str(w.message)]
    assert len(ours) == 1
    assert '12 of 15' in ours[0] and 'z09.jpg' in ours[0] and 'z10.jpg' not in ours[0]
    assert 'and 2 more' in ours[0]
    assert len(dataset) == 3


def test_errors_at_construction(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match=r'nowhere.*does not exist'):
        UnlabeledImageDataset(data_root=str(tmp_path / 'nowhere'))
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match=r'no image below .*empty'):
        UnlabeledImageDataset(data_root=str(tmp_path / 'empty'))
    (tmp_path / 'empty' / 'x.jpg').touch()
    with pytest.raises(ValueError, match='No image is left'):
        UnlabeledImageDataset(data_root=str(tmp_path / 'empty'))
    with pytest.raises(ValueError, match='data_root'):
        UnlabeledImageDataset()
    with pytest.raises(ValueError, match='filter_empty_gt=True'):
        UnlabeledImageDataset(data_root=str(folder), filter_cfg={'filter_empty_gt': True})
    with pytest.raises(ValueError, match='img_path'):
        UnlabeledImageDataset(data_root=str(folder), data_prefix={'img_path': ''})


def test_min_size(folder):
    dataset = UnlabeledImageDataset(data_root=str(folder), filter_cfg={'min_size': 10})
    assert [info['height'] for info in dataset] == [20]
    # An evaluation looks at every image.
    dataset = UnlabeledImageDataset(
        data_root=str(folder), filter_cfg={'min_size': 10}, test_mode=True
    )
    assert [info['height'] for info in dataset] == [8, 20, 8]


def test_nothing_above_min_size_is_named(folder):
    with pytest.raises(ValueError, match=r'has a side below filter_cfg\.min_size=500'):
        UnlabeledImageDataset(data_root=str(folder), filter_cfg=dict(min_size=500))


def test_json_with_annotations_that_are_ignored(folder, write):
    images = [
        {'id': 40, 'file_name': 'b/1.PNG', 'height': 20, 'width': 10},
        {'id': 30, 'coco_url': 'http://images.cocodataset.org/b/c/2.jpeg'},
    ]
    annotations = [{'id': 1, 'image_id': 40, 'category_id': 1, 'bbox': [0, 0, 2, 2]}]
    write({'images': images, 'categories': [], 'annotations': annotations}, 'u.json')
    dataset = UnlabeledImageDataset(
        data_root=str(folder), ann_file='u.json', metainfo={'classes': ('cat',)}
    )
    assert dataset.metainfo['classes'] == ('cat',)
    infos = [dataset.get_data_info(i) for i in range(2)]
    assert [info['img_id'] for info in infos] == [40, 30]
    assert [(info['height'], info['width']) for info in infos] == [(20, 10), (8, 12)]
    assert infos[0]['instances'] == []


@pytest.mark.parametrize('unknown', [0, None, -1])
def test_sizes_that_the_json_does_not_know(folder, write, unknown):
    """As the folder says them, for the training and for an inspection."""
    images = [
        {'id': 1, 'file_name': 'b/1.PNG', 'height': unknown, 'width': unknown},
        {'id': 2, 'file_name': 'a.jpg', 'height': 8, 'width': unknown},
    ]
    cfg = dict(
        type='mmdet_softpl.UnlabeledImageDataset',
        ann_file=str(write({'images': images, 'annotations': [], 'categories': []})),
        data_prefix=dict(img=str(folder)),
        filter_cfg=dict(min_size=4),
    )
    (one,) = configured_sets(dict(train_dataloader=dict(dataset=cfg)))
    contents = read_set(one)
    dataset = MMDET_DATASETS.build(cfg)
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    assert [(info['height'], info['width']) for info in infos] == [(20, 10), (8, 12)]
    assert contents.used_images == 2 and contents.findings == ()


def test_json_errors(folder, write):
    entry = {'id': 1, 'file_name': 'gone.jpg', 'height': 20, 'width': 10}
    write({'images': [entry, {**entry, 'file_name': 'a.jpg'}], 'categories': []}, 'u.json')
    with pytest.raises(FileNotFoundError, match=r'u\.json: 1 of 2 images .*gone\.jpg'):
        UnlabeledImageDataset(data_root=str(folder), ann_file='u.json')
    write({'images': [{'id': 1}], 'categories': []}, 'u.json')
    with pytest.raises(ValueError, match=r'images\[0\].*file_name'):
        UnlabeledImageDataset(data_root=str(folder), ann_file='u.json')
    write({'images': [], 'categories': []}, 'u.json')
    with pytest.raises(ValueError, match=r'u\.json.*empty list'):
        UnlabeledImageDataset(data_root=str(folder), ann_file='u.json')
    with pytest.raises(ValueError, match=r'gone\.json'):
        UnlabeledImageDataset(data_root=str(folder), ann_file='gone.json')
    # Of no known size, and unreadable.
    (folder / 'text.jpg').write_text('no image')
    entries = [dict(id=1, file_name='a.jpg'), dict(id=2, file_name='text.jpg')]
    write({'images': entries, 'categories': []}, 'u.json')
    with pytest.raises(ValueError, match=r'u\.json: 1 of 2 images have no size .*text\.jpg'):
        UnlabeledImageDataset(data_root=str(folder), ann_file='u.json')


@pytest.mark.parametrize(
    'loader',
    [
        LoadAnnotations(with_bbox=True, with_mask=True),
        LoadEmptyAnnotations(with_bbox=True, with_mask=True),
    ],
)
def test_host_pipelines(folder, loader):
    branch = MultiBranch(
        branch_field=['sup', 'unsup'],
        unsup=[
            {'type': 'mmdet.Resize', 'scale': (24, 24), 'keep_ratio': True},
            {'type': 'mmdet.Rotate', 'prob': 1.0},
            {'type': 'mmdet.PackDetInputs'},
        ],
    )
    dataset = UnlabeledImageDataset(
        data_root=str(folder), pipeline=[{'type': 'LoadImageFromFile'}, loader, branch]
    )
    sample = dataset[1]
    assert sample['inputs']['sup'] is None
    assert sample['inputs']['unsup'].shape == (3, 24, 12)
    instances = sample['data_samples']['unsup'].gt_instances
    assert len(instances) == 0
    assert instances.masks.masks.shape == (0, 24, 12)


def test_host_samplers_over_labelled_and_unlabelled(folder, good, write):
    for image, name in zip(good['images'], ('a.jpg', 'b/1.PNG', 'b/c/2.jpeg'), strict=True):
        image['file_name'] = name
    labeled = CocoDataset(
        ann_file=str(write(good)),
        data_prefix={'img': str(folder)},
        metainfo={'classes': ('cat', 'dog')},
    )
    unlabeled = UnlabeledImageDataset(data_root=str(folder))
    both = ConcatDataset([labeled, unlabeled], ignore_keys=['classes', 'palette'])
    assert both.metainfo['classes'] == ('cat', 'dog')
    for sampler_type in (MultiSourceSampler, GroupMultiSourceSampler):
        sampler = sampler_type(both, batch_size=4, source_ratio=[1, 1], seed=0)
        for _ in range(5):
            batch = list(itertools.islice(sampler, 4))
            assert [index >= len(labeled) for index in batch] == [False, False, True, True]
            if sampler_type is GroupMultiSourceSampler:
                infos = [both.get_data_info(index) for index in batch]
                assert len({info['width'] < info['height'] for info in infos}) == 1


def test_coco_tiny_sizes(coco_tiny):
    dataset = UnlabeledImageDataset(data_root=str(coco_tiny), data_prefix={'img': 'train2017/'})
    assert len(dataset) == 80
    for i in range(0, 80, 8):
        info = dataset.get_data_info(i)
        assert cv2.imread(info['img_path']).shape[:2] == (info['height'], info['width'])


def test_a_folder_that_cannot_be_read_is_an_error(folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may read everything, as root may, cannot be refused by permissions."""
    inner = folder / 'locked'
    inner.mkdir()
    scandir = os.scandir

    def refused(path):
        if str(path) == str(inner):
            raise PermissionError(13, 'Permission denied', str(path))
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', refused)
    with pytest.raises(PermissionError, match='locked'):
        find_images(folder)
