"""Checks that need the runner: data sets among each other, and against the model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.runner import Runner
from torch import nn

from mmdet_softpl.datasets.annotation_cache import cached_categories
from mmdet_softpl.datasets.annotation_checks import (
    AnnotationSummary,
    check_annotations,
    check_same_categories,
)
from mmdet_softpl.datasets.annotation_file import AnnotationError, load_annotation_file
from mmdet_softpl.datasets.pasting_steps import is_unlabeled
from mmdet_softpl.datasets.rare_copy_paste_dataset import RareCopyPasteDataset
from mmdet_softpl.datasets.unlabeled_image_dataset import UnlabeledImageDataset
from mmdet_softpl.engine.reported_annotations import reported_annotations
from mmdet_softpl.engine.run_warnings import warn_once
from mmdet_softpl.engine.runner_model import model_of
from mmdet_softpl.engine.training_sets import classes_of, is_labelled, leaves
from mmdet_softpl.engine.view_checks import check_views
from mmdet_softpl.same_path import same_path


def check_datasets(runner: Runner) -> None:
    """Check the data sets of a training among each other, against the model and their files.

    Data sets without classes (a plain folder) fit everything. The json of every labelled
    ``CocoDataset`` (and ``LVISV1Dataset`` ...) is checked, warnings about it are logged; likewise
    when categories of an ``UnlabeledImageDataset``'s json are not the labelled ones, and when
    objects are pasted into unlabelled images of another detector than ``CalibratedSoftTeacher``.

    Raises:
        ValueError: labelled, unlabelled or validation classes or the model differ. Names the data
            set, the first class that differs, and what to do. Or an unlabelled branch does not
            tell a ``CalibratedSoftTeacher`` where its pixels come from (``check_views``).
        AnnotationError: a labelled json cannot be used, or a validation json has its classes in
            another order, or does not fit a ``LongTailMetric``.
        FileNotFoundError: the first image of a set is not where its config says.
    """
    from mmdet_softpl.models import CalibratedSoftTeacher

    reference: tuple[str, tuple[str, ...]] | None = None
    named = [
        (f'train_dataloader, set {i}', d)
        for i, d in enumerate(leaves(runner.train_dataloader.dataset))
    ]
    if runner._val_loop is not None and runner._val_dataloader is not None:
        named += [('val_dataloader', d) for d in leaves(runner.val_dataloader.dataset)]
    for name, dataset in named:
        label = f'{name} ({type(dataset).__name__}, ann_file={getattr(dataset, "ann_file", "")!r})'
        classes = classes_of(dataset)
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
    ours = isinstance(model_of(runner), CalibratedSoftTeacher)
    for name, dataset in named:
        _check_first_image(name, dataset)
        if ours:
            check_views(name, dataset)
    _check_files(list(leaves(runner.train_dataloader.dataset)))
    if not ours:
        _check_pasting(runner)
    if runner._val_loop is not None and runner._val_dataloader is not None:
        _check_validation(runner)


def _check_pasting(runner: Runner) -> None:
    """Only ``CalibratedSoftTeacher`` knows what was pasted into unlabelled images."""
    dataset = runner.train_dataloader.dataset
    if not isinstance(dataset, RareCopyPasteDataset):
        return
    if dataset.unlabeled and dataset.max_num_pasted and any(map(is_unlabeled, leaves(dataset))):
        warn_once(
            'RareCopyPasteDataset pastes objects into unlabelled images, but '
            f'{type(model_of(runner)).__name__} does not know their labels: its teacher labels and '
            'counts them like what is in the images. Set unlabeled=False in '
            'train_dataloader.dataset.'
        )


def _check_first_image(name: str, dataset: BaseDataset) -> None:
    """A wrong image folder would stop training at the first batch or the first validation."""
    if not isinstance(dataset, BaseDataset) or not len(dataset) or not _is_local(dataset):
        return
    path = dataset.get_data_info(0).get('img_path')
    if path and '://' not in path and not os.path.isfile(path):
        raise FileNotFoundError(
            f'{name} ({type(dataset).__name__}): the first image of ann_file='
            f'{dataset.ann_file!r} is not at {path!r}; correct data_root='
            f'{dataset.data_root!r} or data_prefix (the two and file_name are joined).'
        )


def _check_validation(runner: Runner) -> None:
    """Check what is validated on and by: faults would else end the first validation."""
    from mmdet_softpl.evaluation.ground_truth import category_ids
    from mmdet_softpl.evaluation.longtail_metric import LongTailMetric

    datasets = list(leaves(runner.val_dataloader.dataset))
    for dataset in datasets:
        classes = classes_of(dataset)
        if classes is not None and is_labelled(dataset) and _has_local_json(dataset):
            # The host numbers labels by the file and says nothing where that differs. What is
            # wrong with single objects is the evaluator's to judge.
            category_ids(cached_categories(dataset.ann_file), classes, dataset.ann_file)
    evaluator = getattr(runner._val_loop, 'evaluator', None)
    classes = next(filter(None, map(classes_of, datasets)), None)
    for metric in getattr(evaluator, 'metrics', ()):
        if isinstance(metric, LongTailMetric) and classes is not None:
            metric.check_classes(classes)
    cfg = getattr(runner, 'cfg', {}).get('val_evaluator')
    if cfg is not None:
        _compare_evaluated(cfg, {d.ann_file for d in datasets if getattr(d, 'ann_file', '')})


def _compare_evaluated(cfg: Any, read: set[str]) -> None:
    """Warn where the validation is evaluated against another file than it is read from."""
    for metric in cfg if isinstance(cfg, (list, tuple)) else [cfg]:
        path = metric.get('ann_file')
        if path and read and '://' not in path and not any(same_path(path, r) for r in read):
            warn_once(
                f'val_evaluator.ann_file={path!r} is not the annotation file of val_dataloader '
                f'({", ".join(sorted(read))}); give both the same.'
            )


def _check_files(datasets: Sequence[BaseDataset]) -> None:
    """Check the labelled json files, then the unlabelled ones against the first of them."""
    labelled = []
    for dataset in datasets:
        if is_labelled(dataset) and _has_local_json(dataset):
            _check_whole_lvis(dataset)
            labelled.append(reported_annotations(dataset.ann_file, classes_of(dataset)))
    for dataset in datasets if labelled else ():
        if isinstance(dataset, UnlabeledImageDataset) and _has_local_json(dataset):
            _compare_unlabelled(dataset.ann_file, labelled[0])


def _check_whole_lvis(dataset: BaseDataset) -> None:
    """The host's LVIS sets number all categories of a file, whatever ``metainfo.classes`` says."""
    from mmdet.datasets import LVISV05Dataset

    classes = classes_of(dataset)
    if not isinstance(dataset, LVISV05Dataset) or classes is None:
        return
    # What it numbers; a name that the file does not have is found by the other checks.
    numbered = len(dataset.cat_ids)
    if numbered > len(classes):
        raise ValueError(
            f'{type(dataset).__name__}, ann_file={dataset.ann_file!r}: metainfo.classes names '
            f'{len(classes)} of the {numbered} categories, but mmdet numbers all of them, so '
            'objects would get the labels of other classes. Take the other categories out of the '
            'json, or read it as a CocoDataset.'
        )


