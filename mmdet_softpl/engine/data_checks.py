"""Checks that need the runner: data sets among each other, and against the model."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from torch import Tensor, nn

from mmdet_softpl.datasets.annotation_checks import (
    AnnotationSummary,
    check_annotations,
    check_same_categories,
)
from mmdet_softpl.datasets.annotation_file import AnnotationError, load_annotation_file
from mmdet_softpl.datasets.unlabeled_image_dataset import UnlabeledImageDataset
from mmdet_softpl.engine.runner_model import model_of
from mmdet_softpl.engine.training_sets import classes_of, is_labelled, leaves
from mmdet_softpl.engine.view_checks import check_views, packs_without

# Of each file its time of change and size, and its summaries by the classes that were asked for
# (None: all). LVIS train takes 10 s to check, and more than one hook of a run asks for it.
_Summaries = dict[tuple[str, ...] | None, AnnotationSummary]
_checked: dict[str, tuple[tuple[int, int], _Summaries]] = {}
# (name of the logger, warning): a run hears each warning once.
_reported: set[tuple[str, str]] = set()
# COCO and LVIS have a handful of boxes that are too thin for the host.
_UNTOLD_LOSS = 0.001


def checked_annotations(ann_file: str, classes: Sequence[str] | None = None) -> AnnotationSummary:
    """:func:`.check_annotations` of a labelled file, which is read again only when it changes.

    The warnings go to the current logger, each once a run.

    Args:
        ann_file: COCO or LVIS json.
        classes: ``metainfo['classes']`` of the data set; None: all of the file.

    Returns:
        The summary. All callers share it: do not change it.

    Raises:
        AnnotationError: as :func:`.check_annotations`.
    """
    wanted = None if classes is None else tuple(classes)
    known = _known_summaries(ann_file)
    summary = known.get(wanted)
    if summary is None and None in known and known[None].classes == wanted:
        summary = known[None]
    if summary is None:
        summary = known[wanted] = check_annotations(ann_file, classes=wanted)
    for warning in summary.warnings:
        _report(f'{ann_file}: {warning}')
    return summary


def _known_summaries(ann_file: str) -> _Summaries:
    """Summaries of the file as it is now; one that does not exist has none."""
    path = os.path.abspath(ann_file)
    if not os.path.isfile(path):
        return {}
    status = os.stat(path)
    state = (status.st_mtime_ns, status.st_size)
    if path not in _checked or _checked[path][0] != state:
        _checked[path] = (state, {})
    return _checked[path][1]


def _report(warning: str) -> None:
    logger = MMLogger.get_current_instance()
    if (logger.instance_name, warning) not in _reported:
        _reported.add((logger.instance_name, warning))
        logger.warning(warning)


def instance_counts(dataset: BaseDataset, num_classes: int) -> Tensor:
    """(C,) instances that a data set gives, crowds left out."""
    labels = [
        instance['bbox_label']
        for i in range(len(dataset))
        for instance in dataset.get_data_info(i)['instances']
        if not instance['ignore_flag']
    ]
    return torch.bincount(torch.tensor(labels, dtype=torch.long), minlength=num_classes)


def check_trained_instances(runner: Runner, summary: AnnotationSummary) -> None:
    """Whether the student gets the objects of the labelled json, which frequencies are counted in.

    The host leaves out what it cannot use without a word. Fewer objects are a warning.

    Args:
        runner: Of the training.
        summary: Of the json; nothing is checked where no training set reads it.

    Raises:
        AnnotationError: There is none left.
    """
    for dataset in leaves(runner.train_dataloader.dataset):
        own = is_labelled(dataset) and os.path.abspath(dataset.ann_file)
        if own != os.path.abspath(summary.ann_file):
            continue
        given = int(instance_counts(dataset, len(summary.classes)).sum())
        expected = sum(summary.instance_counts)
        # Of a part of the set nobody knows how many there should be.
        if given and (expected - given <= _UNTOLD_LOSS * expected or dataset._indices is not None):
            continue
        sentence = (
            f'{summary.ann_file}: the host gives {given} of {expected} objects to the training. It '
            'leaves out those with `area` <= 0, a side below 1 pixel (boxes as shares of the '
            'image?), outside their image or with `ignore`, and images below filter_cfg.min_size'
        )
        if not given:
            raise AnnotationError(f'{sentence}. Correct the file; `softpl inspect` names them.')
        _report(f'{sentence}; frequencies count them. `softpl inspect` names them.')


def federated_images(
    summary: AnnotationSummary,
) -> dict[int | None, tuple[np.ndarray, np.ndarray | None]]:
    """What ``CalibratedSoftTeacher.federated`` wants of a federated (LVIS) file; else empty."""
    known, loose = summary.known_classes, summary.not_exhaustive_classes or {}
    return {
        img_id: (
            np.array(sorted(classes), dtype=np.int64),
            np.array(sorted(loose[img_id]), dtype=np.int64) if img_id in loose else None,
        )
        for img_id, classes in (known or {}).items()
    }


def check_datasets(runner: Runner) -> None:
    """Check the data sets of a training among each other, against the model and their files.

    Data sets without classes (a plain folder) fit everything. The json of every labelled
    ``CocoDataset`` (and ``LVISV1Dataset`` ...) is checked, warnings about it are logged; likewise
    when categories of an ``UnlabeledImageDataset``'s json are not the labelled ones.

    Raises:
        ValueError: labelled, unlabelled or validation classes or the model differ. Names the data
            set, the first class that differs, and what to do. Or an unlabelled branch does not
            tell a ``CalibratedSoftTeacher`` where its pixels come from (``check_views``).
        AnnotationError: a labelled json cannot be used.
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
    _check_evaluator(runner)
    _check_files(list(leaves(runner.train_dataloader.dataset)))


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


