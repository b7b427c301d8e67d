"""A box head whose classification targets lean toward similar classes.

Shape legend: N RoIs, C foreground classes (background has index C), D penultimate feature
size.
"""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
from mmdet.models.losses import accuracy
from mmdet.models.roi_heads.bbox_heads import BBoxHead, Shared2FCBBoxHead
from mmdet.registry import MODELS as MMDET_MODELS
from torch import Tensor

from mmdet_softpl.checks import check_choice, check_range
from mmdet_softpl.config_file import seesaw_classes
from mmdet_softpl.functional import (
    SmoothingTable,
    own_coefficients,
    seesaw_excess,
    smoothing_table,
    soft_cross_entropy,
    sparse_cross_entropy,
)
from mmdet_softpl.models.class_logits import (
    check_cross_entropy,
    class_logits,
    has_objectness,
    objectness_accuracy,
)
from mmdet_softpl.models.learned_similarity import LearnedSimilarity
from mmdet_softpl.registry import MODELS

SMOOTHING_MODES = ('similarity', 'uniform', 'file', 'confusion', 'none')


@MMDET_MODELS.register_module()
@MODELS.register_module()
class SmoothedCEHead(LearnedSimilarity, Shared2FCBBoxHead):
    r"""``Shared2FCBBoxHead`` with class-similarity label smoothing.

    A foreground RoI of class y has the target
    :math:`(1 - \epsilon)\,\mathrm{onehot}(y) + \epsilon\,Q[y]`, where Q is a sparse
    row-stochastic similarity of classes; background RoIs stay one-hot. The idea of targets
    that follow class similarity: Liu & JaJa, arXiv 2006.14028, and arXiv 2403.11675; the
    formulas are in ``mmdet_softpl.functional.smoothing`` and ``.similarity``.

    With ``smoothing=0`` or ``smoothing_mode='none'`` the class loss is the host's own.

    With mmdet's ``SeesawLoss`` (arXiv 2008.10032) the part of the target that stays with the label
    has Seesaw's factors, and the part that goes to neighbours is plain cross entropy: Seesaw's
    compensation would punish the label for being surer than its neighbours. Targets (N, C+1),
    which come from a teacher with its own balance of classes, are plain cross entropy throughout.
    Under an ``OHEMSampler`` it must smooth: mmdet's sampler does not know Seesaw's names.

    In training every hard-labelled call of ``loss`` feeds the prototypes. Inside mmdet's own
    ``SoftTeacher`` that includes its pseudo-labelled RoIs (three calls an iteration, so warm-up
    and refreshes come three times as early); ``CalibratedSoftTeacher`` feeds labelled ones alone.

    Args:
        smoothing: Strength :math:`\epsilon` in [0, 1).
        smoothing_mode: ``'similarity'`` (cosine of class prototypes kept from the labelled
            positives), ``'uniform'``, ``'file'`` (see ``similarity_file``), ``'confusion'``
            (what the head itself confuses), or ``'none'``.
        temperature: Softmax temperature of the similarity, > 0. 1.0 is uniform smoothing in
            all but name. Of ``'similarity'`` and ``'file'`` alone.
        topk: Neighbours kept for each class, >= 1.
        similarity_file: For ``'file'``: a ``.npy``, ``.npz`` or ``.pt`` file with an array
            (C, D) of class embeddings or (C, C) of similarities (where they are not symmetric
            or D = C, an ``.npz`` that names it ``embeddings`` or ``similarities``), or what
            ``python -m mmdet_softpl similarity`` writes, which is taken as it is. Testing does
            without it.
        max_inflow: Upper bound of the smoothed target mass that flows into a class, in units
            of the class's own positives, so that frequent neighbours cannot drown a class
            of five instances. > 0; a large number is no bound. Of ``'similarity'`` alone.
        warmup_iters: Smoothing is 0 for that many iterations and grows linearly to
            ``smoothing`` over as many again. >= 0.
        refresh_interval: Iterations between two updates of prototypes and similarity, the
            only time that ranks exchange anything. >= 1.
        *args, **kwargs: Those of ``mmdet.Shared2FCBBoxHead``.

    Raises:
        ValueError: For a value outside its range, an unknown mode (the known ones are
            listed), a similarity file that does not fit ``num_classes``, a ``loss_cls``
            that is neither a softmax cross entropy without class weights nor a ``SeesawLoss`` of as
            many classes, or ``'confusion'`` with more than 4,096 classes.
        FileNotFoundError: By ``train``, for a similarity file that does not exist.
    """

    def __init__(
        self,
        *args,
        smoothing: float = 0.1,
        smoothing_mode: str = 'similarity',
        temperature: float = 0.1,
        topk: int = 16,
        similarity_file: str | None = None,
        max_inflow: float = 1.0,
        warmup_iters: int = 500,
        refresh_interval: int = 100,
        **kwargs,
    ) -> None:
        owner = type(self).__name__
        _check_loss_classes(owner, kwargs)
        super().__init__(*args, **kwargs)
        check_choice(owner, 'smoothing_mode', smoothing_mode, SMOOTHING_MODES)
        check_range(owner, 'smoothing', smoothing, 0, 1, include_upper=False)
        check_range(owner, 'temperature', temperature, 0, None, include_lower=False)
        check_range(owner, 'topk', topk, 1, None, whole=True)
        check_range(owner, 'max_inflow', max_inflow, 0, None, include_lower=False)
        check_range(owner, 'warmup_iters', warmup_iters, 0, None, whole=True)
        check_range(owner, 'refresh_interval', refresh_interval, 1, None, whole=True)
        self.smoothing = float(smoothing)
        self.smoothing_mode = smoothing_mode
        self.temperature = temperature
        # A column for each other class, and one for what a class gives back to itself.
        self.topk = min(topk, self.num_classes)
        self.max_inflow = max_inflow
        self.warmup_iters = warmup_iters
        self.refresh_interval = refresh_interval
        if self.smooths and not has_objectness(self):
            check_cross_entropy(
                self.loss_cls,
                owner,
                'smoothing',
                'is not supported with smoothing',
                ' or set smoothing=0',
            )

        self._features: Tensor | None = None
        self._table: SmoothingTable | None = None
        self._table_of: tuple = ()
        self._uniform_rows = True
        if self.smooths:
            self.init_similarity(self.cls_last_dim, similarity_file)

    @property
    def smooths(self) -> bool:
        """Whether the targets differ from the host's."""
        return self.smoothing > 0 and self.smoothing_mode != 'none'

    @property
    def keeps_prototypes(self) -> bool:
        """Whether the head has the buffers ``prototypes`` (C, D), ``prototype_counts`` (C,)."""
        return self.smooths and self.smoothing_mode == 'similarity'

    @property
    def penultimate_features(self) -> Tensor | None:
        """(N, D) inputs of ``fc_cls`` in the last forward pass, detached."""
        return self._features

    def current_smoothing(self) -> float:
        """The ramped strength in [0, ``smoothing``] at this iteration."""
        if self.warmup_iters == 0:
            return self.smoothing
        ramp = (self._iter - self.warmup_iters) / self.warmup_iters
        return self.smoothing * min(max(ramp, 0.0), 1.0)

    def _target_table(self) -> SmoothingTable:
        """Targets of all classes, made anew when the strength or the similarity has changed."""
        parts = (self.similarity_indices, self.similarity_weights)
        similarity = (*map(id, parts), *(part._version for part in parts))
        if similarity != self._table_of[1:]:
            # Waits for the device: once a refresh, while the strength may ramp every iteration.
            self._uniform_rows = bool((self.similarity_weights.sum(dim=1) == 0).any())
        state = (self.current_smoothing(), *similarity)
        if self._table is None or state != self._table_of:
            epsilon = torch.full_like(self.similarity_weights[:, 0], state[0])
            self._table = smoothing_table(epsilon, self.similarity, self._uniform_rows)
            self._table_of = state
        return self._table

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Host's forward of two shared layers, keeping the penultimate feature.

        Args:
            x: RoI features (N, in_channels, h, w).

        Returns:
            ``cls_score`` (N, C+1) logits, with ``SeesawLoss`` (N, C+2), and ``bbox_pred``
            (N, 4 * C or 4) deltas.
        """
        if self.with_avg_pool:
            x = self.avg_pool(x)
        x = x.flatten(1)
        for fc in self.shared_fcs:
            x = self.relu(fc(x))
        self._features = x.detach()
        return self.fc_cls(x), self.fc_reg(x) if self.with_reg else None

    def loss(
        self,
        cls_score: Tensor | None,
        bbox_pred: Tensor | None,
        rois: Tensor,
        labels: Tensor,
        label_weights: Tensor,
        bbox_targets: Tensor,
        bbox_weights: Tensor,
        reduction_override: str | None = None,
    ) -> dict[str, Tensor]:
        """Host's ``loss`` with smoothed or given soft targets.

        Args:
            cls_score: Logits (N, C+1), with ``SeesawLoss`` (N, C+2), or None to get the box loss
                alone.
            bbox_pred: Deltas (N, 4 * C or 4) or None.
            rois: (N, 5).
            labels: (N,) in [0, C], or soft targets (N, C+1) whose rows sum to 1, which are
                used as they are (neither smoothed nor counted in the prototypes).
            label_weights: (N,) weights >= 0.
            bbox_targets: (N, 4).
            bbox_weights: (N, 4).
            reduction_override: As in the host.

        Returns:
            ``loss_cls``, ``acc`` and ``loss_bbox``; ``loss_cls`` also where N is 0. With
            ``SeesawLoss`` ``acc_objectness`` and ``acc_classes``, and where nothing smooths mmdet's
            ``loss_cls_objectness`` and ``loss_cls_classes``.
        """
        soft = labels.dim() == 2
        targets = labels
        if soft:
            labels = targets.argmax(1)
        losses: dict[str, Tensor] = {}
        if cls_score is not None:
            if soft:
                raw = soft_cross_entropy(class_logits(self, cls_score), targets)
            elif self.smooths:
                # Without gradients it is a sampler's question (OHEM), not a training step.
                if self.training and torch.is_grad_enabled():
                    self._observe(cls_score, labels)
                raw = self._smoothed_loss(cls_score, labels)
            else:
                raw = None
            if raw is None and len(labels):
                # The host's own class loss, whatever it is.
                losses.update(
                    super().loss(
                        cls_score,
                        None,
                        rois,
                        labels,
                        label_weights,
                        bbox_targets,
                        bbox_weights,
                        reduction_override,
                    )
                )
            else:
                # Without a RoI the host returns no loss_cls and its callers fail on it.
                raw = cls_score.sum(1) * 0 if raw is None else raw
                losses['loss_cls'] = self._reduce(raw, label_weights, reduction_override)
                losses.update(self._accuracy(cls_score, labels))
        if bbox_pred is not None:
            losses.update(
                super().loss(
                    None,
                    bbox_pred,
                    rois,
                    labels,
                    label_weights,
                    bbox_targets,
                    bbox_weights,
                    reduction_override,
                )
            )
        return losses

    def _smoothed_loss(self, cls_score: Tensor, labels: Tensor) -> Tensor:
        table = self._target_table()
        if not has_objectness(self):
            return sparse_cross_entropy(cls_score, labels, table)
        loss = self.loss_cls
        excess = seesaw_excess(
            cls_score, labels, loss.cum_samples[: self.num_classes], loss.p, loss.q, loss.eps
        )
        raw = sparse_cross_entropy(class_logits(self, cls_score), labels, table)
        return raw + own_coefficients(table)[labels] * excess

    def _accuracy(self, cls_score: Tensor, labels: Tensor) -> dict[str, Tensor]:
        if has_objectness(self):
            return objectness_accuracy(cls_score, labels)
        return {'acc': accuracy(cls_score, labels) if len(labels) else cls_score.new_zeros(1)}

    def _reduce(self, raw: Tensor, weights: Tensor, reduction_override: str | None) -> Tensor:
        weighted = self.loss_cls.loss_weight * raw * weights
        reduction = reduction_override or self.loss_cls.reduction
        if reduction == 'none':
            return weighted
        if reduction == 'sum':
            return weighted.sum()
        return weighted.sum() / (weights > 0).sum().clamp(min=1)

    @torch.no_grad()
    def _observe(self, cls_score: Tensor, labels: Tensor) -> None:
        if has_objectness(self):
            # Its own forward pass, which counts, is not called. Ones alone would stop at 2^24.
            seen = torch.zeros_like(self.loss_cls.cum_samples)
            self.loss_cls.cum_samples += seen.index_add_(0, labels, torch.ones_like(labels).float())
        self.observe_classes(self._features, cls_score, labels)
        if self.keeps_prototypes:
            self._features = None


def _check_loss_classes(owner: str, kwargs: dict[str, Any]) -> None:
    """Say what to set where the host would stop at an assertion without a word."""
    theirs = seesaw_classes(kwargs.get('loss_cls') or {})
    num_classes = kwargs.get('num_classes', signature(BBoxHead).parameters['num_classes'].default)
    if theirs is not None and theirs != num_classes:
        raise ValueError(
            f'{owner}: loss_cls=SeesawLoss has num_classes={theirs}, the head has {num_classes}; '
            f'set loss_cls.num_classes={num_classes}.'
        )
