"""Per-class thresholds for mmdet's own semi-supervised detectors.

Shape legend: K instances, C foreground classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmdet.models.detectors import SemiBaseDetector
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_softpl.functional import score_histogram
from mmdet_softpl.models.class_state import SCORE_BINS, ClassState
from mmdet_softpl.models.roi_adapter import stages_of


def rescale_to_threshold(scores: Tensor, thresholds: Tensor, scalar_thr: float) -> Tensor:
    """Monotone map of scores under which a scalar threshold acts like one per class.

    Piecewise linear through (0, 0), (threshold, scalar_thr) and (1, 1), so that
    ``score > threshold`` is ``new > scalar_thr`` and orders within a class stay.

    Args:
        scores: (K,) in [0, 1].
        thresholds: (K,) in [0, 1], of each instance's class.
        scalar_thr: In [0, 1].

    Returns:
        (K,) in [0, 1].
    """
    below = scores * scalar_thr / thresholds.clamp(min=1e-6)
    above = scalar_thr + (scores - thresholds) * (1 - scalar_thr) / (1 - thresholds).clamp(min=1e-6)
    return torch.where(scores <= thresholds, below.clamp(max=scalar_thr), above).clamp(0, 1)


class HostLabeling:
    """Re-scores the teacher's instances while a host detector asks for pseudo-labels.

    The host's teacher gives one score per instance, so the boost multiplies it (limited to 1);
    the scores then go through ``rescale_to_threshold`` with the host's ``cls_pseudo_thr``.
    Nothing changes outside ``get_pseudo_instances``: evaluation sees the plain teacher.

    Args:
        detector: ``SemiBaseDetector`` or a subclass, ``SoftTeacher`` among them.
        state: Boosts and thresholds; its accumulators are filled.

    Raises:
        TypeError: For another model.
        ValueError: If the detector's ``semi_train_cfg`` has no ``cls_pseudo_thr``, or its head
            has other classes.
    """

    def __init__(self, detector: nn.Module, state: ClassState) -> None:
        if not isinstance(detector, SemiBaseDetector):
            raise TypeError(
                'RareBoostPseudoLabeler works on CalibratedSoftTeacher and on SemiBaseDetector '
                f'with its subclasses (SoftTeacher), got {type(detector).__name__}.'
            )
        scalar = detector.semi_train_cfg.get('cls_pseudo_thr')
        if scalar is None:
            raise ValueError(
                f'RareBoostPseudoLabeler: semi_train_cfg of {type(detector).__name__} has no '
                'cls_pseudo_thr, which the per-class thresholds are mapped to.'
            )
        self.detector = detector
        self.state = state
        self.scalar_thr = float(scalar)
        teacher = detector.teacher
        self.head = getattr(teacher, 'roi_head', None) or getattr(teacher, 'bbox_head', None)
        if self.head is None or not hasattr(self.head, 'predict'):
            raise TypeError(
                f'RareBoostPseudoLabeler: the teacher {type(teacher).__name__} has neither a '
                'roi_head nor a bbox_head with predict().'
            )
        # One of the second stage does not know its classes itself.
        two_stage = hasattr(self.head, 'bbox_head')
        decides = stages_of(self.head)[-1].bbox_head if two_stage else self.head
        num_classes = getattr(decides, 'num_classes', state.num_classes)
        if num_classes != state.num_classes:
            raise ValueError(
                f'RareBoostPseudoLabeler: the head of {type(teacher).__name__} has num_classes='
                f'{num_classes}, but labeled_ann_file has {state.num_classes} classes; give both '
                'the same.'
            )

    def attach(self) -> None:
        """Wrap the detector's ``get_pseudo_instances``."""
        plain: Callable[..., Any] = type(self.detector).get_pseudo_instances

        def get_pseudo_instances(batch_inputs, batch_data_samples):
            predict = self.head.predict
            self.head.predict = lambda *args, **kwargs: [
                self.rescore(results) for results in predict(*args, **kwargs)
            ]
            try:
                return plain(self.detector, batch_inputs, batch_data_samples)
            finally:
                del self.head.predict

        self.detector.get_pseudo_instances = get_pseudo_instances

    def detach(self) -> None:
        """Undo ``attach``."""
        self.detector.__dict__.pop('get_pseudo_instances', None)

    @torch.no_grad()
    def rescore(self, results: InstanceData) -> InstanceData:
        """Boost, record and map the scores of one image, in place.

        Raw results with scores of all classes (Soft Teacher's jittered boxes) pass through.
        """
        if 'labels' not in results or results.scores.dim() != 1:
            return results
        state, labels = self.state, results.labels
        scores = (results.scores * state.boosts[labels]).clamp(max=1)
        kept = scores > state.thresholds[labels]
        state.score_histogram += score_histogram(scores, labels, state.num_classes, SCORE_BINS)
        state.kept.index_add_(0, labels, kept.to(state.kept))
        state.num_images += 1
        results.scores = rescale_to_threshold(scores, state.thresholds[labels], self.scalar_thr)
        return results
