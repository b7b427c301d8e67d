"""A teacher that nothing makes follow the student."""

from __future__ import annotations

import torch
from torch import nn

# Unrelated weights of equal norm are 1.4 of it apart, a student after a few steps some hundredths.
_UNRELATED = 1.1


@torch.no_grad()
def check_teacher_follows(teacher: nn.Module, student: nn.Module) -> None:
    """Refuse a teacher some of whose weights are random, since it was never made the student's.

    Args:
        teacher, student: Box heads of one architecture, the student's after a few steps.

    Raises:
        RuntimeError: A weight matrix of the one has nothing to do with that of the other.
    """
    pairs = zip(teacher.parameters(), student.parameters(), strict=True)
    apart = [
        (mine - own).norm() > _UNRELATED * own.norm()
        for mine, own in pairs
        if own.dim() > 1 and own.requires_grad
    ]
    # One is enough: of a detector with other classes both took over all but the classifier.
    if apart and bool(torch.stack(apart).any()):
        raise RuntimeError(
            'CalibratedSoftTeacher: the teacher still has random weights that it began with, '
            "since no hook makes it follow the student. A config's custom_hooks takes the place of "
            "that in its base: add dict(type='mmdet_softpl.BurnInMeanTeacherHook', ...) to it; "
            'or give the teacher weights (teacher_checkpoint, load_from).'
        )
