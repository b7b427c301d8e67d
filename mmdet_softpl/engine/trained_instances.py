"""The objects that a training is given, against those of its json.

Shape legend: C foreground classes.
"""

from __future__ import annotations

import torch
from mmengine.dataset import BaseDataset
from mmengine.runner import Runner
from torch import Tensor

from mmdet_softpl.datasets.annotation_checks import AnnotationSummary
from mmdet_softpl.datasets.annotation_file import AnnotationError
from mmdet_softpl.engine.run_warnings import warn_once
from mmdet_softpl.engine.training_sets import is_labelled, leaves
from mmdet_softpl.same_path import same_path

# COCO and LVIS have a handful of boxes that are too thin for the host.
_UNTOLD_LOSS = 0.001


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
        if not (is_labelled(dataset) and same_path(dataset.ann_file, summary.ann_file)):
            continue
        given = int(instance_counts(dataset, len(summary.classes)).sum())
        expected = sum(summary.instance_counts)
        # Of a part of the set nobody knows how many there should be.
        if given and (expected - given <= _UNTOLD_LOSS * expected or dataset._indices is not None):
            continue
        sentence = (
            f'{summary.ann_file}: mmdet gives {given} of {expected} objects to the training. It '
            'leaves out those with `area` <= 0, a side below 1 pixel (boxes as shares of the '
            'image?), outside their image or with `ignore`, and images below filter_cfg.min_size'
        )
        if not given:
            raise AnnotationError(f'{sentence}. Correct the file; `softpl inspect` names them.')
        warn_once(f'{sentence}; frequencies count them. `softpl inspect` names them.')
