"""Checks of what the pipelines of a data set hand on about its views."""

from __future__ import annotations

from collections.abc import Iterator

from mmengine.dataset import BaseDataset

from mmdet_softpl.branches import STUDENT_BRANCH, TEACHER_BRANCH

# Transforms of mmdet 3.3 and mmcv 2.1 that move pixels and leave ``homography_matrix`` as it was.
UNRECORDED = frozenset(
    (
        'CachedMixUp',
        'CachedMosaic',
        'CenterCrop',
        'Expand',
        'MinIoURandomCrop',
        'MixUp',
        'Mosaic',
        'RandomAffine',
        'RandomCenterCropPad',
        'RandomShift',
    )
)


def check_views(name: str, dataset: BaseDataset) -> None:
    """Whether both views of an unlabelled image say where their pixels come from, and fit.

    The first unlabelled image, which needs it, may come many thousand iterations later.

    Args:
        name: What the message calls the data set.
        dataset: Of a training of ``CalibratedSoftTeacher``; others than those with mmdet's three
            branches pass.

    Raises:
        ValueError: A branch does not hand on ``homography_matrix``, or moves pixels without a
            record in it; or the teacher sees a part of the image alone.
    """
    for branch in (TEACHER_BRANCH, STUDENT_BRANCH):
        transform = packs_without(dataset, branch, 'homography_matrix')
        if transform is not None:
            raise ValueError(
                f'{name} ({type(dataset).__name__}), branch {branch!r}: meta_keys of '
                f"{type(transform).__name__} has no 'homography_matrix'; add it to both "
                'unlabelled branches, since CalibratedSoftTeacher carries the labels of '
                'the teacher over to the view of the student by it.'
            )
        silent = next(filter(_moves_in_silence, _transforms(dataset, branch)), None)
        if silent is not None:
            raise ValueError(
                f'{name} ({type(dataset).__name__}), branch {branch!r}: '
                f'{type(silent).__name__} moves pixels '
                'without a record in homography_matrix, so all pseudo-labels would lie '
                'beside their objects; remove it, or use one that records (Resize, RandomFlip, '
                "Rotate, Translate, Shear of mmdet's; in the strong view RandomCrop with "
                'allow_negative_crop=True too).'
            )
    for crop in _transforms(dataset, STUDENT_BRANCH):
        if type(crop).__name__ == 'RandomCrop' and not getattr(crop, 'allow_negative_crop', True):
            raise ValueError(
                f'{name} ({type(dataset).__name__}), branch {STUDENT_BRANCH!r}: RandomCrop keeps '
                'no crop without a box, and unlabelled images have none; set '
                'allow_negative_crop=True.'
            )
    names = (type(transform).__name__ for transform in _transforms(dataset, TEACHER_BRANCH))
    crop = next((name for name in names if 'Crop' in name), None)
    if crop is not None:
        raise ValueError(
            f'{name} ({type(dataset).__name__}), branch {TEACHER_BRANCH!r}: {crop} hides a part of '
            'the image from the teacher, and what the student sees of it would be background; '
            'remove it, or put it in front of MultiBranch, where both views get it.'
        )


def packs_without(dataset: BaseDataset, branch: str, key: str) -> object | None:
    """The transform of a branch that packs its data samples without a key, if there is one.

    Args:
        dataset: With ``MultiBranch`` in its pipeline, or not.
        branch: ``'sup'``, ``'unsup_teacher'`` or ``'unsup_student'``.
        key: Of ``meta_keys``.

    Returns:
        The transform; None where there is none.
    """
    for transform in _transforms(dataset, branch):
        # Those that pack; what another one hands on is not known.
        keys = getattr(transform, 'meta_keys', None)
        if keys is not None and key not in keys:
            return transform
    return None


def _transforms(dataset: BaseDataset, branch: str) -> Iterator[object]:
    """Those of a branch, and what they choose from or apply (``RandomApply`` ...)."""
    from mmdet.datasets.transforms import MultiBranch

    for step in getattr(getattr(dataset, 'pipeline', None), 'transforms', ()):
        if isinstance(step, MultiBranch) and branch in step.branch_pipelines:
            yield from _nested(step.branch_pipelines[branch])


def _moves_in_silence(transform: object) -> bool:
    names = [base.__name__ for base in type(transform).__mro__]
    # In albumentations, what changes boxes as well as pixels; of these a dropout moves nothing.
    dual = 'DualTransform' in names and not any('Dropout' in name for name in names)
    return dual or names[0] in UNRECORDED


def _nested(transform: object) -> Iterator[object]:
    yield transform
    # `Albu` keeps the configs of its transforms beside the transforms.
    holder = getattr(transform, 'aug', transform)
    parts = holder if isinstance(holder, list) else getattr(holder, 'transforms', ())
    for part in parts or ():
        yield from _nested(part)
