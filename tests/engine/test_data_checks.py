"""Data sets that do not fit each other or the model are named before training."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset, ConcatDataset, LVISV1Dataset, MultiImageMixDataset
from mmdet.datasets.transforms import transforms as host_transforms
from mmdet.registry import MODELS, TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.dataset import BaseDataset, ClassBalancedDataset, RepeatDataset
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import nn

from mmdet_softpl.datasets.annotation_checks import AnnotationSummary, check_annotations
from mmdet_softpl.datasets.annotation_file import AnnotationError
from mmdet_softpl.datasets.unlabeled_image_dataset import UnlabeledImageDataset
from mmdet_softpl.engine import data_checks
from mmdet_softpl.engine.data_checks import check_datasets
from mmdet_softpl.engine.federated_checks import check_image_ids, warn_of_shared_ids
from mmdet_softpl.engine.trained_instances import check_trained_instances
from mmdet_softpl.engine.training_sets import labelled_files, training_classes
from mmdet_softpl.engine.view_checks import UNRECORDED
from tests.support.tiny import detector_config, semi_config

NAMES = ('ant', 'bee', 'cat', 'dog', 'elk')


class Pictures(BaseDataset):
    """Two images of a class each."""

    def load_data_list(self) -> list[dict]:
        return [dict(instances=[dict(bbox_label=0)]), dict(instances=[dict(bbox_label=1)])]

    def get_cat_ids(self, idx: int) -> list[int]:
        return [instance['bbox_label'] for instance in self.get_data_info(idx)['instances']]


def pictures(classes: tuple[str, ...] | None, name: str = 'train.json') -> BaseDataset:
    dataset = Pictures(metainfo=None if classes is None else dict(classes=classes))
    dataset.ann_file = name
    return dataset


def concat(*datasets: Any) -> Any:
    return ConcatDataset(list(datasets), ignore_keys=['classes'])


def make_runner(train: Any, val: Any = None, model: nn.Module | None = None) -> Any:
    loader = None if val is None else SimpleNamespace(dataset=val)
    return SimpleNamespace(
        train_dataloader=SimpleNamespace(dataset=train),
        val_dataloader=loader,
        _val_dataloader=loader,
        _val_loop=None if val is None else object(),
        model=nn.Identity() if model is None else model,
    )


def error_of(runner: Any) -> str:
    with pytest.raises(ValueError) as error:
        check_datasets(runner)
    return str(error.value)


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


def coco(
    path: Path, boxes: dict[str, list[list[float]]], names: tuple[str, ...] = NAMES
) -> dict[str, Any]:
    """Write a json of one image a box, and say what a data set of it is built with."""
    annotations = [
        dict(category_id=names.index(name) + 1, bbox=box, area=1.0, iscrowd=0)
        for name, own in boxes.items()
        for box in own
    ]
    for i, annotation in enumerate(annotations):
        annotation.update(id=i, image_id=i)
        (path.parent / f'{i}.jpg').touch()
    content = dict(
        images=[
            dict(id=i, file_name=f'{i}.jpg', height=9, width=9)
            for i in range(max(1, len(annotations)))
        ],
        annotations=annotations,
        categories=[dict(id=i + 1, name=name) for i, name in enumerate(names)],
    )
    path.write_text(json.dumps(content))
    return dict(ann_file=path.name, data_root=str(path.parent), data_prefix=dict(img=''))


BOX = [1.0, 1.0, 4.0, 4.0]
ONE_EACH = {name: [BOX] for name in NAMES}


def labelled(files: dict[str, Any], branch: str | None = None, **kwargs: Any) -> CocoDataset:
    pipeline: list[dict] = []
    if branch is not None:
        pipeline.append(dict(type='MultiBranch', branch_field=[branch], **{branch: []}))
    init_default_scope('mmdet')
    return CocoDataset(**files, metainfo=dict(classes=NAMES), pipeline=pipeline, **kwargs)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Warnings of a new run."""
    heard: list[str] = []
    logger = MMLogger.get_instance(f'run {id(heard)}')
    monkeypatch.setattr(logger, 'warning', heard.append)
    return heard


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


