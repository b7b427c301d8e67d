"""Pipelines of data sets whose images get pasted objects."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmcv.transforms import Compose
from mmdet.datasets.transforms import LoadAnnotations, LoadEmptyAnnotations, MultiBranch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.dataset import BaseDataset

from mmdet_softpl.branches import STUDENT_BRANCH

from .unlabeled_image_dataset import UnlabeledImageDataset

# In the metainfo of unlabelled images: what instances they have were pasted in. Set here alone, so
# that annotations which a data set happens to load never become labels.
PASTED_KEY = 'holds_pasted_objects'


def is_unlabeled(dataset: BaseDataset) -> bool:
    """Whether a data set's images are for the unlabelled branches.

    Then its pipeline forgets what annotations there are, or has branches and none of them is
    ``sup``: the host's semi-supervised configs read a labelled json for both.
    """
    steps = dataset.pipeline.transforms
    if isinstance(dataset, UnlabeledImageDataset) or steps_until(LoadEmptyAnnotations, steps):
        return True
    return has_unlabeled_branches(steps)


def has_unlabeled_branches(steps: Sequence[Any]) -> bool:
    """Whether a pipeline's steps have branches, and none of them is ``sup``."""
    branches = [step for step in steps if isinstance(step, MultiBranch)]
    return bool(branches) and all('sup' not in step.branch_pipelines for step in branches)


def steps_until(kind: type, steps: Sequence[Any]) -> int | None:
    """How many steps of a pipeline there are up to the first of a kind, that included."""
    found = (i for i, step in enumerate(steps, 1) if isinstance(step, kind))
    return next(found, None)


def annotated_after(dataset: BaseDataset, owner: str) -> int:
    """How many steps of a pipeline there are until the annotations are loaded, or forgotten.

    Raises:
        ValueError: They are neither.
    """
    steps = dataset.pipeline.transforms
    loaded = steps_until(LoadEmptyAnnotations, steps) or steps_until(LoadAnnotations, steps)
    if loaded is None:
        raise ValueError(
            f'{owner}: the pipeline of {name_of(dataset)} has neither LoadAnnotations nor, as '
            'unlabelled images need it, LoadEmptyAnnotations.'
        )
    return loaded


def loading_steps(dataset: BaseDataset, owner: str) -> Compose:
    """The first steps of a labelled set's pipeline, until the annotations are loaded.

    Raises:
        ValueError: They are not, or without bitmaps of masks, with other boxes than horizontal
            ones, or with semantic maps.
    """
    steps = dataset.pipeline.transforms
    loaded = annotated_after(dataset, owner)
    step = steps[loaded - 1]
    if not (step.with_mask and step.with_bbox and step.with_label and step.poly2mask):
        raise ValueError(
            f'{owner}: the pipeline of {dataset.ann_file} must have LoadAnnotations('
            'with_bbox=True, with_mask=True), and poly2mask must not be False: objects '
            'are cut out along their masks.'
        )
    if step.box_type != 'hbox':
        raise ValueError(
            f'{owner}: {dataset.ann_file} is loaded with LoadAnnotations(box_type='
            f"{step.box_type!r}), which is not supported; use 'hbox', the default."
        )
    if step.with_seg:
        raise ValueError(
            f'{owner}: LoadAnnotations(with_seg=True) loads semantic maps, in which '
            'nothing is pasted; set it to False, or max_num_pasted=0.'
        )
    return Compose(steps[:loaded])


def with_plain_student_view(step: Any) -> Any:
    """Branches whose student's view holds no instances: the detector projects the teacher's."""
    if not isinstance(step, MultiBranch) or STUDENT_BRANCH not in step.branch_pipelines:
        return step
    made = copy.copy(step)
    student = step.branch_pipelines[STUDENT_BRANCH]
    made.branch_pipelines = step.branch_pipelines | {
        STUDENT_BRANCH: Compose([without_annotations, *student.transforms])
    }
    return made


def without_annotations(results: dict[str, Any]) -> dict[str, Any]:
    """A loaded image (``img``) with empty annotations of every kind that is pasted."""
    height, width = results['img'].shape[:2]
    return results | dict(
        gt_bboxes=HorizontalBoxes(np.zeros((0, 4), dtype=np.float32)),
        gt_bboxes_labels=np.zeros(0, dtype=np.int64),
        gt_ignore_flags=np.zeros(0, dtype=bool),
        gt_masks=BitmapMasks(np.zeros((0, height, width), dtype=np.uint8), height, width),
    )


def mark_pasted(results: dict[str, Any]) -> dict[str, Any]:
    """Say of the views of an unlabelled image that their instances are pasted objects."""
    found = results.get('data_samples') or {}
    for sample in found.values() if isinstance(found, dict) else [found]:
        if isinstance(sample, DetDataSample):
            sample.set_metainfo({PASTED_KEY: True})
    return results


def name_of(dataset: BaseDataset) -> str:
    """The file or folder that a data set reads."""
    return str(dataset.ann_file or dataset.data_prefix.get('img') or type(dataset).__name__)
