"""A new user's mistakes, each with a message that says what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mmcv
import pytest
from mmengine.config import Config
from PIL import Image

from mmdet_softpl.datasets.image_scan import ScannedImage
from mmdet_softpl.datasets.own_data import (
    MIN_SIZE,
    check_own_data,
    path_problem,
    unlabelled_json,
)
from mmdet_softpl.shipped_configs import config_path
from tests.support.tiny_data import write_data

CLASSES = ('a', 'b', 'c', 'd')


@pytest.fixture()
def paths(tmp_path: Path) -> dict[str, str]:
    root = write_data(tmp_path / 'data', CLASSES, num_train=4)
    return dict(
        labeled_json=str(root / 'annotations/instances_train2017.json'),
        labeled_images=str(root / 'train2017'),
        unlabeled_images=str(root / 'unlabeled2017'),
        val_json=str(root / 'annotations/instances_val2017.json'),
        val_images=str(root / 'val2017'),
    )


def _edit(path: str, change) -> None:
    data = json.loads(Path(path).read_text())
    change(data)
    Path(path).write_text(json.dumps(data))


def test_sound_data(paths: dict[str, str]) -> None:
    steps = []
    data = check_own_data(paths, lambda total: lambda: steps.append(total))
    assert steps == [10] * 10
    assert data.labelled.summary.classes == CLASSES
    assert (data.labelled.used_images, data.unlabelled.used_images) == (4, 4)
    assert data.longer_side == 128 and data.warnings == ()
    assert data.dataset_types == dict(labelled='CocoDataset', validation='CocoDataset')


def test_small_images_do_not_count_as_the_inherited_config_leaves_them_out() -> None:
    cfg = Config.fromfile(str(config_path('_base_/datasets/semi_coco_instance.py')))
    for dataset in (cfg.labeled_dataset, cfg.unlabeled_dataset):
        assert dataset.filter_cfg.min_size == MIN_SIZE


def test_unlabelled_json(paths: dict[str, str], tmp_path: Path) -> None:
    images = [dict(id=1, file_name='000000000007.jpg', height=96, width=128)]
    file = tmp_path / 'unlabeled.json'
    file.write_text(json.dumps(dict(images=images, annotations=[], categories=[])))
    assert check_own_data(dict(paths, unlabeled_json=str(file))).unlabelled.used_images == 1


@pytest.mark.parametrize(
    ('argument', 'value', 'said'),
    [
        ('labeled_json', 'labeled_images', 'swapped with --labeled-images'),
        ('labeled_images', 'labeled_json', 'swapped with --labeled-json'),
        ('val_json', 'val_images', 'swapped with --val-images'),
        ('unlabeled_images', 'val_json', 'swapped with --unlabeled-json'),
    ],
)
def test_swapped_arguments(paths: dict[str, str], argument: str, value: str, said: str) -> None:
    given = dict(paths, **{argument: paths[value]})
    with pytest.raises(ValueError, match=said) as error:
        check_own_data(given)
    assert paths[value] in str(error.value)


def test_all_wrong_paths_are_named_at_once() -> None:
    with pytest.raises(ValueError) as error:
        check_own_data(dict(labeled_json='x.json', val_images='nowhere'))
    assert str(error.value).splitlines() == [
        '--labeled-json x.json: there is no such file',
        '--val-images nowhere: there is no such folder',
    ]
    assert path_problem('val_images', '.') is None


def test_json_of_another_data_set(paths: dict[str, str]) -> None:
    with pytest.raises(ValueError, match='json of another data set'):
        check_own_data(dict(paths, labeled_json=paths['val_json']))


def test_other_classes_in_the_validation(paths: dict[str, str]) -> None:
    _edit(paths['val_json'], lambda d: d['categories'].reverse())
    with pytest.raises(ValueError, match='same names, other order'):
        check_own_data(paths)


def test_no_categories(paths: dict[str, str]) -> None:
    _edit(paths['labeled_json'], lambda d: d.pop('categories'))
    with pytest.raises(ValueError, match='key `categories` is missing'):
        check_own_data(paths)


def test_no_masks(paths: dict[str, str]) -> None:
    _edit(paths['labeled_json'], lambda d: [a.pop('segmentation') for a in d['annotations']])
    with pytest.raises(ValueError, match='without `segmentation`'):
        check_own_data(paths)


@pytest.mark.parametrize(
    ('argument', 'refused'),
    [('labeled_images', True), ('val_images', True), ('unlabeled_images', False)],
)
def test_one_broken_image(paths: dict[str, str], argument: str, refused: bool) -> None:
    path = sorted(Path(paths[argument]).iterdir())[1]
    path.write_bytes(b'no image')
    if refused:
        with pytest.raises(ValueError, match='unreadable image') as error:
            check_own_data(paths)
        assert f'{path} (not an image)' in str(error.value)
    else:
        (warning,) = check_own_data(paths).warnings
        assert warning.kind == 'unreadable image' and str(path) in warning.detail


def test_an_image_that_pillow_alone_reads(paths: dict[str, str]) -> None:
    """The folder's data set keeps it, and the training would end there."""
    path = Path(paths['unlabeled_images'], 'float.tif')
    Image.new('F', (60, 40), 0.5).save(path)
    readable = mmcv.imread(str(path)) is not None
    assert Image.open(path).size == (60, 40)
    if readable:
        check_own_data(paths)
        return
    with pytest.raises(ValueError, match='OpenCV') as error:
        check_own_data(paths)
    assert str(path) in str(error.value)


