"""Data sets that do not fit each other or the model are named before training."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mmdet.datasets import LVISV1Dataset
from mmdet.registry import MODELS
from mmengine.dataset import BaseDataset, ClassBalancedDataset, RepeatDataset
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from mmdet_softpl.datasets.annotation_file import AnnotationError
from mmdet_softpl.datasets.rare_copy_paste_dataset import RareCopyPasteDataset
from mmdet_softpl.datasets.unlabeled_image_dataset import UnlabeledImageDataset
from mmdet_softpl.engine import data_checks
from mmdet_softpl.engine.data_checks import check_datasets
from mmdet_softpl.engine.training_sets import training_classes
from mmdet_softpl.evaluation.longtail_metric import LongTailMetric
from tests.support.album import Album
from tests.support.data_sets import (
    BOX,
    NAMES,
    ONE_EACH,
    Pictures,
    coco,
    concat,
    error_of,
    labelled,
    make_runner,
    pictures,
)
from tests.support.tiny import detector_config, semi_config


def test_equal_classes_fit() -> None:
    runner = make_runner(concat(pictures(NAMES), pictures(NAMES)), pictures(NAMES))
    check_datasets(runner)
    assert training_classes(runner) == NAMES


def test_an_unlabelled_json_with_another_class_is_named() -> None:
    other = ('ant', 'bee', 'cow', 'dog', 'elk')
    message = error_of(make_runner(concat(pictures(NAMES), pictures(other, 'unlabeled.json'))))
    for word in ('set 1', 'unlabeled.json', 'train.json', 'class 2', "'cow'", "'cat'", 'metainfo'):
        assert word in message


def test_a_validation_set_with_fewer_classes_is_named() -> None:
    message = error_of(make_runner(pictures(NAMES), pictures(NAMES[:4], 'val.json')))
    for word in ('val_dataloader', 'val.json', '4 against 5', "['elk']"):
        assert word in message


def test_the_same_names_in_another_order_are_an_error() -> None:
    message = error_of(make_runner(pictures(NAMES), pictures(NAMES[::-1], 'val.json')))
    assert "class 0 is 'elk' here and 'ant' there" in message


@pytest.mark.parametrize(
    'wrap',
    [
        lambda d: concat(d, pictures(None)),
        lambda d: RepeatDataset(d, 2),
        lambda d: ClassBalancedDataset(d, 0.5),
        # As a wrapper of another package would nest them; mmengine's own refuse to.
        lambda d: SimpleNamespace(datasets=[pictures(None), RepeatDataset(d, 2)]),
    ],
)
def test_nested_data_sets_are_looked_into(wrap: Any) -> None:
    check_datasets(make_runner(wrap(pictures(NAMES)), pictures(NAMES)))
    assert training_classes(make_runner(wrap(pictures(NAMES)))) == NAMES
    other = (*NAMES[:4], 'emu')
    assert "'emu'" in error_of(make_runner(wrap(pictures(other)), pictures(NAMES)))


def test_a_folder_without_classes_fits_everything() -> None:
    check_datasets(make_runner(concat(pictures(None), pictures(NAMES)), pictures(NAMES)))
    runner = make_runner(pictures(None), pictures(NAMES[:2]))
    check_datasets(runner)
    assert training_classes(runner) is None


@pytest.mark.parametrize('name', ['mask-rcnn', 'cascade-mask-rcnn'])
def test_a_head_with_another_number_of_classes_is_named(name: str) -> None:
    init_default_scope('mmdet')
    check_datasets(
        make_runner(pictures(NAMES), model=MODELS.build(semi_config(detector_config(name))))
    )
    for head in ('bbox_head', 'mask_head'):
        detector = detector_config(name)
        heads = detector.roi_head[head]
        (heads[-1] if isinstance(heads, list) else heads).num_classes = 7
        model = MODELS.build(semi_config(detector))
        message = error_of(make_runner(pictures(NAMES), model=model))
        for word in ('train.json', '5 classes', head, 'num_classes=7', 'set it to 5'):
            assert word in message
    # An RPN has one class, whatever the data.
    assert MODELS.build(detector_config(name)).rpn_head.num_classes == 1


def test_a_class_agnostic_mask_head_fits_everything() -> None:
    init_default_scope('mmdet')
    detector = detector_config()
    detector.roi_head.mask_head.update(class_agnostic=True, num_classes=80)
    check_datasets(make_runner(pictures(NAMES), model=MODELS.build(semi_config(detector))))


@pytest.mark.parametrize('branch', [None, 'sup'])
def test_a_labelled_file_with_a_fault_is_refused(tmp_path: Path, branch: str | None) -> None:
    files = coco(tmp_path / 'train.json', {**ONE_EACH, 'cat': [[1, 1, -3, 4]]})
    runner = make_runner(labelled(files, branch))
    with pytest.raises(AnnotationError, match=r'train\.json[\s\S]*negative[\s\S]*-3'):
        check_datasets(runner)


def test_a_doubt_about_a_labelled_file_is_logged_once_a_run(
    tmp_path: Path, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = coco(tmp_path / 'train.json', {**ONE_EACH, 'cat': []})
    runner = make_runner(concat(labelled(files), labelled(files)))
    check_datasets(runner)
    check_datasets(runner)
    (warning,) = log
    assert warning.startswith(f'{tmp_path}/train.json: 1 of 5 classes') and 'cat' in warning
    next_run: list[str] = []
    monkeypatch.setattr(MMLogger.get_instance('next run'), 'warning', next_run.append)
    check_datasets(runner)
    assert next_run == log


def test_unlabelled_images_of_the_hosts_configs_need_no_annotation(tmp_path: Path) -> None:
    train = labelled(coco(tmp_path / 'train.json', ONE_EACH), 'sup')
    rest = labelled(coco(tmp_path / 'rest.json', {}), 'unsup_teacher')
    check_datasets(make_runner(concat(train, rest)))
    with pytest.raises(AnnotationError, match=r'rest\.json[\s\S]*no annotation'):
        check_datasets(make_runner(labelled(coco(tmp_path / 'rest.json', {}), 'sup')))


@pytest.mark.parametrize('count', [4, 5])
def test_a_part_of_the_classes_of_an_lvis_file_is_refused(tmp_path: Path, count: int) -> None:
    init_default_scope('mmdet')
    files = coco(tmp_path / 'train.json', ONE_EACH)
    content = json.loads((tmp_path / 'train.json').read_text())
    for image in content['images']:
        image.update(neg_category_ids=[], not_exhaustive_category_ids=[])
        image['coco_url'] = f'http://x/{image["file_name"]}'
    (tmp_path / 'train.json').write_text(json.dumps(content))
    names = NAMES[5 - count :]
    runner = make_runner(LVISV1Dataset(**files, metainfo=dict(classes=names), pipeline=[]))
    if count == 5:
        check_datasets(runner)
    else:
        assert '4 of the 5 categories, but mmdet numbers all of them' in error_of(runner)


def test_files_elsewhere_and_of_other_formats_are_left_alone(tmp_path: Path) -> None:
    broken = coco(tmp_path / 'train.json', {**ONE_EACH, 'cat': [[1, 1, -3, 4]]})
    dataset = labelled(broken)
    dataset.backend_args = dict(backend='petrel')
    check_datasets(make_runner(dataset))
    dataset.backend_args, dataset.ann_file = None, 's3://bucket/train.json'
    check_datasets(make_runner(dataset))
    # Another class of data set, whose json has a format of its own.
    check_datasets(make_runner(pictures(NAMES, str(tmp_path / 'train.json'))))


@pytest.mark.parametrize(
    ('names', 'words'),
    [
        (NAMES, []),
        ((*NAMES, 'fox'), []),
        (NAMES[::-1], ["label 0 is 'elk' here, 'ant' there", 'Training goes on']),
        (('person', 'car'), ['unlabeled.json', 'train.json', "'ant'", "'person'"]),
        ((), []),
    ],
)
def test_other_categories_of_an_unlabelled_json_are_a_warning(
    tmp_path: Path, log: list[str], names: tuple[str, ...], words: list[str]
) -> None:
    train = labelled(coco(tmp_path / 'train.json', ONE_EACH))
    # Annotations there are not read, so their faults do not matter.
    boxes = {names[0]: [[1.0, 1.0, -3.0, 4.0]]} if names else {}
    unlabeled = UnlabeledImageDataset(**coco(tmp_path / 'unlabeled.json', boxes, names))
    for _ in range(2):
        check_datasets(make_runner(concat(train, unlabeled)))
    assert len(log) == bool(words)
    for word in words:
        assert word in log[0]


@pytest.mark.parametrize(
    ('unlabeled', 'ours', 'warned'),
    [(True, False, True), (True, True, False), (False, False, False)],
)
def test_pasted_objects_that_a_detector_does_not_know(
    tmp_path: Path, log: list[str], unlabeled: bool, ours: bool, warned: bool
) -> None:
    album = Album(tmp_path)
    album.add(40, 30, *((label, 3, 5, 10, 8) for label in range(3)))
    folder = dict(
        type='mmdet_softpl.UnlabeledImageDataset',
        data_prefix=dict(img=str(album.folder)),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='mmdet.LoadEmptyAnnotations')],
    )
    dataset = RareCopyPasteDataset(
        [album.config(), folder], unlabeled=unlabeled, ignore_keys=['classes', 'palette']
    )
    init_default_scope('mmdet')
    model = MODELS.build(semi_config(detector_config(num_classes=3))) if ours else None
    if ours:
        # What else it wants of the views has tests of its own.
        dataset.datasets = dataset.datasets[:1]
    check_datasets(make_runner(dataset, model=model))
    assert len(log) == warned
    assert not warned or 'Set unlabeled=False' in log[0]


def test_a_wrong_image_folder_is_named_before_training(tmp_path: Path) -> None:
    class Located(Pictures):
        def load_data_list(self) -> list[dict]:
            return [dict(img_path=str(tmp_path / 'images' / '1.jpg'), instances=[])]

    def located() -> BaseDataset:
        dataset = Located(metainfo=dict(classes=NAMES), data_root='data/', serialize_data=False)
        dataset.ann_file = 'val.json'
        return dataset

    for runner in (make_runner(located()), make_runner(pictures(NAMES), located())):
        with pytest.raises(FileNotFoundError) as error:
            check_datasets(runner)
        for word in ('1.jpg', 'val.json', "data_root='data/'", 'data_prefix'):
            assert word in str(error.value)
    assert 'val_dataloader' in str(error.value)
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images' / '1.jpg').touch()
    check_datasets(make_runner(located()))


def test_a_validation_file_is_checked_before_training(tmp_path: Path) -> None:
    """mmdet numbers labels in the order of the file, whatever the names of the data set say."""
    train = labelled(coco(tmp_path / 'train.json', ONE_EACH))
    files = coco(tmp_path / 'val.json', ONE_EACH)
    check_datasets(make_runner(train, labelled(files, test_mode=True)))
    coco(tmp_path / 'val.json', ONE_EACH, names=NAMES[::-1])
    message = error_of(make_runner(train, labelled(files, test_mode=True)))
    for word in ('val.json', 'order', "'elk'", "'ant'"):
        assert word in message
    # Of a validation set a class without an image or an empty box is no fault.
    some = {name: [BOX, [1.0, 1.0, 0.0, 4.0]] for name in NAMES[:2]}
    files = coco(tmp_path / 'val.json', some)
    check_datasets(make_runner(train, labelled(files, test_mode=True)))


def test_a_metric_that_does_not_fit_is_named_before_training(tmp_path: Path) -> None:
    files = coco(tmp_path / 'val.json', ONE_EACH)
    coco(tmp_path / 'other.json', {name: [BOX] for name in NAMES[:4]}, names=NAMES[:4])

    def error(ann_file: str, labeled: str) -> str:
        metric = LongTailMetric(
            str(tmp_path / ann_file), 'bbox', labeled_ann_file=str(tmp_path / labeled)
        )
        val = labelled(files, test_mode=True)
        runner = make_runner(pictures(NAMES), val)
        runner._val_loop = SimpleNamespace(evaluator=SimpleNamespace(metrics=[metric]))
        return error_of(runner)

    for ann_file, labeled in (('other.json', 'val.json'), ('val.json', 'other.json')):
        message = error(ann_file, labeled)
        assert 'other.json' in message and "'elk'" in message


def test_an_evaluator_of_another_file_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    monkeypatch.setattr(data_checks, 'warn_once', messages.append)
    runner = make_runner(pictures(NAMES), pictures(NAMES, 'val.json'))
    runner.cfg = dict(val_evaluator=dict(ann_file='val.json'))
    check_datasets(runner)
    assert not messages
    runner.cfg = dict(val_evaluator=[dict(ann_file='other.json'), dict(metric='bbox')])
    check_datasets(runner)
    assert len(messages) == 1
    assert 'other.json' in messages[0] and 'val.json' in messages[0]