def warn_of_shared_ids(runner: Runner, ann_file: str) -> None:
    """Warn where ids of a federated (LVIS) file are those of other labelled images too.

    What an LVIS image speaks of is looked up by its id alone.
    """
    sets = [d for d in leaves(runner.train_dataloader.dataset) if is_labelled(d)]
    ids: dict[bool, set] = {True: set(), False: set()}
    for dataset in sets if len({d.ann_file for d in sets}) > 1 else ():
        own = os.path.abspath(dataset.ann_file) == os.path.abspath(ann_file)
        ids[own].update(dataset.get_data_info(i)['img_id'] for i in range(len(dataset)))
    shared = ids[True] & ids[False]
    if shared:
        _report(
            f'{ann_file}: {len(shared)} image ids, such as {min(shared, key=str)!r}, are also '
            'those of images in another labelled file, which will be judged by what the LVIS file '
            'says of its own; number the images of one of the two anew.'
        )


def check_image_ids(runner: Runner) -> None:
    """Whether the labelled branch of a federated (LVIS) training names its images.

    Raises:
        ValueError: ``img_id`` is not packed, so the rules of the file would be left out.
    """
    for dataset in leaves(runner.train_dataloader.dataset):
        transform = packs_without(dataset, 'sup', 'img_id')
        if transform is not None:
            raise ValueError(
                f'train_dataloader, {type(dataset).__name__}, ann_file={dataset.ann_file!r}: '
                f"meta_keys of {type(transform).__name__} in the branch 'sup' has no 'img_id'; "
                'add it, since an LVIS image speaks of some classes only, and they are looked up '
                'by it.'
            )


def _check_evaluator(runner: Runner) -> None:
    """Warn where the validation is evaluated against another file than it is read from."""
    cfg = getattr(runner, 'cfg', {}).get('val_evaluator')
    if runner._val_loop is None or runner._val_dataloader is None or cfg is None:
        return
    read = {
        os.path.abspath(dataset.ann_file)
        for dataset in leaves(runner.val_dataloader.dataset)
        if getattr(dataset, 'ann_file', '')
    }
    for metric in cfg if isinstance(cfg, (list, tuple)) else [cfg]:
        path = metric.get('ann_file')
        if path and read and '://' not in path and os.path.abspath(path) not in read:
            _report(
                f'val_evaluator.ann_file={path!r} is not the annotation file of val_dataloader '
                f'({", ".join(sorted(read))}); give both the same.'
            )


def _check_files(datasets: Sequence[BaseDataset]) -> None:
    """Check the labelled json files, then the unlabelled ones against the first of them."""
    labelled = []
    for dataset in datasets:
        if is_labelled(dataset) and _has_local_json(dataset):
            _check_whole_lvis(dataset)
            labelled.append(checked_annotations(dataset.ann_file, classes_of(dataset)))
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
            f'{len(classes)} of the {numbered} categories, but the host numbers all of them, so '
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
        _report(f'{error} Training goes on: no category of unlabelled images is read.')


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
