"""Checks that need the runner: data sets among each other, and against the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mmengine.dataset import BaseDataset
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn


def _leaves(dataset: object) -> Iterator[BaseDataset]:
    """The data sets inside ConcatDataset, RepeatDataset, ClassBalancedDataset and the like."""
    children = getattr(dataset, 'datasets', None)
    if children is None and hasattr(dataset, 'dataset'):
        children = [dataset.dataset]
    if children is None:
        yield dataset  # type: ignore[misc]
        return
    for child in children:
        yield from _leaves(child)


def _classes(dataset: object) -> tuple[str, ...] | None:
    classes = getattr(dataset, 'metainfo', {}).get('classes')
    return tuple(classes) if classes else None


def training_classes(runner: Runner) -> tuple[str, ...] | None:
    """Class names of the first training set that has any."""
    for dataset in _leaves(runner.train_dataloader.dataset):
        classes = _classes(dataset)
        if classes:
            return classes
    return None


def check_datasets(runner: Runner) -> None:
    """Raise ValueError where labelled, unlabelled or validation classes or the model differ.

    Names the data set, the first class that differs, and what to do. Data sets without classes
    (a plain folder) fit everything.
    """
    reference: tuple[str, tuple[str, ...]] | None = None
    named = [
        (f'train_dataloader, set {i}', d)
        for i, d in enumerate(_leaves(runner.train_dataloader.dataset))
    ]
    if runner._val_loop is not None and runner._val_dataloader is not None:
        named += [('val_dataloader', d) for d in _leaves(runner.val_dataloader.dataset)]
    for name, dataset in named:
        label = f'{name} ({type(dataset).__name__}, ann_file={getattr(dataset, "ann_file", "")!r})'
        classes = _classes(dataset)
        if classes is None:
            continue
        if reference is None:
            reference = (label, classes)
        elif classes != reference[1]:
            raise ValueError(
                f'{label} has other classes than {reference[0]}: '
                f'{_difference(classes, reference[1])}. '
                'Give both the same metainfo=dict(classes=...), in the order of the labelled json.'
            )
    if reference is not None:
        _check_num_classes(runner, *reference)


def _difference(a: Sequence[str], b: Sequence[str]) -> str:
    if len(a) != len(b):
        only_a, only_b = sorted(set(a) - set(b))[:5], sorted(set(b) - set(a))[:5]
        return f'{len(a)} against {len(b)} classes, only here {only_a}, only there {only_b}'
    index = next(i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
    return f'class {index} is {a[index]!r} here and {b[index]!r} there'


def _check_num_classes(runner: Runner, name: str, classes: tuple[str, ...]) -> None:
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    for path, module in model.named_modules():
        if _is_class_head(module) and module.num_classes != len(classes):
            raise ValueError(
                f'{name} has {len(classes)} classes, but {path} of the model has num_classes='
                f'{module.num_classes}; set it to {len(classes)}.'
            )


def _is_class_head(module: nn.Module) -> bool:
    """Box and mask heads of the second stage: an RPN has one class by design."""
    from mmdet.models.roi_heads.bbox_heads import BBoxHead
    from mmdet.models.roi_heads.mask_heads import FCNMaskHead

    if isinstance(module, FCNMaskHead):
        return not module.class_agnostic
    return isinstance(module, BBoxHead)
