"""The settings of ``CalibratedSoftTeacher``: their defaults and what they may be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict

from mmengine.config import ConfigDict
from torch import nn

from mmdet_softpl.branches import STUDENT_BRANCH, TEACHER_BRANCH
from mmdet_softpl.checks import check_choice, check_range
from mmdet_softpl.functional import CALIBRATION_MODES
from mmdet_softpl.models.teacher_labels import LabelingCfg

# Of mmdet's SemiBaseDetector.
TEST_KEYS = ('predict_on', 'forward_on', 'extract_feat_on')
# Of mmdet 3.3.
RESIZING_AUGMENTS = ('BatchResize', 'BatchSyncRandomResize')
LABEL_MODES = ('soft', 'hard')
DEFAULTS = dict(
    freeze_teacher=True,
    sup_weight=1.0,
    unsup_weight=1.0,
    label_mode='soft',
    score_thr=0.7,
    calibration='histogram',
    student_correction=False,
    calibration_interval=10,
    refresh_interval=500,
    **asdict(LabelingCfg()),
)


def check_branches(branches: Iterable[str], unlabelled: bool) -> None:
    """Refuse a batch without the images that a loss needs.

    Args:
        branches: Of the batch.
        unlabelled: Whether unlabelled images count already.

    Raises:
        KeyError: Names the branch that is missing.
    """
    wanted = ['sup', *((TEACHER_BRANCH, STUDENT_BRANCH) if unlabelled else ())]
    absent = [name for name in wanted if name not in branches]
    if absent:
        raise KeyError(_no_image_of(absent[0], branches))


def refuse_empty_branch(data_preprocessor: nn.Module, args: tuple) -> None:
    """Before mmdet's preprocessor stacks a batch: name a branch that no image of it went through.

    Args:
        data_preprocessor: Whose forward pass begins.
        args: Of that pass; the first is the batch, with ``inputs`` by branch in training, where
            ``MultiBranch`` leaves None for images of other branches.

    Raises:
        KeyError: Names the branch that is empty.
    """
    inputs = args[0].get('inputs') if args and isinstance(args[0], Mapping) else None
    if not isinstance(inputs, Mapping):
        return
    filled = [name for name, images in inputs.items() if any(i is not None for i in images)]
    for name in inputs:
        if name not in filled:
            raise KeyError(_no_image_of(name, filled))


def _no_image_of(branch: str, branches: Iterable[str]) -> str:
    return (
        f'CalibratedSoftTeacher: the batch has no image of branch {branch!r} (it has '
        f'{sorted(branches)}). Every batch needs labelled and unlabelled images: use '
        "sampler=dict(type='MultiSourceSampler', source_ratio=[...]) with both shares >= 1 and the "
        "batch_size of train_dataloader, and mmdet's three branches."
    )


def check_batch_augments(data_preprocessor: nn.Module) -> None:
    """Refuse augmentations of a batch that resize it: no view would know of it.

    Args:
        data_preprocessor: mmdet's ``MultiBranchDataPreprocessor``, or a plain one.

    Raises:
        ValueError: Names the augmentation.
    """
    inner = getattr(data_preprocessor, 'data_preprocessor', data_preprocessor)
    for augment in getattr(inner, 'batch_augments', None) or ():
        name = type(augment).__name__
        if name in RESIZING_AUGMENTS:
            raise ValueError(
                f'CalibratedSoftTeacher: {name} of data_preprocessor.batch_augments resizes images '
                'without a record in homography_matrix, so all pseudo-labels would lie beside '
                'their objects; remove it, and resize in the pipelines.'
            )


def checked_settings(semi_train_cfg: dict | None) -> ConfigDict:
    """Defaults with the given values.

    Raises:
        ValueError: For an unknown key or mode, or a value out of its range.
    """
    given = dict(semi_train_cfg or {})
    owner = 'CalibratedSoftTeacher: semi_train_cfg'
    for key in given:
        check_choice(owner, 'key', key, DEFAULTS)
    cfg = {**DEFAULTS, **given}
    check_choice(owner, 'freeze_teacher', cfg['freeze_teacher'], (True,))
    check_choice(owner, 'label_mode', cfg['label_mode'], LABEL_MODES)
    if cfg['student_correction'] and cfg['label_mode'] == 'hard':
        raise ValueError(
            f"{owner}: student_correction=True needs label_mode='soft': the offsets correct the "
            "teacher's soft labels, which the student of label_mode='hard' never sees."
        )
    check_choice(owner, 'calibration', cfg['calibration'], CALIBRATION_MODES)
    for key in ('score_thr', 'score_floor', 'objectness_thr'):
        check_range(owner, key, cfg[key], 0, 1)
    for key in ('iou_thr', 'cross_class_iou_thr'):
        check_range(owner, key, cfg[key], 0, 1, include_lower=False)
    for key in ('sup_weight', 'unsup_weight'):
        check_range(owner, key, cfg[key], 0, None)
    check_range(owner, 'label_temperature', cfg['label_temperature'], 0, None, include_lower=False)
    for key in ('mirror', 'student_correction'):
        check_choice(owner, key, cfg[key], (True, False))
    for key in ('max_per_img', 'calibration_interval', 'refresh_interval'):
        check_range(owner, key, cfg[key], 1, None, whole=True)
    return ConfigDict(cfg)