@pytest.mark.parametrize('branch', ['unsup_teacher', 'unsup_student'])
def test_a_branch_without_the_homography_is_named_before_training(
    tmp_path: Path, branch: str
) -> None:
    init_default_scope('mmdet')
    files = coco(tmp_path / 'rest.json', ONE_EACH)
    whole = ('img_path', 'img_shape', 'homography_matrix')

    def unlabelled(**keys: tuple[str, ...]) -> UnlabeledImageDataset:
        packed = {name: [dict(type='PackDetInputs', meta_keys=keys[name])] for name in keys}
        branches = dict(type='MultiBranch', branch_field=list(packed), **packed)
        return UnlabeledImageDataset(**files, pipeline=[branches])

    # `sup` needs none.
    keys = dict(sup=('img_path',), unsup_teacher=whole, unsup_student=whole)
    model = MODELS.build(semi_config(detector_config('faster-rcnn', len(NAMES))))
    check_datasets(make_runner(unlabelled(**keys), model=model))
    keys[branch] = whole[:2]
    message = error_of(make_runner(unlabelled(**keys), model=model))
    for word in ('train_dataloader, set 0', f"branch '{branch}'", 'meta_keys of PackDetInputs'):
        assert word in message
    # Another detector may do without.
    check_datasets(make_runner(unlabelled(**keys)))


def test_a_crop_of_the_weak_view_alone_is_refused(tmp_path: Path) -> None:
    init_default_scope('mmdet')
    packed = [dict(type='PackDetInputs', meta_keys=('img_path', 'homography_matrix'))]
    cropped = [dict(type='RandomCrop', crop_size=(8, 8), allow_negative_crop=True), *packed]

    def unlabelled(weak: list, strong: list, *first: dict) -> UnlabeledImageDataset:
        branches = dict(sup=packed, unsup_teacher=weak, unsup_student=strong)
        split = dict(type='MultiBranch', branch_field=list(branches), **branches)
        return UnlabeledImageDataset(
            **coco(tmp_path / 'rest.json', ONE_EACH), pipeline=[*first, split]
        )

    model = MODELS.build(semi_config(detector_config('faster-rcnn', len(NAMES))))
    message = error_of(make_runner(unlabelled(cropped, packed), model=model))
    assert "branch 'unsup_teacher': RandomCrop hides a part" in message
    never = [dict(cropped[0], allow_negative_crop=False), *packed]
    message = error_of(make_runner(unlabelled(packed, never), model=model))
    assert "branch 'unsup_student': RandomCrop keeps no crop without a box" in message
    check_datasets(make_runner(unlabelled(packed, cropped), model=model))
    check_datasets(make_runner(unlabelled(packed, packed, cropped[0]), model=model))


def test_transforms_of_a_mixing_wrapper_count(tmp_path: Path) -> None:
    """Mosaic is configured so: the wrapper goes on where the pipeline of its data set ends."""
    init_default_scope('mmdet')
    packed = [dict(type='PackDetInputs', meta_keys=('img_path', 'homography_matrix'))]
    empty = coco(tmp_path / 'rest.json', ONE_EACH)
    content = json.loads((tmp_path / 'rest.json').read_text())
    (tmp_path / 'rest.json').write_text(json.dumps(dict(content, annotations=[])))

    def unlabelled(*strong: dict) -> MultiImageMixDataset:
        branches = dict(unsup_teacher=packed, unsup_student=[*strong, *packed])
        split = dict(type='MultiBranch', branch_field=['sup', *branches], **branches)
        load = [dict(type='LoadImageFromFile')]
        inner = CocoDataset(**empty, metainfo=dict(classes=NAMES), pipeline=load)
        return MultiImageMixDataset(inner, [split])

    files = coco(tmp_path / 'train.json', ONE_EACH)
    labelled = CocoDataset(**files, metainfo=dict(classes=NAMES), pipeline=[])
    model = MODELS.build(semi_config(detector_config('faster-rcnn', len(NAMES))))
    runner = make_runner(SimpleNamespace(datasets=[labelled, unlabelled()]), model=model)
    # Not a labelled set without annotations.
    check_datasets(runner)
    assert labelled_files(runner) == [labelled.ann_file]
    moved = unlabelled(dict(type='RandomShift', prob=1.0))
    both = SimpleNamespace(datasets=[labelled, moved])
    message = error_of(make_runner(both, model=model))
    assert 'RandomShift moves pixels without a record' in message
    assert len(moved.dataset.pipeline.transforms) == 1, 'the data set itself is as it was'


