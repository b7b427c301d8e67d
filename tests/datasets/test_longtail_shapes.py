"""The generated files: layout, tail, determinism, resumption, independence of the splits."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from collections import Counter, defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_utils

from mmdet_softpl.datasets import longtail_shapes
from mmdet_softpl.datasets.annotation_checks import check_annotations, check_same_categories
from mmdet_softpl.datasets.longtail_shapes import generate_longtail_shapes
from mmdet_softpl.datasets.shape_plan import ShapesConfig, plan_splits

SMALL = ShapesConfig(num_classes=6, image_size=64, num_train=8, num_unlabeled=6, num_val=5)


def _generate(root, config=SMALL, workers=1):
    return generate_longtail_shapes(root, config, progress=False, workers=workers)


def _digest(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob('*')
        if path.is_file()
    }


def _load(root: Path, name: str) -> dict:
    return json.loads((root / 'annotations' / f'{name}.json').read_text())


def test_files_pass_the_checks_and_lie_where_they_should(tiny_shapes):
    summaries = {
        name: check_annotations(
            tiny_shapes / 'annotations' / f'{name}.json',
            num_classes=len(ShapesConfig().classes),
            classes=ShapesConfig().classes,
            image_root=tiny_shapes / name,
            require_annotations=name != 'unlabeled',
        )
        for name in ('train', 'val', 'unlabeled')
    }
    for summary in summaries.values():
        check_same_categories(summaries['train'], summary)
    assert {name: s.num_images for name, s in summaries.items()} == {
        'train': 28,
        'val': 10,
        'unlabeled': 20,
    }
    assert summaries['train'].image_counts.min() >= 1
    names = (tiny_shapes / 'annotations' / 'classes.txt').read_text().splitlines()
    assert tuple(names) == ShapesConfig().classes
    assert sorted(p.name for p in tiny_shapes.iterdir()) == [
        'annotations',
        'shapes.json',
        'train',
        'unlabeled',
        'val',
    ]


def test_boxes_areas_and_masks_agree(tiny_shapes):
    for annotation in _load(tiny_shapes, 'train')['annotations']:
        mask = mask_utils.decode(annotation['segmentation'])
        assert mask.shape == (128, 128)
        assert mask.sum() == annotation['area'] > 0
        rows, columns = np.nonzero(mask)
        x, y, w, h = annotation['bbox']
        assert (x, y) == (columns.min(), rows.min())
        assert (x + w, y + h) == (columns.max() + 1, rows.max() + 1)


def test_lvis_fields(tiny_shapes):
    data = _load(tiny_shapes, 'train')
    images_of, instances = defaultdict(set), Counter()
    for annotation in data['annotations']:
        images_of[annotation['category_id']].add(annotation['image_id'])
        instances[annotation['category_id']] += 1
    for category in data['categories']:
        assert category['image_count'] == len(images_of[category['id']])
        assert category['instance_count'] == instances[category['id']]
    for image in data['images']:
        present = {c for c, ids in images_of.items() if image['id'] in ids}
        assert (
            set(image['neg_category_ids']) == set(range(1, len(data['categories']) + 1)) - present
        )
        assert image['not_exhaustive_category_ids'] == []
        assert 'coco_url' not in image
    # The validation file carries the labelled set's frequencies, as LVIS does.
    assert _load(tiny_shapes, 'val')['categories'] == data['categories']


def test_hidden_labels_belong_to_the_unlabelled_images(tiny_shapes):
    bare, hidden = _load(tiny_shapes, 'unlabeled'), _load(tiny_shapes, 'hidden_unlabeled')
    assert bare['annotations'] == [] and hidden['annotations']
    assert set(bare['images'][0]) == {'id', 'file_name', 'width', 'height'}
    assert [i['file_name'] for i in bare['images']] == [i['file_name'] for i in hidden['images']]
    ids = [
        {i['id'] for i in _load(tiny_shapes, n)['images']} for n in ('train', 'unlabeled', 'val')
    ]
    assert not (ids[0] & ids[1] or ids[0] & ids[2] or ids[1] & ids[2])


@pytest.mark.parametrize(
    ('num_classes', 'num_train', 'least'),
    [(12, 300, (4, 4, 3)), (24, 300, (8, 8, 5)), (60, 1200, (20, 20, 10))],
)
def test_all_groups_are_filled(num_classes, num_train, least):
    config = ShapesConfig(
        num_classes=num_classes,
        num_train=num_train,
        num_unlabeled=2 * num_train,
        num_val=400,
    )
    plans = plan_splits(config)
    images = Counter(label for plan in plans['train'] for label in set(plan))
    counts = np.array([images[label] for label in range(num_classes)])
    assert counts.min() >= 1
    groups = (counts <= 10).sum(), ((counts > 10) & (counts <= 100)).sum(), (counts > 100).sum()
    assert all(n >= k for n, k in zip(groups, least, strict=True))
    # Every family has a frequent or common member, so each rare class has a look-alike.
    families = defaultdict(list)
    for label, name in enumerate(config.classes):
        families[name.split('_')[0]].append(counts[label])
    assert all(max(members) > 10 for members in families.values())

    unlabeled = Counter(label for plan in plans['unlabeled'] for label in set(plan))
    ratio = np.array([unlabeled[c] for c in range(num_classes)]) / counts
    np.testing.assert_allclose(ratio, 2, rtol=0.25)
    val = Counter(label for plan in plans['val'] for label in set(plan))
    assert max(val.values()) / min(val.values()) < 1.6


def test_same_seed_same_bytes_also_with_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(longtail_shapes, 'CHUNK_SIZE', 3)
    _generate(tmp_path / 'a', workers=1)
    _generate(tmp_path / 'b', workers=2)
    assert _digest(tmp_path / 'a') == _digest(tmp_path / 'b')
    _generate(tmp_path / 'c', ShapesConfig(**{**SMALL.__dict__, 'seed': 1}))
    assert not set(_digest(tmp_path / 'a').values()) & {
        v for k, v in _digest(tmp_path / 'c').items() if k.endswith('.png')
    }


def test_splits_are_independent(tmp_path):
    longer = ShapesConfig(**{**SMALL.__dict__, 'num_unlabeled': 9, 'extra_splits': (('test', 4),)})
    a, b = plan_splits(SMALL), plan_splits(longer)
    assert a['train'] == b['train'] and a['val'] == b['val']
    paths = _generate(tmp_path, longer)
    assert len(json.loads(paths['test'].read_text())['images']) == 4
    first = [cv2.imread(str(next((tmp_path / n).glob('*.png')))) for n in ('train', 'val', 'test')]
    assert not np.array_equal(first[0], first[1]) and not np.array_equal(first[1], first[2])


def test_second_call_does_nothing_and_other_parameters_replace(tmp_path, monkeypatch):
    paths = _generate(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
    with monkeypatch.context() as patch:
        patch.setattr(longtail_shapes, '_render_chunk', None)
        assert _generate(tmp_path) == paths
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
    (tmp_path / 'notes.txt').write_text('mine')
    fewer = ShapesConfig(**{**SMALL.__dict__, 'num_train': 7})
    _generate(tmp_path, fewer)
    assert len(list((tmp_path / 'train').iterdir())) == 7
    assert (tmp_path / 'notes.txt').exists()
    # A picture that went missing is noticed.
    next((tmp_path / 'val').iterdir()).unlink()
    _generate(tmp_path, fewer)
    assert len(list((tmp_path / 'val').iterdir())) == 5


def test_interrupted_work_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(longtail_shapes, 'CHUNK_SIZE', 2)
    _generate(tmp_path / 'whole')
    original, done = longtail_shapes._render_chunk, []

    def interrupted(*task):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(task[2:4])
        return original(*task)

    with monkeypatch.context() as patch:
        patch.setattr(longtail_shapes, '_render_chunk', interrupted)
        with pytest.raises(KeyboardInterrupt):
            _generate(tmp_path / 'stopped')
    assert not (tmp_path / 'stopped' / 'shapes.json').exists()
    rest = []

    def counting(*task):
        rest.append(task[2:4])
        return original(*task)

    with monkeypatch.context() as patch:
        patch.setattr(longtail_shapes, '_render_chunk', counting)
        _generate(tmp_path / 'stopped')
    assert not set(done) & set(rest)
    assert _digest(tmp_path / 'stopped') == _digest(tmp_path / 'whole')


def test_a_second_interrupt_breaks_no_shutdown(tmp_path, monkeypatch):
    heard = []

    class Pool:
        def __init__(self, *args, **kwargs):
            pass

        def submit(self, *args):
            raise KeyboardInterrupt

        def shutdown(self, cancel_futures):
            os.kill(os.getpid(), signal.SIGINT)
            heard.append(cancel_futures)

    monkeypatch.setattr(longtail_shapes, 'ProcessPoolExecutor', Pool)
    monkeypatch.setattr(longtail_shapes, 'CHUNK_SIZE', 2)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        longtail_shapes.generate_longtail_shapes(tmp_path, SMALL, progress=False, workers=2)
    assert heard == [True] and signal.getsignal(signal.SIGINT) is before


def test_interrupted_with_other_parameters_starts_anew(tmp_path, monkeypatch):
    original = longtail_shapes._write_annotations
    monkeypatch.setattr(longtail_shapes, '_write_annotations', lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        _generate(tmp_path / 'a', ShapesConfig(**{**SMALL.__dict__, 'seed': 9}))
    monkeypatch.setattr(longtail_shapes, '_write_annotations', original)
    _generate(tmp_path / 'a')
    _generate(tmp_path / 'b')
    assert _digest(tmp_path / 'a') == _digest(tmp_path / 'b')


def test_foreign_folders_are_left_alone(tmp_path):
    (tmp_path / 'train').mkdir()
    (tmp_path / 'train' / 'holiday.jpg').touch()
    with pytest.raises(FileExistsError, match='train'):
        _generate(tmp_path)
    assert (tmp_path / 'train' / 'holiday.jpg').exists()


def test_what_others_put_beside_it_stays(tmp_path):
    _generate(tmp_path)
    mine = [tmp_path / 'train' / 'notes.txt', tmp_path / 'annotations' / 'train.1@50.json']
    for path in mine:
        path.write_text('mine')
    (tmp_path / 'test').mkdir()
    (tmp_path / 'test' / 'holiday.jpg').touch()
    more = ShapesConfig(**{**SMALL.__dict__, 'num_train': 7, 'extra_splits': (('test', 4),)})
    with pytest.raises(FileExistsError, match='test exist'):
        _generate(tmp_path, more)
    shutil.rmtree(tmp_path / 'test')
    _generate(tmp_path, more)
    assert all(path.read_text() == 'mine' for path in mine)
    assert len(list((tmp_path / 'train').glob('*.png'))) == 7
    _generate(tmp_path)
    assert all(path.read_text() == 'mine' for path in mine)
    assert not (tmp_path / 'test').exists()
    assert not (tmp_path / 'annotations' / 'test.json').exists()


@pytest.mark.parametrize(
    ('kwargs', 'text'),
    [
        ({'num_classes': 1}, 'num_classes'),
        ({'num_classes': 97}, 'num_classes'),
        ({'image_size': 8}, 'image_size'),
        ({'num_val': 0}, 'val'),
        ({'seed': -1}, 'seed'),
        ({'num_classes': 60, 'num_train': 3}, 'num_train=3 is too small'),
        ({'extra_splits': (('train', 5),)}, "'train'"),
        ({'extra_splits': (('../x', 5),)}, r'\.\./x'),
        ({'extra_splits': (('a', 5), ('a', 6))}, 'repeats'),
    ],
)
def test_bad_parameters(kwargs, text):
    with pytest.raises(ValueError, match=text):
        ShapesConfig(**kwargs)
