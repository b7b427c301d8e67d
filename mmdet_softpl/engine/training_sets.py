"""The data sets of a training: those inside wrappers, which are labelled, and their classes."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

from mmengine.dataset import BaseDataset
from mmengine.runner import Runner

from mmdet_softpl.datasets.pasting_steps import is_unlabeled
from mmdet_softpl.same_path import same_path


def leaves(dataset: object) -> Iterator[BaseDataset]:
    """The data sets inside ConcatDataset, RepeatDataset, ClassBalancedDataset and the like.

    Of one inside ``MultiImageMixDataset``, which goes on with transforms of its own, a copy with
    both pipelines, to be looked at only.
    """
    children = getattr(dataset, 'datasets', None)
    if children is None and hasattr(dataset, 'dataset'):
        children = [dataset.dataset]
    if children is None:
        yield dataset  # type: ignore[misc]
        return
    steps = getattr(dataset, 'pipeline', None)
    for child in children:
        for leaf in leaves(child):
            yield leaf if steps is None else _followed_by(leaf, steps)


def _followed_by(dataset: BaseDataset, steps: Sequence[object]) -> BaseDataset:
    seen = copy.copy(dataset)
    own = getattr(getattr(dataset, 'pipeline', None), 'transforms', ())
    seen.pipeline = SimpleNamespace(transforms=[*own, *steps])  # type: ignore[assignment]
    return seen


def classes_of(dataset: object) -> tuple[str, ...] | None:
    """Names of a data set's classes; None where it defines none."""
    classes = getattr(dataset, 'metainfo', {}).get('classes')
    return tuple(classes) if classes else None


def training_classes(runner: Runner) -> tuple[str, ...] | None:
    """Class names of the first training set that has any."""
    for dataset in leaves(runner.train_dataloader.dataset):
        classes = classes_of(dataset)
        if classes:
            return classes
    return None


def labelled_files(runner: Runner) -> list[str]:
    """Annotation files of the labelled training sets, COCO-like ones."""
    datasets = leaves(runner.train_dataloader.dataset)
    return [dataset.ann_file for dataset in datasets if is_labelled(dataset)]


def keeps_empty_images(runner: Runner, ann_file: str) -> bool:
    """Whether the student also trains on the images of a labelled file that hold nothing."""
    return any(
        not (dataset.filter_cfg or {}).get('filter_empty_gt', False)
        for dataset in leaves(runner.train_dataloader.dataset)
        if is_labelled(dataset) and same_path(dataset.ann_file, ann_file)
    )


def is_labelled(dataset: BaseDataset) -> bool:
    """A COCO-like set whose images go to the supervised branch.

    Other data sets read other formats. The host's own semi-supervised configs also read the
    unlabelled images as CocoDataset, from a json that may be without annotations.
    """
    from mmdet.datasets import CocoDataset, CocoPanopticDataset

    if not isinstance(dataset, CocoDataset) or isinstance(dataset, CocoPanopticDataset):
        return False
    return not is_unlabeled(dataset)
