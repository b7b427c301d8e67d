"""What the images of a federated (LVIS) file speak of, and whether a training can look it up."""

from __future__ import annotations

import os

import numpy as np
from mmengine.runner import Runner

from mmdet_softpl.datasets.annotation_checks import AnnotationSummary
from mmdet_softpl.engine.reported_annotations import reported_annotations
from mmdet_softpl.engine.run_warnings import warn_once
from mmdet_softpl.engine.runner_model import model_of
from mmdet_softpl.engine.training_sets import (
    is_labelled,
    labelled_files,
    leaves,
    training_classes,
)
from mmdet_softpl.engine.view_checks import packs_without
from mmdet_softpl.same_path import same_path


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


def learn_federated_images(runner: Runner, own: AnnotationSummary) -> None:
    """Tell the model what the images of all labelled files of a training speak of, and check them.

    Args:
        runner: Its model is a ``CalibratedSoftTeacher``.
        own: Of the file that frequencies come from, which counts where ids are shared.

    Raises:
        ValueError: See :func:`check_image_ids`.
        AnnotationError: A labelled file cannot be used.
    """
    classes = training_classes(runner)
    # As everywhere: what lies elsewhere than on this machine is not looked into.
    local = filter(os.path.isfile, dict.fromkeys(labelled_files(runner)))
    others = [file for file in local if not same_path(file, own.ann_file)]
    summaries = [*(reported_annotations(file, classes) for file in others), own]
    for summary in summaries:
        model_of(runner).federated.update(federated_images(summary))
        if summary.federated:
            warn_of_shared_ids(runner, summary.ann_file)
    if any(summary.federated for summary in summaries):
        check_image_ids(runner)


def warn_of_shared_ids(runner: Runner, ann_file: str) -> None:
    """Warn where ids of a federated (LVIS) file are those of other labelled images too.

    What an LVIS image speaks of is looked up by its id alone.
    """
    sets = [d for d in leaves(runner.train_dataloader.dataset) if is_labelled(d)]
    ids: dict[bool, set] = {True: set(), False: set()}
    for dataset in sets if len({d.ann_file for d in sets}) > 1 else ():
        own = same_path(dataset.ann_file, ann_file)
        ids[own].update(dataset.get_data_info(i)['img_id'] for i in range(len(dataset)))
    shared = ids[True] & ids[False]
    if shared:
        warn_once(
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
