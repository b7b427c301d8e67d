"""The benchmark's data are as hard as they claim to be."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.longtail.data import LONGTAIL_60, POOL, SPLITS, TINY, Draw, count, make_data
from benchmarks.longtail.presets import PRESETS
from mmdet_softpl.datasets.shape_classes import shape_classes
from mmdet_softpl.datasets.shape_plan import plan_splits


def planned(split: str, images: bool = True) -> np.ndarray:
    """(C,) images (or objects) that each class is planned for."""
    plan = plan_splits(LONGTAIL_60)[split]
    labels = np.concatenate([sorted(set(i)) if images else i for i in plan]).astype(int)
    return np.bincount(labels, minlength=LONGTAIL_60.num_classes)


def test_the_labelled_set_fills_the_groups() -> None:
    counts = planned('train')
    assert LONGTAIL_60.num_classes >= 60
    assert (counts <= 10).sum() >= 20
    assert ((counts > 10) & (counts <= 100)).sum() >= 20
    # 110 planned images leave more than 100 where some objects find no room.
    assert (counts >= 110).sum() >= 10
    assert counts.min() >= 1
    families = {shape.outline for shape in shape_classes(LONGTAIL_60.num_classes)}
    assert LONGTAIL_60.num_classes / len(families) >= 5


def test_the_unlabelled_set_has_eight_times_the_same_tail() -> None:
    assert LONGTAIL_60.num_unlabeled >= 8 * LONGTAIL_60.num_train
    np.testing.assert_allclose(planned('unlabeled'), 8 * planned('train'), rtol=0.01)


@pytest.mark.parametrize('split', SPLITS)
def test_evaluation_is_near_uniform(split: str) -> None:
    counts = planned(split, images=False)
    assert counts.min() >= 40
    assert counts.max() / counts.min() < 2


@pytest.mark.slow
def test_what_is_generated(tmp_path: Path) -> None:
    """Splits do not depend on each other's sizes, so the many unlabelled images are left out."""
    make_data(tmp_path, replace(LONGTAIL_60, num_unlabeled=100), workers=1)
    found = count(tmp_path)
    assert found.classes['rare'] >= 20
    assert found.classes['common'] >= 20
    assert found.classes['frequent'] >= 10
    assert found.fewest_instances['train'] >= 1
    assert min(found.fewest_instances[split] for split in SPLITS) >= 30


def test_counts_of_a_generated_set(tmp_path: Path) -> None:
    make_data(tmp_path, replace(TINY, num_unlabeled=8), workers=1)
    found = count(tmp_path)
    assert found.images == dict(train=60, hidden_unlabeled=8, tune=12, test=12)
    assert sum(found.classes.values()) == 12
    assert found.classes['rare'] > 0 and found.classes['common'] > 0


