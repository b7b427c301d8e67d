"""Soft Teacher for boxes and masks with calibrated soft pseudo-labels.

Shape legend: B images, H and W of a padded batch in pixels.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from mmdet.models.detectors import SemiBaseDetector
from mmdet.models.roi_heads.roi_extractors import BaseRoIExtractor
from mmdet.models.utils import rename_loss_dict, reweight_loss_dict
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.structures import SampleList
from mmengine.logging import MMLogger
from torch import Tensor, nn

from mmdet_softpl.branches import STUDENT_BRANCH, TEACHER_BRANCH
from mmdet_softpl.checks import check_choice
from mmdet_softpl.functional import (
    MAX_OFFSET,
    calibration_table,
    score_histogram,
    soft_targets,
    student_offsets,
)
from mmdet_softpl.models.batch_norm import check_statistics_moved, trains_batch_norm
from mmdet_softpl.models.checkpoint_parts import check_given, check_head, load_into_teacher
from mmdet_softpl.models.class_state import SCORE_BINS, ClassState
from mmdet_softpl.models.host_shortcuts import take_shortcuts
from mmdet_softpl.models.idle_teacher import check_teacher_follows
from mmdet_softpl.models.labelled_statistics import observe_image
from mmdet_softpl.models.own_buffers import own_buffers
from mmdet_softpl.models.pasted_labels import pasted_objects, with_pasted
from mmdet_softpl.models.roi_adapter import (
    check_two_stage,
    keep_proposal_precision,
    keep_roi_precision,
    missing_losses,
    stages_of,
)
from mmdet_softpl.models.semi_train_cfg import (
    TEST_KEYS,
    check_batch_augments,
    check_branches,
    checked_settings,
    refuse_empty_branch,
)
from mmdet_softpl.models.silence import Silence
from mmdet_softpl.models.student_losses import project, roi_losses, rpn_losses
from mmdet_softpl.models.teacher_labels import (
    LabelingCfg,
    TeacherView,
    add_masks,
    chosen,
    smoothing_of,
    teacher_detect,
)
from mmdet_softpl.ranks import sum_over_ranks
from mmdet_softpl.registry import MODELS

# What is left of old reliability statistics at a refresh.
RELIABILITY_DECAY = 0.5
# Late enough for any hook to have updated the teacher, early enough to lose nothing.
TEACHER_CHECK_ITER = 3


@MMDET_MODELS.register_module()
@MODELS.register_module()
class CalibratedSoftTeacher(SemiBaseDetector):
    """A teacher labels weak views, a student learns from them on strong views.

    For mmdet's two-stage detectors with a Standard or Cascade RoI head, softmax cross entropy
    without class weights or ``SeesawLoss``, and FCN mask heads or none. It differs from mmdet's
    ``SoftTeacher`` (arXiv 2106.09018) in soft calibrated labels, per-class thresholds, masks, and
    optional offsets through which the student corrects what is left of the teacher's calibration
    error (idea: arXiv 2403.11675; formulas: ours).

    Args:
        detector: Config of the two-stage detector.
        semi_train_cfg: Any of

            - ``sup_weight``, ``unsup_weight`` (>= 0): weights of the two losses,
            - ``label_mode``: ``'soft'`` or ``'hard'`` (one-hot labels, binary masks),
            - ``score_thr``: threshold of every class until a hook sets its own, in [0, 1],
            - ``score_floor``, ``iou_thr``, ``cross_class_iou_thr``, ``max_per_img``,
              ``objectness_thr``, ``mirror``, ``label_temperature``: see ``LabelingCfg``,
            - ``calibration``: ``'none'``, ``'temperature'``, ``'group_temperature'`` or
              ``'histogram'``,
            - ``student_correction``: whether the student's logits carry offsets (off: in runs so
              far they brought no AP, docs/DESIGN.md),
            - ``calibration_interval`` (>= 1): iterations between two passes of the teacher
              over the labelled batch, whose detections make the reliability statistics
              (optimistic, since the student trains on these images, so calibration only lowers
              scores;
              ``HeldOutCalibrationHook`` takes others),
            - ``refresh_interval`` (>= 1): iterations between two updates of calibration and
              offsets, when ranks sum their statistics.
        semi_test_cfg: ``predict_on``: ``'teacher'`` or ``'student'``.
        teacher_checkpoint: A plain detector's checkpoint, or a semi-supervised one (its
            teacher), for the teacher alone; the student starts from ``detector.init_cfg``.
            ``BurnInMeanTeacherHook(burn_in_iters=...)`` keeps such a teacher frozen.
        data_preprocessor: ``MultiBranchDataPreprocessor`` around the detector's.
        init_cfg: As in the host.

    Attributes:
        class_state: ``ClassState``, in the checkpoint.
        unsup_scale: Factor in [0, 1] of the unsupervised loss, set by a hook; at 0 the
            unlabelled images are not looked at.
        federated: For LVIS, set by a hook: image id -> class indices known to be present or
            absent, and those not annotated exhaustively (or None).
        has_labeller: Set by ``RareBoostPseudoLabeler``, to which boosts, thresholds and prototype
            weights belong; without it they are those of the config, whatever a checkpoint holds.
        held_out: Set by ``HeldOutCalibrationHook``, which then feeds ``observe_labelled`` and
            calls ``refresh_calibration`` itself.

    Raises:
        ValueError: For an unknown key or mode, a value out of its range, a detector that is
            not supported, or a checkpoint whose head has other classes.
        FileNotFoundError: If ``teacher_checkpoint`` is a local path that does not exist.
        KeyError: In ``loss``, for unlabelled images without ``homography_matrix``.
        RuntimeError: In iteration 3, for a teacher that no hook makes follow the student, or whose
            batch norm never got statistics.
    """

    def __init__(
        self,
        detector: dict,
        semi_train_cfg: dict | None = None,
        semi_test_cfg: dict | None = None,
        teacher_checkpoint: str | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        cfg = checked_settings(semi_train_cfg)
        super().__init__(
            detector=detector,
            semi_train_cfg=cfg,
            # Always there: in the place of a missing one mmdet's TeacherStudentValLoop leaves None.
            semi_test_cfg=dict(predict_on='teacher') | (semi_test_cfg or {}),
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        check_two_stage(self.student)
        check_batch_augments(self.data_preprocessor)
        self.data_preprocessor.register_forward_pre_hook(refuse_empty_branch)
        check_choice(
            type(self).__name__,
            'semi_test_cfg.predict_on',
            self.semi_test_cfg['predict_on'],
            ('teacher', 'student'),
        )
        for key in self.semi_test_cfg:
            check_choice(type(self).__name__, 'key of semi_test_cfg', key, TEST_KEYS)
        self.labeling_cfg = LabelingCfg(**{f.name: cfg[f.name] for f in fields(LabelingCfg)})
        self.teacher_checkpoint = teacher_checkpoint
        check_given(teacher_checkpoint)
        self.class_state = ClassState(
            self.num_classes,
            cfg['score_thr'],
            calibrates=cfg['calibration'] != 'none',
            corrects=cfg['student_correction'],
        )
        self.register_buffer('num_iters', torch.zeros((), dtype=torch.long))
        for network in (self.student, self.teacher):
            network.rpn_head.register_forward_hook(keep_proposal_precision)
            take_shortcuts(network)
        for module in self.modules():
            if isinstance(module, BaseRoIExtractor):
                module.register_forward_pre_hook(keep_roi_precision)
        self._ddp_params_and_buffers_to_ignore = own_buffers(self)
        self.unsup_scale = 1.0
        self.federated: dict[int | None, tuple[np.ndarray, np.ndarray | None]] = {}
        self.held_out = False
        # Set by a hook that copies the student's buffers into the teacher.
        self.teacher_has_buffers = False
        self.has_labeller = False
        self._teacher_loaded = self._state_loaded = False
        self._iter = 0
        self._silence = Silence()

    @property
    def num_classes(self) -> int:
        """Foreground classes of the box head."""
        return stages_of(self.student.roi_head)[-1].bbox_head.num_classes

    @property
    def image_preprocessor(self) -> nn.Module:
        """What training and validation prepare images with, for images without branches.

        Those of ``teacher`` and ``student`` are read by nothing.
        """
        outer: Any = self.data_preprocessor
        return getattr(outer, 'data_preprocessor', outer)

    @property
    def iterations(self) -> int:
        """Those with unlabelled images so far: ``num_iters``, known without asking the device."""
        return self._iter

    @property
    def has_trainable_batch_norm(self) -> bool:
        """Whether training moves batch statistics of the student that a teacher must follow."""
        return trains_batch_norm(self.student)

    def train(self, mode: bool = True) -> CalibratedSoftTeacher:
        """Train or evaluate; the teacher always stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def init_weights(self) -> None:
        """Initialise both networks, then load ``teacher_checkpoint`` into the teacher."""
        super().init_weights()
        if self.teacher_checkpoint:
            load_into_teacher(self.teacher, self.state_dict(), self.teacher_checkpoint)
            self._teacher_loaded = True

    def loss(
        self,
        multi_batch_inputs: dict[str, Tensor],
        multi_batch_data_samples: dict[str, SampleList],
    ) -> dict[str, Tensor]:
        """Supervised and unsupervised losses.

        Args:
            multi_batch_inputs: Images of the branches ``sup``, ``unsup_teacher`` (weak) and
                ``unsup_student`` (strong), each (B, 3, H, W).
            multi_batch_data_samples: Their data samples.

        Returns:
            Host's losses with ``sup_`` and ``unsup_`` before their names.

        Raises:
            KeyError: A batch without labelled images, or without unlabelled ones when they count.
        """
        check_branches(multi_batch_inputs, self.unsup_scale > 0)
        losses = self.loss_by_gt_instances(
            multi_batch_inputs['sup'], multi_batch_data_samples['sup']
        )
        present = [key.removeprefix('sup_') for key in losses]
        missing = missing_losses(self.student.roi_head, present)
        losses.update(rename_loss_dict('sup_', missing))
        if self.unsup_scale > 0:
            if self._state_loaded and not self.has_labeller:
                # They may be of a training with that hook, or of another ``score_thr``.
                self.class_state.forget_labeller(self.semi_train_cfg['score_thr'])
                self._state_loaded = False
            due = self._iter % self.semi_train_cfg['calibration_interval'] == 0
            if due and self.wants_calibration and not self.held_out:
                self.observe_labelled(multi_batch_inputs['sup'], multi_batch_data_samples['sup'])
            view = self.label(
                multi_batch_inputs[TEACHER_BRANCH], multi_batch_data_samples[TEACHER_BRANCH]
            )
            losses.update(self._loss_by_view(view, multi_batch_inputs, multi_batch_data_samples))
            self._iter += 1
            self.num_iters += 1
            if self._iter == TEACHER_CHECK_ITER:
                self._check_teacher()
            learns = self.wants_calibration and not self.held_out
            if learns and self._iter % self.semi_train_cfg['refresh_interval'] == 0:
                self.refresh_calibration()
        return losses

    def _check_teacher(self) -> None:
        heads = [
            stages_of(network.roi_head)[-1].bbox_head for network in (self.teacher, self.student)
        ]
        if not self._teacher_loaded:
            check_teacher_follows(*heads)
        if self.has_trainable_batch_norm and not self.teacher_has_buffers:
            check_statistics_moved(self.teacher)

    @property
    def wants_calibration(self) -> bool:
        """Whether anything uses statistics of labelled images."""
        cfg = self.semi_train_cfg
        return cfg['calibration'] != 'none' or cfg['student_correction']

    @torch.no_grad()
    def label(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, record: bool = True
    ) -> TeacherView:
        """The teacher's objects in weak views, with masks.

        Args:
            batch_inputs: (B, 3, H, W).
            batch_data_samples: Their data samples.
            record: Count what was seen and kept in ``class_state``.

        Returns:
            Kept pseudo-labels and unnamed objects, see ``TeacherView``.
        """
        # What is pasted in says nothing of what unlabelled images hold.
        pasted = [pasted_objects(sample) for sample in batch_data_samples]
        view = teacher_detect(
            self.teacher,
            batch_inputs,
            batch_data_samples,
            self.class_state,
            self.labeling_cfg,
            pasted,
        )
        objects = [chosen(seen, seen.is_object) for seen in view.detections]
        if record:
            state = self.class_state
            for seen, found in zip(view.detections, objects, strict=True):
                # Only an object's surest label can be kept, so only these make thresholds.
                labels = torch.where(seen.surest, seen.labels, -1)
                state.score_histogram += score_histogram(
                    seen.scores, labels, self.num_classes, SCORE_BINS
                )
                state.kept.index_add_(0, seen.labels, seen.kept.to(state.kept))
                if self.semi_train_cfg['label_mode'] == 'soft':
                    targets = soft_targets(found.score_vectors, found.labels, found.target_scores)
                    state.mass += targets[:, :-1].sum(0)
            state.own_mass += view.own_mass
            state.num_images += len(view.detections)
            self._silence.observe(view, state.thresholds)
        view = replace(view, detections=objects, num_seen=sum(map(len, objects)))
        add_masks(self.teacher, view)
        return replace(view, detections=with_pasted(view.detections, pasted))

    def _loss_by_view(
        self,
        view: TeacherView,
        multi_batch_inputs: dict[str, Tensor],
        multi_batch_data_samples: dict[str, SampleList],
    ) -> dict[str, Tensor]:
        cfg = self.semi_train_cfg
        samples = multi_batch_data_samples[STUDENT_BRANCH]
        batch = project(view, multi_batch_data_samples[TEACHER_BRANCH], samples)
        x = self.student.extract_feat(multi_batch_inputs[STUDENT_BRANCH])
        losses, proposals = rpn_losses(self.student, x, batch, samples)
        losses.update(
            roi_losses(
                self.student,
                self.teacher,
                x,
                proposals,
                batch,
                samples,
                hard=cfg['label_mode'] == 'hard',
                offsets=self.class_state.offsets,
            )
        )
        # Without one object everything would be background: the images say nothing then, also where
        # something was pasted into them.
        scale = self.unsup_scale if len(batch.instances) and view.num_seen else 0.0
        return rename_loss_dict('unsup_', reweight_loss_dict(losses, cfg['unsup_weight'] * scale))

    @torch.no_grad()
    def observe_labelled(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> None:
        """Add the teacher's labels of labelled images to reliability and expected counts.

        Args:
            batch_inputs: (B, 3, H, W).
            batch_data_samples: With ``gt_instances``.
        """
        view = teacher_detect(
            self.teacher, batch_inputs, batch_data_samples, self.class_state, self.labeling_cfg
        )
        for detections, sample in zip(view.detections, batch_data_samples, strict=True):
            # One label an object, right or wrong in its class: what a student would learn from.
            seen = chosen(detections, detections.surest)
            observe_image(self.class_state, seen, sample, self.federated)

    @torch.no_grad()
    def refresh_calibration(self) -> None:
        """Sum the reliability over ranks; renew the calibration table and the offsets.

        Every rank must call it at the same time.
        """
        state, cfg = self.class_state, self.semi_train_cfg
        sum_over_ranks(state.new_reliability)
        # A held-out part is seen whole every time.
        decay = 0.0 if self.held_out else RELIABILITY_DECAY
        state.reliability.mul_(decay).add_(state.new_reliability)
        state.clear('new_reliability')
        table = calibration_table(
            state.reliability, state.groups, cfg['calibration'], bool(self.held_out)
        )
        state.calibration.copy_(table)
        # Held-out images see by how much; on those that it trains on the teacher is too good.
        blind = cfg['calibration'] != 'none' and not self.held_out
        smoothing = smoothing_of(self.teacher.roi_head) if blind else 0.0
        state.confidence_gain.fill_(1 / (1 - smoothing))
        if cfg['student_correction']:
            sum_over_ranks(state.offset_counts)
            expected, observed = state.offset_counts
            step = student_offsets(expected, observed, state.groups)
            state.offsets.add_(step).clamp_(-MAX_OFFSET, MAX_OFFSET)
        state.clear('offset_counts')
        count, correct, confidence = state.reliability.sum((1, 2)).tolist()
        if count:
            # The student trains on the labelled batch, so the teacher's precision is optimistic.
            source, note = ('held-out', '') if self.held_out else ('labelled', ' (optimistic)')
            MMLogger.get_current_instance().info(
                f'calibration on {count:.0f} detections of {source} images: score '
                f'{confidence / count:.3f}, precision {correct / count:.3f}{note}; largest '
                f'offset {float(state.offsets.abs().max()):.2f}'
            )

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        check_head(state_dict, self.state_dict(), prefix, 'checkpoint')
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        head = f'{prefix}teacher.roi_head.bbox_head.'
        self._teacher_loaded |= any(name.startswith(head) for name in state_dict)
        self._state_loaded = True
        self._iter = int(self.num_iters)