def test_truncated_image_that_opencv_reads_in_part(
    paths: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sorted(Path(paths['labeled_images']).iterdir())[0]
    path.write_bytes(path.read_bytes()[:-400])
    found = ScannedImage(96, 128, 'digest', 'truncated')
    monkeypatch.setattr('mmdet_softpl.datasets.own_data.scan_image', lambda path: found)
    (warning,) = check_own_data(paths).warnings
    assert warning.kind == 'truncated image' and str(path) in warning.detail


def test_folder_without_images(paths: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='has no image'):
        check_own_data(dict(paths, unlabeled_images=str(tmp_path / 'empty')))


def test_the_same_images_twice(paths: dict[str, str]) -> None:
    shared = dict(paths, unlabeled_images=paths['val_images'])
    with pytest.raises(ValueError, match=r'all 2 images below .* are in one of the other'):
        check_own_data(shared)
    # A json is taken at its word.
    data = check_own_data(dict(shared, unlabeled_json=paths['val_json']))
    (warning,) = data.warnings
    assert warning.subject == 'unlabelled, validation' and warning.count == 2


def test_one_folder_of_everything(paths: dict[str, str], tmp_path: Path) -> None:
    together = tmp_path / 'all'
    for split in ('labeled', 'unlabeled', 'val'):
        shutil.copytree(paths[f'{split}_images'], together, dirs_exist_ok=True)
    same = dict(paths, **{f'{s}_images': str(together) for s in ('labeled', 'unlabeled', 'val')})
    data = check_own_data(same)
    unlabelled = {path.name for path in Path(paths['unlabeled_images']).iterdir()}
    assert {Path(image.path).name for image in data.unlabelled.images} == unlabelled
    assert data.unlabelled.used_images == len(unlabelled)
    assert data.left_out == len(list(together.iterdir())) - len(unlabelled)
    assert data.warnings == ()
    written = unlabelled_json(data)
    assert {image['file_name'] for image in written['images']} == unlabelled
    assert all({i['height'], i['width']} == {96, 128} for i in written['images'])
    assert [c['name'] for c in written['categories']] == list(CLASSES)

    # A damaged file is left out of the list as it is of a folder.
    (together / 'broken.jpg').write_bytes(b'no image')
    again = check_own_data(same)
    assert unlabelled_json(again)['images'] == written['images']
    assert again.unlabelled.used_images == 4 and again.left_out == data.left_out
    (warning,) = again.warnings
    assert 'broken.jpg' in warning.detail


def test_images_of_the_labelled_json_that_nobody_has_labelled(
    paths: dict[str, str], tmp_path: Path
) -> None:
    def unlabel(content: dict) -> None:
        first = content['images'][0]['id']
        content['annotations'] = [a for a in content['annotations'] if a['image_id'] != first]

    _edit(paths['labeled_json'], unlabel)
    together = tmp_path / 'all'
    for split in ('labeled', 'unlabeled'):
        shutil.copytree(paths[f'{split}_images'], together, dirs_exist_ok=True)
    data = check_own_data(dict(paths, labeled_images=str(together), unlabeled_images=str(together)))
    assert (data.labelled.used_images, data.unlabelled.used_images) == (3, 5)
    assert 'image without an annotation' in [w.kind for w in data.warnings]
    assert 'images in both sets' not in [w.kind for w in data.warnings]


def test_held_out_images_in_a_folder_of_their_own(paths: dict[str, str]) -> None:
    """They are looked for beside the labelled ones, whose folder is right as it is."""
    given = dict(paths, held_out_json=paths['val_json'])
    with pytest.raises(ValueError, match='held-out: missing image') as error:
        check_own_data(given)
    assert 'in the folder of --labeled-images: copy or link them there' in str(error.value)
    assert 'another data set' not in str(error.value)


def test_held_out_images_that_are_those_of_validation(paths: dict[str, str]) -> None:
    same = dict(paths, held_out_json=paths['val_json'], labeled_images=paths['val_images'])
    same['labeled_json'] = paths['val_json']
    with pytest.raises(ValueError, match='labelled, held-out: images in both sets'):
        check_own_data(same)
    root = Path(paths['labeled_images'])
    for path in Path(paths['val_images']).iterdir():
        shutil.copy(path, root)
    same = dict(paths, held_out_json=paths['val_json'], val_images=paths['labeled_images'])
    assert 'validation, held-out' in [w.subject for w in check_own_data(same).warnings]


def test_file_names_that_begin_with_the_folder(paths: dict[str, str]) -> None:
    folder = Path(paths['labeled_images'])

    def rename(data: dict) -> None:
        for image in data['images']:
            image['file_name'] = f'{folder.name}/{image["file_name"]}'

    _edit(paths['labeled_json'], rename)
    with pytest.raises(ValueError, match='--labeled-images') as caught:
        check_own_data(paths)
    assert f'give {str(folder.parent)!r}' in str(caught.value)
    assert paths['labeled_json'] in str(caught.value)
    assert check_own_data(dict(paths, labeled_images=str(folder.parent))).labelled.used_images == 4


def test_images_named_by_url(paths: dict[str, str], tmp_path: Path) -> None:
    def rename(data: dict) -> None:
        for image in data['images']:
            name = image.pop('file_name')
            image['coco_url'] = f'http://images.cocodataset.org/train2017/{name}'

    _edit(paths['labeled_json'], rename)
    shutil.copytree(paths['labeled_images'], tmp_path / 'lvis/train2017')
    data = check_own_data(dict(paths, labeled_images=str(tmp_path / 'lvis')))
    assert data.dataset_types == dict(labelled='LVISV1Dataset', validation='CocoDataset')


def test_masks_are_needed_where_they_are_judged(paths: dict[str, str], tmp_path: Path) -> None:
    """In the validation set; calibration on held-out labels takes their boxes."""
    held_out = tmp_path / 'held_out.json'
    shutil.copy(paths['val_json'], held_out)

    def change(data: dict) -> None:
        for image in data['images']:
            source = Path(paths['val_images']) / image['file_name']
            image['file_name'] = f'held_out_{source.name}'
            shutil.copy(source, Path(paths['labeled_images']) / image['file_name'])
        del data['annotations'][0]['segmentation']

    _edit(str(held_out), change)
    given = dict(paths, held_out_json=str(held_out))
    assert [f.kind for f in check_own_data(given).warnings] == ['annotation without `segmentation`']
    _edit(paths['val_json'], lambda d: d['annotations'][0].pop('segmentation'))
    with pytest.raises(ValueError, match='validation: annotation without `segmentation`'):
        check_own_data(given)
