"""Mean teacher with a supervised phase, a burn-in and buffers that follow."""

from __future__ import annotations

import torch
from mmdet.engine.hooks import MeanTeacherHook
from mmdet.registry import HOOKS as MMDET_HOOKS
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn

from mmdet_softpl.checks import check_range
from mmdet_softpl.engine.best_checkpoint import check_best_checkpoint
from mmdet_softpl.engine.data_checks import check_datasets
from mmdet_softpl.engine.fresh_labelling import forget_labelling, forget_teacher
from mmdet_softpl.engine.measured_masks import check_measured_masks
from mmdet_softpl.engine.recomputation_check import check_recomputation
from mmdet_softpl.engine.run_warnings import warn_once
from mmdet_softpl.engine.runner_model import model_of
from mmdet_softpl.models.batch_norm import keeps_statistics
from mmdet_softpl.models.checkpoint_parts import check_classifier_layer
from mmdet_softpl.registry import HOOKS


@MMDET_HOOKS.register_module()
@HOOKS.register_module()
class BurnInMeanTeacherHook(Hook):
    """Decides, iteration by iteration, what the teacher is and how much the student hears of it.

    1. ``supervised_iters``: the student learns from labelled images alone; the teacher is a
       copy of it, so that validations and checkpoints of this phase hold a teacher too.
    2. ``burn_in_iters``: the teacher, just trained or given, is frozen while the student
       learns from its labels (Guided Distillation, WACV 2024); copied at the end.
    3. After that the teacher is the moving average of the student.

    Both at 0: plain Soft Teacher, which begins with a copy of the student, or with the teacher of a
    semi-supervised ``load_from``. Parameters and batch-norm statistics are averaged; all other
    buffers (class prototypes, counters) are copied. mmdet's ``MeanTeacherHook`` skips buffers and
    overwrites a given teacher at iteration 0, so the two exclude each other.

    Args:
        momentum: Share of the student in an update, in (0, 1).
        interval: Optimizer steps between two updates or copies, >= 1: iterations, or with
            ``accumulative_counts`` as many times that.
        supervised_iters: Length of phase 1, >= 0.
        burn_in_iters: Length of phase 2, >= 0.
        ramp_iters: Iterations over which the unsupervised weight grows linearly to its full
            value after phase 1, >= 0.

    Raises:
        ValueError: At construction for a value outside its range; before training for
            phases or a ``load_from`` that contradict the model's ``teacher_checkpoint``, a
            frozen teacher that was never trained, data sets that do not fit each other, a
            ``save_best`` that no metric gives, metrics of masks without a mask head, a second
            mean-teacher hook, or a detector of mmdet's that has no notion of phases 1 and 2's ramp.
        TypeError: Before training, if the model has no teacher and student.
    """

    def __init__(
        self,
        momentum: float = 0.0004,
        interval: int = 1,
        supervised_iters: int = 0,
        burn_in_iters: int = 0,
        ramp_iters: int = 0,
    ) -> None:
        owner = type(self).__name__
        check_range(owner, 'momentum', momentum, 0, 1, include_lower=False, include_upper=False)
        check_range(owner, 'interval', interval, 1, None, whole=True)
        check_range(owner, 'supervised_iters', supervised_iters, 0, None, whole=True)
        check_range(owner, 'burn_in_iters', burn_in_iters, 0, None, whole=True)
        check_range(owner, 'ramp_iters', ramp_iters, 0, None, whole=True)
        self.momentum = momentum
        self.interval = interval
        self.supervised_iters = supervised_iters
        self.burn_in_iters = burn_in_iters
        self.ramp_iters = ramp_iters
        self._teacher_came = False

    def unsup_scale(self, iteration: int) -> float:
        """Factor in [0, 1] of the unsupervised loss at an iteration (from 0)."""
        since = iteration - self.supervised_iters
        if since < 0:
            return 0.0
        return min((since + 1) / self.ramp_iters, 1.0) if self.ramp_iters else 1.0

    def before_train(self, runner: Runner) -> None:
        """Check the composition; without a phase before it, copy the student at iteration 0."""
        model = _semi_model(runner)
        owner = type(self).__name__
        for hook in runner.hooks:
            if hook is not self and isinstance(hook, (MeanTeacherHook, BurnInMeanTeacherHook)):
                raise ValueError(
                    f'{owner}: custom_hooks has a {type(hook).__name__} too; keep one of them.'
                )
        if not hasattr(model, 'unsup_scale') and (self.supervised_iters or self.ramp_iters):
            raise ValueError(
                f'{owner}: {type(model).__name__} does not know unsup_scale, so supervised_iters='
                f'{self.supervised_iters} and ramp_iters={self.ramp_iters} would do nothing; set '
                'them to 0 or use CalibratedSoftTeacher.'
            )
        check_datasets(runner)
        check_best_checkpoint(runner)
        check_measured_masks(runner)
        check_recomputation(model.student)
        if runner.max_iters <= self.supervised_iters:
            warn_once(
                f'{owner}: supervised_iters={self.supervised_iters} is not below the '
                f'{runner.max_iters} iterations of this training, so unlabelled images never count.'
            )
        given = getattr(model, 'teacher_checkpoint', None)
        if given and (self.supervised_iters or not self.burn_in_iters):
            raise ValueError(
                f'{owner}: teacher_checkpoint={given!r} would be overwritten by the student '
                f'(supervised_iters={self.supervised_iters}, burn_in_iters={self.burn_in_iters}); '
                'set supervised_iters=0 and burn_in_iters > 0.'
            )
        if given and runner._load_from and runner.iter == 0:
            raise ValueError(
                f'{owner}: load_from={runner._load_from!r} has overwritten the teacher that '
                f'teacher_checkpoint={given!r} gave; keep one of the two.'
            )
        # Not runner._resume, which stays True where there was no checkpoint to resume from.
        trained = given or runner._load_from or runner.iter
        if self.burn_in_iters and not self.supervised_iters and not trained:
            raise ValueError(
                f'{owner}: burn_in_iters={self.burn_in_iters} freezes a teacher that was never '
                'trained; give model.teacher_checkpoint or load_from, or set supervised_iters.'
            )
        model.teacher_has_buffers = True
        loaded = self._teacher_came and not self.supervised_iters
        if not given and not loaded and runner.iter == 0:
            copy_teacher(model.student, model.teacher)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Weights of another training bring no labelling state, but maybe a teacher.

        Raises:
            ValueError: Its classifier is a linear layer and the model's a normalised one, or the
                other way round.
        """
        teacher = getattr(model_of(runner), 'teacher', None)
        # Test-time augmentation wraps the model.
        if teacher is None:
            return
        check_classifier_layer(checkpoint, teacher, runner._load_from or 'the checkpoint')
        forget_labelling(runner, checkpoint)
        names = checkpoint.get('state_dict', checkpoint)
        self._teacher_came = any(name.startswith('teacher.') for name in names)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Tell the detector how much the unsupervised loss counts."""
        _semi_model(runner).unsup_scale = self.unsup_scale(runner.iter)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Update the teacher as its phase asks."""
        model, done = _semi_model(runner), runner.iter + 1
        frozen_until = self.supervised_iters + self.burn_in_iters
        # Between two steps of the optimizer the student stays where it is.
        iters_per_step = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        due = done % (self.interval * iters_per_step) == 0
        if done in {self.supervised_iters, frozen_until} or (due and done < self.supervised_iters):
            copy_teacher(model.student, model.teacher)
            if self.burn_in_iters and done == frozen_until:
                forget_teacher(runner)
        elif due and done > frozen_until:
            average_teacher(model.student, model.teacher, self.momentum)


def _semi_model(runner: Runner) -> BaseModel:
    model = model_of(runner)
    if not (hasattr(model, 'teacher') and hasattr(model, 'student')):
        raise TypeError(
            f'BurnInMeanTeacherHook needs a model with teacher and student, got '
            f'{type(model).__name__}; use it with CalibratedSoftTeacher or a SemiBaseDetector.'
        )
    return model


@torch.no_grad()
def copy_teacher(student: nn.Module, teacher: nn.Module) -> None:
    """Make parameters and buffers of the teacher equal to the student's."""
    # Not a mean with weight 0 for the teacher, which would leave a NaN of its where it is.
    averaged, copied = _split_state(student)
    destination = _tensors_of(teacher)
    for name, value in (averaged | copied).items():
        destination[name].copy_(value)


@torch.no_grad()
def average_teacher(student: nn.Module, teacher: nn.Module, momentum: float) -> None:
    """teacher <- (1 - momentum) teacher + momentum student (arXiv 1703.01780).

    Args:
        student, teacher: Networks with the same names; paired by name, not by order.
        momentum: In (0, 1).

    Raises:
        KeyError: If the teacher lacks a parameter or buffer of the student.
    """
    averaged, copied = _split_state(student)
    targets = _tensors_of(teacher)
    destination = [targets[name] for name in averaged]
    torch._foreach_lerp_(destination, list(averaged.values()), momentum)
    for name, value in copied.items():
        targets[name].copy_(value)


def _tensors_of(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.named_parameters()) | dict(module.named_buffers())


def _split_state(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Floating parameters and batch-norm statistics; and all other tensors."""
    averaged = {k: v.data for k, v in module.named_parameters()}
    copied: dict[str, Tensor] = {}
    for prefix, child in module.named_modules():
        is_norm = keeps_statistics(child)
        for name, buffer in child.named_buffers(prefix, recurse=False):
            home = averaged if is_norm and buffer.is_floating_point() else copied
            home[name] = buffer
    return averaged, copied
