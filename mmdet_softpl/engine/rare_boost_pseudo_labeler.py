"""Rare-class boost and per-class thresholds, refreshed from what the teacher sees.

Shape legend: C foreground classes, S score bins, G = 3 frequency groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import HOOKS as MMDET_HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from mmdet_softpl.atomic_json import write_json
from mmdet_softpl.checks import check_range
from mmdet_softpl.datasets.annotation_checks import check_num_classes
from mmdet_softpl.datasets.class_statistics import ClassStatistics, class_statistics
from mmdet_softpl.engine.audit import build_audit
from mmdet_softpl.engine.data_checks import check_datasets
from mmdet_softpl.engine.federated_checks import learn_federated_images
from mmdet_softpl.engine.fresh_labelling import forget_labelling
from mmdet_softpl.engine.host_adapter import HostLabeling
from mmdet_softpl.engine.label_refresh import forget_teacher, new_history, refresh_labels
from mmdet_softpl.engine.labeller_checks import (
    check_alignment,
    check_mean_teacher,
    check_prototypes,
)
from mmdet_softpl.engine.refresh_records import refresh_scalars, write_refresh
from mmdet_softpl.engine.refresh_schedule import is_due
from mmdet_softpl.engine.reported_annotations import reported_annotations
from mmdet_softpl.engine.runner_model import model_of
from mmdet_softpl.engine.trained_instances import check_trained_instances
from mmdet_softpl.engine.training_sets import keeps_empty_images, labelled_files, training_classes
from mmdet_softpl.models.class_state import ClassState
from mmdet_softpl.models.label_policy import LabelPolicy, by_group
from mmdet_softpl.ranks import sum_over_ranks
from mmdet_softpl.registry import HOOKS
from mmdet_softpl.run_records import AUDIT_FILE, PSEUDO_LABELS_FILE
from mmdet_softpl.same_path import same_path

CHECKPOINT_KEY = 'rare_boost_pseudo_labeler'


@MMDET_HOOKS.register_module()
@HOOKS.register_module()
class RareBoostPseudoLabeler(Hook):
    """Boosts rare classes in the teacher's scores and sets a threshold for every class.

    On ``CalibratedSoftTeacher`` it sets the buffers of ``class_state``. On mmdet's
    ``SoftTeacher`` and ``SemiBaseDetector`` it re-scores the teacher's instances during
    labelling so that their one scalar threshold acts per class (see ``HostLabeling``);
    prototype evidence needs the full score vectors and works on ours alone.

    Args:
        labeled_ann_file: COCO or LVIS json of the labelled set, source of the frequencies
            (counted; the groups are LVIS's ``frequency`` where its ``image_count`` is right).
        boost_gamma: Exponent of the boost ``(t / m_c) ** gamma``, >= 0; 0 for none.
        max_boost: Upper bound of the boost by frequency, >= 1; ``align_rate`` may go on to 50.
        prototype_weight: Weight in [0, 1] of the prototype evidence for rare, common and
            frequent classes (one number for all three), where the teacher's head keeps
            prototypes. Tail classes trust prototypes, head classes the classifier (DASO).
        threshold_mode: ``'prior'`` (the score at which a class would get ``alpha`` times its
            labelled rate; LabelMatch), ``'curriculum'`` (FlexMatch relative to the expected
            rate), ``'quantile'`` (CascadeMatch) or ``'fixed'``.
        fixed_thr: Threshold of mode ``'fixed'``, and until there are enough scores. [0, 1].
        alpha: Of mode ``'prior'``, > 0.
        quantile: Of mode ``'quantile'``, in [0, 1].
        thr_range: Lower and upper bound of what a refresh aims at, in [0, 1]; thresholds move
            there from ``fixed_thr``.
        min_count: Detections that a class needs for a threshold of its own, >= 1; with fewer
            it takes its group's.
        damp_factor: A class that is kept at more than this multiple of its labelled rate,
            > 0, for ``damp_patience`` refreshes in a row loses boost, then gains threshold.
        damp_patience: >= 1.
        align_rate: In [0, 1], how fast boosts follow the soft labels of all objects so that
            every class gets its labelled share times its frequency boost, no more and no less
            (``align_boosts``); 0 leaves the boosts as they are. Of ``CalibratedSoftTeacher`` with
            ``label_mode='soft'`` alone: others have no soft labels.
        interval: Iterations between two refreshes, >= 1. The first ones come after 1/8, 1/4
            and 1/2 of it. Ranks sum their statistics at a refresh and at no other time.

    After training ``pseudo_label_audit.json`` in the work directory says what every class got;
    what every refresh did is in ``TIMESTAMP/pseudo_labels.jsonl`` there (``run_records``).

    Raises:
        ValueError: At construction, for a value out of its range or an unknown mode; before
            training, for data sets that do not fit each other or the model, or a
            ``semi_train_cfg`` of mmdet's without ``cls_pseudo_thr``.
        AnnotationError: At construction, for a labelled file that cannot be used.
        FileNotFoundError: At construction, if there is none.
        TypeError: Before training, for a model that is no semi-supervised detector.
    """

    def __init__(
        self,
        labeled_ann_file: str,
        boost_gamma: float = 0.5,
        max_boost: float = 4.0,
        prototype_weight: float | Sequence[float] = (1.0, 0.5, 0.0),
        threshold_mode: str = 'prior',
        fixed_thr: float = 0.7,
        alpha: float = 0.2,
        quantile: float = 0.5,
        thr_range: tuple[float, float] = (0.3, 0.9),
        min_count: int = 20,
        damp_factor: float = 2.0,
        damp_patience: int = 3,
        align_rate: float = 0.5,
        interval: int = 500,
    ) -> None:
        owner = type(self).__name__
        self.policy = LabelPolicy(
            boost_gamma=boost_gamma,
            max_boost=max_boost,
            prototype_weight=by_group(prototype_weight),
            threshold_mode=threshold_mode,
            fixed_thr=fixed_thr,
            alpha=alpha,
            quantile=quantile,
            thr_range=thr_range,
            min_count=min_count,
            align_rate=align_rate,
        )
        check_range(owner, 'damp_factor', damp_factor, 0, None, include_lower=False)
        check_range(owner, 'damp_patience', damp_patience, 1, None, whole=True)
        check_range(owner, 'interval', interval, 1, None, whole=True)
        self.labeled_ann_file = labeled_ann_file
        self.damp_factor = damp_factor
        self.damp_patience = damp_patience
        self.interval = interval

        if not Path(labeled_ann_file).is_file():
            raise FileNotFoundError(
                f'{owner}: labeled_ann_file={labeled_ann_file!r} does not exist; it is taken as it '
                'is, not joined to the data_root of a data set. To test a checkpoint without it, '
                'add --cfg-options custom_hooks=[].'
            )
        self._read_statistics(None)
        self._iter = 0
        self._start_iter = 0
        self._host: HostLabeling | None = None
        self._on_ours = False
        self._resumed: dict | None = None

    def _read_statistics(self, classes: Sequence[str] | None) -> None:
        """Statistics of the labelled file (of ``classes`` alone, if given), and empty state."""
        self.summary = reported_annotations(self.labeled_ann_file, classes)
        self.statistics: ClassStatistics = class_statistics(self.summary)
        num_classes = len(self.statistics.classes)
        self.class_state = ClassState(num_classes, self.policy.fixed_thr)
        # Of the last refresh.
        self.kept_per_image = torch.zeros(num_classes)
        self.num_images = 0.0
        # Of the hook itself, saved under CHECKPOINT_KEY.
        self.history = new_history(num_classes)

    def _image_counts(self) -> Tensor:
        return torch.as_tensor(self.statistics.image_counts, dtype=torch.long)

    @property
    def labelled_rate(self) -> Tensor:
        """(C,) labelled instances per labelled image."""
        return torch.as_tensor(self.statistics.labelled_rate(), dtype=torch.float32)

    def before_train(self, runner: Runner) -> None:
        """Check data and model; set the boosts where training starts anew."""
        self._start_iter = runner.iter
        check_datasets(runner)
        files = labelled_files(runner)
        if files and not any(same_path(file, self.labeled_ann_file) for file in files):
            runner.logger.warning(
                f'RareBoostPseudoLabeler: labeled_ann_file={self.labeled_ann_file!r} is not what '
                f'the student trains on ({", ".join(files)}); frequencies come from the former.'
            )
        classes = training_classes(runner)
        if classes is not None and tuple(classes) != self.summary.classes:
            self._read_statistics(classes)
        check_trained_instances(runner, self.summary)
        keeps_empty = keeps_empty_images(runner, self.labeled_ann_file)
        self.statistics = replace(self.statistics, keeps_empty=keeps_empty)
        model = model_of(runner)
        state = getattr(model, 'class_state', None)
        if isinstance(state, ClassState):
            self._on_ours = True
            check_num_classes(self.summary, state.num_classes)
            self.class_state = state
            model.has_labeller = True
            learn_federated_images(runner, self.summary)
            policy = self.policy
            if policy.align_rate and bool((policy.frequency_boosts(self.statistics) > 1).any()):
                check_alignment(runner, model, policy.max_boost)
            check_prototypes(runner, model, policy.prototype_weight)
            check_mean_teacher(runner, model, policy.prototype_weight)
        else:
            device = next(model.parameters()).device
            self.class_state.to(device)
            self._host = HostLabeling(model, self.class_state)
            self._host.attach()
        if self._resumed is not None:
            self._take_up(self._resumed, runner)
        device = self.class_state.boosts.device
        self.history = {key: value.to(device) for key, value in self.history.items()}
        self._iter = int(self.history['num_iters'])
        if self._iter == 0:
            # Also after load_from of one of our checkpoints, which may be of another labelled set.
            self.policy.set_initial(self.class_state, self.statistics)
        else:
            self.policy.set_groups(self.class_state, self.statistics)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Refresh when it is due; iterations without unlabelled images do not count."""
        model = model_of(runner)
        if getattr(model, 'unsup_scale', 1.0) == 0:
            return
        self._iter += 1
        self.history['num_iters'] += 1
        if is_due(self._iter, self.interval):
            self.refresh()
            self._record(runner)

    def forget_teacher(self) -> None:
        """Drop what was seen of a teacher that is no more; the audit's sums stay.

        Every rank must call it at the same time.
        """
        forget_teacher(self.class_state, self.history)

    def refresh(self) -> None:
        """Thresholds, damping and boosts from the statistics of all ranks.

        Every rank must call it at the same time.
        """
        self.num_images, self.kept_per_image = refresh_labels(
            self.class_state,
            self.history,
            self.policy,
            self.labelled_rate,
            damp_factor=self.damp_factor,
            damp_patience=self.damp_patience,
            federated=self.summary.federated,
            partial=self.summary.partial,
        )

    def _record(self, runner: Runner) -> None:
        """Write down what the refresh did."""
        scalars = refresh_scalars(self.class_state, self.kept_per_image, self.history['total_kept'])
        runner.visualizer.add_scalars(scalars, step=runner.iter + 1)
        runner.logger.info(
            'pseudo-labels: '
            + '  '.join(f'{key.split("/", 1)[1]} {value:.3g}' for key, value in scalars.items())
        )
        if is_main_process():
            write_refresh(
                Path(runner.log_dir) / PSEUDO_LABELS_FILE,
                self.class_state,
                head=dict(start_iter=self._start_iter, classes=self.statistics.classes),
                iteration=runner.iter + 1,
                num_images=self.num_images,
                kept_per_image=self.kept_per_image,
                labelled_rate=self.labelled_rate,
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the hook's own state (plain tensors)."""
        saved: dict[str, Any] = {key: value.cpu() for key, value in self.history.items()}
        saved['image_counts'] = self._image_counts()
        if not self._on_ours:
            saved['class_state'] = {k: v.cpu() for k, v in self.class_state.state_dict().items()}
        checkpoint[CHECKPOINT_KEY] = saved

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember the state on a resume; weights alone bring none."""
        forget_labelling(runner, checkpoint)
        if runner._resume:
            self._resumed = checkpoint.get(CHECKPOINT_KEY)

    def _take_up(self, saved: dict, runner: Runner) -> None:
        saved = dict(saved)
        before, now = saved.pop('image_counts').cpu(), self._image_counts()
        own = saved.pop('class_state', None)
        if len(saved['strikes']) != self.class_state.num_classes:
            raise ValueError(
                f'RareBoostPseudoLabeler: the checkpoint holds {len(saved["strikes"])} classes, '
                f'{self.labeled_ann_file} has {self.class_state.num_classes}; resume with the '
                'labelled file of that run.'
            )
        if not torch.equal(before, now):
            index = int((before != now).nonzero()[0])
            runner.logger.warning(
                f'RareBoostPseudoLabeler: {self.labeled_ann_file} is not the labelled file of the '
                f'checkpoint: class {self.statistics.classes[index]!r} had {int(before[index])} '
                f'labelled images, now {int(now[index])}. Boosts and thresholds go on from the '
                'checkpoint; start anew with load_from instead of resume to set them again.'
            )
        self.history = saved
        if own is not None:
            self.class_state.load_state_dict(own)

    def after_train(self, runner: Runner) -> None:
        """Fold in what was seen since the last refresh and write the audit."""
        state, past = self.class_state, self.history
        kept, images = state.kept.clone(), state.num_images.clone()
        sum_over_ranks(kept, images)
        if self._host is not None:
            self._host.detach()
        if not is_main_process():
            return
        audit = build_audit(
            self.statistics,
            state,
            total_kept=past['total_kept'] + kept,
            total_images=float(past['total_images'] + images),
            damped=past['damped'],
            labelled_rate=self.labelled_rate,
            labeled_ann_file=self.labeled_ann_file,
        )
        # Another training may be started in the same folder, or this one extended.
        origin = dict(timestamp=runner.timestamp, iteration=runner.iter)
        path = Path(runner.work_dir) / AUDIT_FILE
        write_json(path, origin | audit, indent=1)
        runner.logger.info(f'pseudo-label audit: {path}')