@pytest.mark.parametrize('draw', [Draw(30), Draw(40, min_images_per_class=4)], ids=str)
def test_a_draw_labels_other_images_of_the_same_set(tmp_path: Path, draw: Draw) -> None:
    config = replace(TINY, num_unlabeled=20)

    def read(name: str) -> dict:
        return json.loads((tmp_path / 'annotations' / f'{name}.json').read_text())

    def labels(*files: dict) -> dict[str, list]:
        """Category, box and mask of the objects of each picture."""
        found: dict[str, list] = {}
        for file in files:
            names = {image['id']: image['file_name'] for image in file['images']}
            found |= {name: [] for name in names.values()}
            for a in file['annotations']:
                entry = (a['category_id'], a['bbox'], json.dumps(a['segmentation']))
                found[names[a['image_id']]].append(entry)
        return {name: sorted(entries) for name, entries in found.items()}

    make_data(tmp_path, config, draw, workers=1)
    parts = [read('train'), read('hidden_unlabeled')]
    pool = [read(f'../{POOL}/annotations/{name}') for name in ('train', 'hidden_unlabeled')]
    assert [len(part['images']) for part in parts] == [draw.labeled, 80 - draw.labeled]
    assert labels(*parts) == labels(*pool)
    for part, folder in zip(parts, ('train', 'unlabeled'), strict=True):
        names = {image['file_name'] for image in part['images']}
        assert {path.name for path in (tmp_path / folder).iterdir()} == names
        frequencies = [c['frequency'] for c in part['categories']]
        assert frequencies == [c['frequency'] for c in pool[0]['categories']]
    bare = read('unlabeled')
    assert bare['annotations'] == []
    assert all('neg_category_ids' not in image for image in bare['images'])
    assert [i['id'] for i in bare['images']] == [i['id'] for i in parts[1]['images']]
    least, there = draw.min_images_per_class, count_images(*pool)
    assert all(n >= min(least, there[c]) for c, n in count_images(parts[0]).items())
    assert count(tmp_path).images == dict(
        train=draw.labeled, hidden_unlabeled=80 - draw.labeled, tune=12, test=12
    )
    for split in SPLITS:
        assert len(list((tmp_path / split).iterdir())) == 12

    # Interrupted before its last file, it comes out the same.
    (tmp_path / 'annotations' / 'unlabeled.json').unlink()
    make_data(tmp_path, config, draw, workers=1)
    assert [read('train'), read('hidden_unlabeled'), read('unlabeled')] == [*parts, bare]


def test_a_folder_of_another_set_is_refused(tmp_path: Path) -> None:
    """Its images have the same names: nothing else would show that other ones are labelled."""
    config = replace(TINY, num_unlabeled=20)
    make_data(tmp_path / 'drawn', config, Draw(30), workers=1)
    make_data(tmp_path / 'drawn', config, Draw(30), workers=1)
    make_data(tmp_path / 'plain', config, workers=1)
    make_data(tmp_path / 'other', replace(config, seed=2), workers=1)
    for folder, draw, said in (
        ('drawn', Draw(40), r"another data set.*draw=.*'labeled': 30.*'labeled': 40.*--data"),
        ('plain', Draw(30), r'another data set.*draw\.json.*--data'),
        ('drawn', None, 'not from here'),
        ('other', None, r'other parameters.*shapes\.json.*--data'),
    ):
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
        with pytest.raises(FileExistsError, match=said):
            make_data(tmp_path / folder, config, draw, workers=1)
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')} == before
    with pytest.raises(FileExistsError, match=r"draw\.json has shapes=.*'seed'"):
        make_data(tmp_path / 'drawn', replace(config, seed=1), Draw(30), workers=1)


def test_a_second_run_waits_for_the_data(tmp_path: Path) -> None:
    """Runs in other folders share them; half-made parts would be taken for whole ones."""
    holder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    config = replace(TINY, num_unlabeled=8)
    second = threading.Thread(target=make_data, args=(tmp_path, config), kwargs=dict(workers=1))
    second.start()
    second.join(0.3)
    assert second.is_alive() and not any(tmp_path.iterdir())
    os.close(holder)
    second.join(60)
    assert count(tmp_path).images['train'] == 60


def count_images(*files: dict) -> dict[int, int]:
    """Images that show each category."""
    found = {category['id']: 0 for category in files[0]['categories']}
    for file in files:
        for _, category in {(a['image_id'], a['category_id']) for a in file['annotations']}:
            found[category] += 1
    return found


def test_presets_that_vary_another_differ_in_the_labelled_images_or_the_length_alone() -> None:
    for preset in PRESETS.values():
        if preset.varies is None:
            assert preset.draw is None
            continue
        base, total = PRESETS[preset.varies], 0
        changed = ('max_iters', 'lr_drop') if preset.draw is None else ('draw',)
        assert all(getattr(preset, key) != getattr(base, key) for key in changed)
        kept = ('name', 'arms', 'seeds', 'varies', *changed)
        assert replace(preset, **{key: getattr(base, key) for key in kept}) == base
        for images in (base.images, preset.images):
            assert total in (0, images['train'] + images['unlabeled'])
            total = images['train'] + images['unlabeled']