@pytest.mark.parametrize('wrapper', [None, 'RandomApply', 'RandomOrder', 'RandomChoice'])
def test_a_view_that_moves_in_silence_is_named(tmp_path: Path, wrapper: str | None) -> None:
    init_default_scope('mmdet')
    files = coco(tmp_path / 'rest.json', ONE_EACH)
    steps = [dict(type='Resize', scale=(64, 64)), dict(type='Expand')]
    if wrapper is not None:
        nested = [steps] if wrapper == 'RandomChoice' else steps
        steps = [dict(type=wrapper, transforms=nested)]
    packed = [dict(type='PackDetInputs', meta_keys=('img_path', 'homography_matrix'))]
    branches = dict(sup=packed, unsup_teacher=packed, unsup_student=[*steps, *packed])
    dataset = UnlabeledImageDataset(
        **files, pipeline=[dict(type='MultiBranch', branch_field=list(branches), **branches)]
    )
    model = MODELS.build(semi_config(detector_config('faster-rcnn', len(NAMES))))
    message = error_of(make_runner(dataset, model=model))
    assert "branch 'unsup_student': Expand moves pixels without a record" in message
    check_datasets(make_runner(dataset))


class DualTransform: ...


class Compose:
    def __init__(self, transforms: list, **_: object) -> None:
        self.transforms = transforms


ALBUMENTATIONS = SimpleNamespace(
    HorizontalFlip=type('HorizontalFlip', (DualTransform,), {}),
    CoarseDropout=type('CoarseDropout', (type('BaseDropout', (DualTransform,), {}),), {}),
    Blur=type('Blur', (), {}),
    OneOf=type('OneOf', (Compose,), {}),
)


@pytest.mark.parametrize(
    'steps, moving',
    [
        ([dict(type='Blur'), dict(type='CoarseDropout')], None),
        ([dict(type='Blur'), dict(type='HorizontalFlip')], 'HorizontalFlip'),
        ([dict(type='OneOf', transforms=[dict(type='HorizontalFlip')])], 'HorizontalFlip'),
    ],
)
def test_what_albumentations_move_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list, moving: str | None
) -> None:
    init_default_scope('mmdet')
    # The host's `Albu`, with classes named as in albumentations, which is not installed here.
    monkeypatch.setattr(host_transforms, 'albumentations', ALBUMENTATIONS)
    monkeypatch.setattr(host_transforms, 'Compose', Compose)
    packed = [dict(type='PackDetInputs', meta_keys=('img_path', 'homography_matrix'))]
    strong = [dict(type='Albu', transforms=steps), *packed]
    branches = dict(sup=packed, unsup_teacher=packed, unsup_student=strong)
    dataset = UnlabeledImageDataset(
        **coco(tmp_path / 'rest.json', ONE_EACH),
        pipeline=[dict(type='MultiBranch', branch_field=list(branches), **branches)],
    )
    model = MODELS.build(semi_config(detector_config('faster-rcnn', len(NAMES))))
    if moving is None:
        check_datasets(make_runner(dataset, model=model))
    else:
        message = error_of(make_runner(dataset, model=model))
        assert f"'unsup_student': {moving} moves pixels without a record" in message


@pytest.mark.parametrize(
    'step',
    [
        dict(type='Expand', prob=1.0, ratio_range=(2, 2)),
        dict(type='RandomShift', prob=1.0, max_shift_px=20),
        dict(type='RandomAffine', max_translate_ratio=0.3),
        dict(type='RandomCrop', crop_size=(40, 40)),
    ],
)
def test_what_moves_in_silence(step: dict) -> None:
    """The list, against the transforms themselves."""
    init_default_scope('mmdet')
    boxes = HorizontalBoxes(torch.tensor([[30.0, 30, 50, 50]]))
    sample = dict(img=np.zeros((80, 80, 3), np.uint8), img_shape=(80, 80))
    sample.update(gt_bboxes=boxes, gt_bboxes_labels=np.zeros(1, np.int64))
    sample['gt_ignore_flags'] = np.zeros(1, bool)
    np.random.seed(1)
    random.seed(1)
    sample = TRANSFORMS.build(dict(type='Resize', scale=(80, 80)))(sample)
    before, boxes = sample['homography_matrix'].copy(), sample['gt_bboxes'].tensor.clone()
    after = TRANSFORMS.build(step)(sample)
    assert not torch.equal(after['gt_bboxes'].tensor, boxes)
    silent = np.array_equal(after['homography_matrix'], before)
    assert silent == (step['type'] in UNRECORDED)


