"""Data sets that do not fit each other or the model are named before training."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from mmdet.datasets import ConcatDataset
from mmdet.registry import MODELS
from mmengine.dataset import BaseDataset, ClassBalancedDataset, RepeatDataset
from mmengine.registry import init_default_scope
from torch import nn

from mmdet_softpl.engine.data_checks import check_datasets, training_classes
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
