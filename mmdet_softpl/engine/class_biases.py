"""The biases of a detector's box classifier, one for each class.

Shape legend: C foreground classes (background has index C).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

import torch
from mmdet.models.detectors import TwoStageDetector
from torch import Tensor, nn

from mmdet_softpl.models.roi_adapter import stages_of

_BIAS = re.compile(r'(?:(?:teacher|student)\.)?roi_head\.bbox_head\.(?:\d+\.)?fc_cls\.bias')


class ClassBiasError(ValueError):
    """A detector has no class biases that could be shifted."""


def class_bias_names(names: Iterable[str]) -> list[str]:
    """Those of a state dict that are biases of box classifiers, of every stage of a cascade.

    Raises:
        ClassBiasError: There is none.
    """
    found = [name for name in names if _BIAS.fullmatch(name)]
    if not found:
        raise ClassBiasError(
            'the detector has no roi_head.bbox_head.fc_cls with a bias, which would be shifted; '
            'give a checkpoint of a two-stage detector whose classifier has one.'
        )
    return found


def class_bias_key(state_dict: Mapping[str, Tensor]) -> str:
    """What tells the class biases of two trainings apart, whatever their files are called.

    Args:
        state_dict: Of a plain detector.

    Raises:
        ClassBiasError: There is none.
    """
    digest = hashlib.sha256()
    for name in sorted(class_bias_names(state_dict)):
        digest.update(state_dict[name].detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def check_softmax(detector: nn.Module) -> None:
    """Raise :class:`ClassBiasError` for scores that are no softmax over the classes."""
    if not isinstance(detector, TwoStageDetector):
        raise ClassBiasError(
            f'{type(detector).__name__} is no two-stage detector of MMDetection; give a checkpoint '
            'of one.'
        )
    for stage in stages_of(detector.roi_head):
        head = stage.bbox_head
        if getattr(head.loss_cls, 'use_sigmoid', False):
            raise ClassBiasError(
                f'{type(head).__name__} has sigmoid scores, in which classes do not compete, so '
                'there is no balance to be changed; keep the detector as it is.'
            )


def shifted(state_dict: Mapping[str, Tensor], shifts: Tensor) -> dict[str, Tensor]:
    """A copy of a state dict whose class biases are shifted.

    With Seesaw loss the first C of the C + 2 outputs are the classes, so objectness stays.

    Args:
        state_dict: Of a detector, or of one with ``teacher.`` and ``student.`` in front.
        shifts: (C,), added to the first C biases.

    Raises:
        ClassBiasError: There are no class biases, or not of so many classes.
    """
    changed = dict(state_dict)
    for name in class_bias_names(state_dict):
        changed[name] = _plus(state_dict[name], shifts, name)
    return changed


def _plus(bias: Tensor, shifts: Tensor, name: str) -> Tensor:
    if len(bias) not in (len(shifts) + 1, len(shifts) + 2):
        raise ClassBiasError(
            f'{name} has {len(bias)} outputs, which are not those of {len(shifts)} classes; give '
            'the labelled file and the checkpoint of one training.'
        )
    changed = bias.clone()
    changed[: len(shifts)] += shifts.to(bias)
    return changed


class ShiftedBiases:
    """The class biases of a built detector, set to their own values plus shifts; in place.

    Args:
        detector: Two-stage, with softmax scores.

    Raises:
        ClassBiasError: It has no such biases.
    """

    def __init__(self, detector: nn.Module) -> None:
        check_softmax(detector)
        parameters = dict(detector.named_parameters())
        self._parameters = {name: parameters[name] for name in class_bias_names(parameters)}
        self._own = {name: one.detach().clone() for name, one in self._parameters.items()}

    @torch.no_grad()
    def set(self, shifts: Tensor) -> None:
        """Own biases plus ``shifts`` (C,).

        Raises:
            ClassBiasError: The classifier has another number of classes.
        """
        for name, parameter in self._parameters.items():
            parameter.copy_(_plus(self._own[name], shifts, name))
