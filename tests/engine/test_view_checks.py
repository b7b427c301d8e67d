"""Views of an unlabelled branch that do not say where their pixels come from are refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset, MultiImageMixDataset
from mmdet.datasets.transforms import transforms as host_transforms
from mmdet.registry import MODELS, TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.registry import init_default_scope

from mmdet_softpl.datasets.unlabeled_image_dataset import UnlabeledImageDataset
from mmdet_softpl.engine.data_checks import check_datasets
from mmdet_softpl.engine.training_sets import labelled_files
from mmdet_softpl.engine.view_checks import UNRECORDED
from tests.support.data_sets import (
    NAMES,
    ONE_EACH,
    coco,
    error_of,
    make_runner,
)
from tests.support.tiny import detector_config, semi_config


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