def test_a_crop_of_mmcv_moves_in_silence() -> None:
    """As above; with the boxes of mmdet it would end in an error of numpy's."""
    init_default_scope('mmdet')
    sample = dict(img=np.arange(6400.0).reshape(80, 80, 1), homography_matrix=np.eye(3))
    after = TRANSFORMS.build(dict(type='CenterCrop', crop_size=(40, 40)))(sample)
    assert after['img'][0, 0, 0] == 20 * 80 + 20
    assert np.array_equal(after['homography_matrix'], np.eye(3)) and 'CenterCrop' in UNRECORDED


def test_a_labelled_branch_that_names_no_image_is_refused_for_lvis(tmp_path: Path) -> None:
    init_default_scope('mmdet')
    files = coco(tmp_path / 'train.json', ONE_EACH)

    def branch(keys: tuple[str, ...]) -> CocoDataset:
        packed = [dict(type='PackDetInputs', meta_keys=keys)]
        branches = dict(type='MultiBranch', branch_field=['sup'], sup=packed)
        return CocoDataset(**files, pipeline=[branches])

    check_image_ids(make_runner(branch(('img_id', 'img_shape'))))
    with pytest.raises(ValueError, match=r"train\.json.*branch 'sup' has no 'img_id'"):
        check_image_ids(make_runner(branch(('img_shape',))))


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
        assert '4 of the 5 categories, but the host numbers all of them' in error_of(runner)


def summary_of(dataset: CocoDataset) -> AnnotationSummary:
    return check_annotations(dataset.ann_file, classes=NAMES)


@pytest.mark.parametrize(
    'change',
    [dict(area=0), dict(bbox=[0.1, 0.1, 0.5, 0.5]), dict(bbox=[20, 20, 4, 4]), dict(ignore=1)],
    ids=['area', 'shares', 'outside', 'ignore'],
)
@pytest.mark.parametrize('share', ['none', 'one', 'all'])
def test_objects_that_the_host_leaves_out(
    tmp_path: Path, log: list[str], change: dict, share: str
) -> None:
    files = coco(tmp_path / 'train.json', ONE_EACH)
    content = json.loads((tmp_path / 'train.json').read_text())
    for annotation in content['annotations'][: dict(none=0, one=1, all=5)[share]]:
        annotation.update(change)
    (tmp_path / 'train.json').write_text(json.dumps(content))
    dataset = labelled(files)
    # What is said is what the host does.
    given = sum(len(dataset.get_data_info(i)['instances']) for i in range(len(dataset)))
    assert given == dict(none=5, one=4, all=0)[share]
    summary = summary_of(dataset)
    runner = make_runner(concat(dataset, labelled(coco(tmp_path / 'other.json', ONE_EACH))))
    if share == 'all':
        with pytest.raises(AnnotationError, match=r'train\.json: the host gives 0 of 5 objects'):
            check_trained_instances(runner, summary)
    else:
        check_trained_instances(runner, summary)
        assert len(log) == (share == 'one')
    if share == 'one':
        assert 'train.json: the host gives 4 of 5 objects' in log[0]


def test_of_a_part_of_the_images_no_number_is_expected(tmp_path: Path, log: list[str]) -> None:
    dataset = labelled(coco(tmp_path / 'train.json', ONE_EACH), indices=2)
    check_trained_instances(make_runner(dataset), summary_of(dataset))
    assert not log


def test_ids_of_a_federated_file_that_another_has_are_said(tmp_path: Path, log: list[str]) -> None:
    one, other = (tmp_path / name for name in ('one', 'other'))
    for folder in (one, other):
        folder.mkdir()
    first = labelled(coco(one / 'lvis.json', ONE_EACH))
    second = labelled(coco(other / 'own.json', ONE_EACH))
    warn_of_shared_ids(make_runner(first), first.ann_file)
    assert not log
    warn_of_shared_ids(make_runner(concat(first, second)), first.ann_file)
    assert len(log) == 1 and 'lvis.json: 5 image ids, such as 0' in log[0]


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