def _is_local(dataset: BaseDataset) -> bool:
    return (getattr(dataset, 'backend_args', None) or {}).get('backend', 'local') == 'local'


def _has_local_json(dataset: BaseDataset) -> bool:
    path = dataset.ann_file
    return _is_local(dataset) and '://' not in path and path.endswith('.json')


def _compare_unlabelled(ann_file: str, labelled: AnnotationSummary) -> None:
    """Warn of other categories. Nothing reads them, but the wrong file may have been given."""
    data = load_annotation_file(ann_file)
    categories = data['categories']
    if not categories:
        return
    if {c.get('name') for c in categories} >= set(labelled.classes):
        # The labelled set may be of some classes of its file only.
        categories = [c for c in categories if c.get('name') in set(labelled.classes)]
    data = {**data, 'categories': categories, 'annotations': []}
    try:
        unlabelled = check_annotations(ann_file, require_annotations=False, data=data)
        check_same_categories(labelled, unlabelled)
    except AnnotationError as error:
        warn_once(f'{error} Training goes on: no category of unlabelled images is read.')


def _difference(a: Sequence[str], b: Sequence[str]) -> str:
    if len(a) != len(b):
        only_a, only_b = sorted(set(a) - set(b))[:5], sorted(set(b) - set(a))[:5]
        return f'{len(a)} against {len(b)} classes, only here {only_a}, only there {only_b}'
    index = next(i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
    return f'class {index} is {a[index]!r} here and {b[index]!r} there'


def _check_num_classes(runner: Runner, name: str, classes: tuple[str, ...]) -> None:
    model = model_of(runner)
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
