"""Pseudo-labels in the visualizer while the training runs."""

from __future__ import annotations

import numpy as np
import torch
from mmdet.registry import HOOKS as MMDET_HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_softpl.branches import STUDENT_BRANCH, TEACHER_BRANCH
from mmdet_softpl.checks import check_range
from mmdet_softpl.engine.runner_model import model_of
from mmdet_softpl.engine.training_sets import training_classes
from mmdet_softpl.functional import resample_roi_masks
from mmdet_softpl.models import CalibratedSoftTeacher
from mmdet_softpl.models.student_losses import project
from mmdet_softpl.registry import HOOKS

# The surest; more would hide each other.
MAX_INSTANCES = 30


@MMDET_HOOKS.register_module()
@HOOKS.register_module()
class PseudoLabelVisualizationHook(Hook):
    """Draws the pseudo-labels of an unlabelled image over both of its views, side by side.

    mmdet's ``DetVisualizationHook`` shows predictions on validation images; this one shows what
    the student is taught. Left the teacher's weak view, right the student's strong view with the
    same instances projected into it. The picture goes to every backend of the visualizer
    (``LocalVisBackend``, ``TensorboardVisBackend``, ...) as ``pseudo_labels``. It costs a forward
    pass of the teacher on one image, draws no random numbers and counts nothing.

    Instances with a dashed frame are objects that the teacher sees but cannot name: RPN and box
    losses learn from them, and soft labels (not one-hot ones) their distribution over the classes.

    Args:
        interval: Iterations between two pictures, >= 1.

    Raises:
        ValueError: At construction, for a value out of its range.
        TypeError: Before training, for another model than ``CalibratedSoftTeacher``.
    """

    def __init__(self, interval: int = 1000) -> None:
        check_range(type(self).__name__, 'interval', interval, 1, None, whole=True)
        self.interval = interval
        self._classes: tuple[str, ...] = ()

    def before_train(self, runner: Runner) -> None:
        """Check the model and learn the names of the classes."""
        model = model_of(runner)
        if not isinstance(model, CalibratedSoftTeacher):
            raise TypeError(
                'PseudoLabelVisualizationHook works on CalibratedSoftTeacher, got '
                f'{type(model).__name__}; remove the hook from custom_hooks.'
            )
        self._classes = training_classes(runner) or tuple(map(str, range(model.num_classes)))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Draw the first unlabelled image of the batch where it is due."""
        model = model_of(runner)
        due = (runner.iter + 1) % self.interval == 0
        if not due or not is_main_process() or data_batch is None or model.unsup_scale == 0:
            return
        batch = first_of_branches(data_batch)
        if batch is None:
            return
        picture = self.draw(model, batch)
        runner.visualizer.add_image('pseudo_labels', picture, step=runner.iter + 1)

    @torch.no_grad()
    def draw(self, model: CalibratedSoftTeacher, batch: dict) -> np.ndarray:
        """The picture.

        Args:
            model: Its thresholds, boosts and calibration are used as they are.
            batch: See :func:`first_of_branches`.

        Returns:
            (H, W, 3) uint8 RGB.
        """
        # Every training imports the hooks, few draw.
        from mmdet_softpl.reporting.figure import figure_pixels
        from mmdet_softpl.reporting.pseudo_labels import draw_view_pair

        data = {name: model.image_preprocessor(part, False) for name, part in batch.items()}
        weak, strong = (data[name]['data_samples'] for name in (TEACHER_BRANCH, STUDENT_BRANCH))
        view = model.label(data[TEACHER_BRANCH]['inputs'], weak, record=False)
        seen = view.detections[0]
        surest = seen.scores.argsort(descending=True)[:MAX_INSTANCES]
        view.detections[0] = seen[surest]
        projected = project(view, weak, strong)
        found, bboxes = projected.instances, projected.bboxes[0]
        arrays = dict(labels=found.labels, confidences=found.confidences, kept=found.kept)
        of_weak, of_strong = dict(arrays, bboxes=found.bboxes), dict(arrays, bboxes=bboxes)
        if 'mask_probs' in found:
            count = len(found)
            of_weak['masks'] = found.mask_probs
            of_strong['masks'], _ = resample_roi_masks(
                found.mask_probs,
                found.bboxes,
                bboxes,
                torch.arange(count, device=bboxes.device),
                projected.homographies.expand(count, -1, -1),
                projected.teacher_shapes.expand(count, -1),
            )
        figure = draw_view_pair(
            _rgb(batch[TEACHER_BRANCH]['inputs'][0]),
            _rgb(batch[STUDENT_BRANCH]['inputs'][0]),
            of_weak,
            of_strong,
            self._classes or tuple(map(str, range(model.num_classes))),
        )
        return figure_pixels(figure)


def first_of_branches(data_batch: dict) -> dict[str, dict[str, list]] | None:
    """The first unlabelled image of a batch, in both views.

    Args:
        data_batch: As a data loader gives it: ``inputs`` and ``data_samples``, each by branch a
            list with None where a sample does not have the branch.

    Returns:
        By branch, ``inputs`` and ``data_samples`` with one entry each; None where the batch has
        no unlabelled image.
    """
    batch: dict[str, dict[str, list]] = {}
    for name in (TEACHER_BRANCH, STUDENT_BRANCH):
        batch[name] = {}
        for key in ('inputs', 'data_samples'):
            found = [item for item in data_batch[key].get(name, ()) if item is not None]
            if not found:
                return None
            batch[name][key] = found[:1]
    return batch


def _rgb(inputs: torch.Tensor) -> np.ndarray:
    """(3, H, W) BGR in [0, 255] -> (H, W, 3) uint8 RGB; some augmentations give floats."""
    pixels = inputs.clamp(0, 255).to(torch.uint8).cpu().numpy()
    return np.ascontiguousarray(pixels[::-1].transpose(1, 2, 0))
