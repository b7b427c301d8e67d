"""A box head whose classification targets lean toward similar classes.

Shape legend: N RoIs, C foreground classes (background has index C), D penultimate feature
size, k kept neighbours of a class.
"""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.losses import accuracy
from mmdet.models.roi_heads.bbox_heads import BBoxHead, Shared2FCBBoxHead
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.dist import get_rank
from mmengine.logging import MMLogger
from torch import Tensor

from mmdet_softpl.checks import check_choice, check_range
from mmdet_softpl.config_file import seesaw_classes
from mmdet_softpl.functional import (
    ClassSimilarity,
    SmoothingTable,
    cap_inflow,
    effective_neighbours,
    own_coefficients,
    seesaw_excess,
    similarity_from_confusion,
    similarity_from_prototypes,
    smoothing_table,
    soft_cross_entropy,
    sparse_cross_entropy,
    sum_features,
    update_prototypes,
)
from mmdet_softpl.models.class_logits import (
    check_cross_entropy,
    class_logits,
    has_objectness,
    objectness_accuracy,
)
from mmdet_softpl.models.similarity_file import read_similarity
from mmdet_softpl.ranks import sum_over_ranks
from mmdet_softpl.registry import MODELS

SMOOTHING_MODES = ('similarity', 'uniform', 'file', 'confusion', 'none')
# Two dense (C, C) matrices of 4,096 classes take 128 MB in each of teacher and student.
MAX_CONFUSION_CLASSES = 4096


@MMDET_MODELS.register_module()
@MODELS.register_module()
class SmoothedCEHead(Shared2FCBBoxHead):
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
            (C, D) of class embeddings or (C, C) of similarities, or what
            ``python -m mmdet_softpl similarity`` writes, which is taken as it is.
        max_inflow: Upper bound of the smoothed target mass that flows into a class, in units
            of the class's own positives, so that frequent neighbours cannot drown a class
            of five instances. > 0. Of ``'similarity'`` alone.
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
        FileNotFoundError: For a similarity file that does not exist.
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

        c, k = self.num_classes, self.topk
        self._iter = 0
        self._features: Tensor | None = None
        self._table: SmoothingTable | None = None
        self._table_of: tuple = ()
        self._uniform_rows = True
        if not self.smooths:
            return
        self.register_buffer('num_iters', torch.zeros((), dtype=torch.long))
        # Uniform rows and those of a file come from the config, not from a checkpoint that may
        # be of another mode.
        learned = smoothing_mode in ('similarity', 'confusion')
        indices = torch.zeros(c, k, dtype=torch.long)
        self.register_buffer('similarity_indices', indices, persistent=learned)
        self.register_buffer('similarity_weights', torch.zeros(c, k), persistent=learned)
        if self.keeps_prototypes:
            self.register_buffer('prototypes', torch.zeros(c, self.cls_last_dim))
            self.register_buffer('prototype_counts', torch.zeros(c))
            self.register_buffer('feature_sums', torch.zeros(c, self.cls_last_dim))
            self.register_buffer('feature_counts', torch.zeros(c))
        elif smoothing_mode == 'confusion':
            if c > MAX_CONFUSION_CLASSES:
                raise ValueError(
                    f"{owner}: smoothing_mode='confusion' keeps a dense matrix and takes at most "
                    f"{MAX_CONFUSION_CLASSES} classes, got num_classes={c}; use 'similarity'."
                )
            self.register_buffer('confusion', torch.zeros(c, c))
            self.register_buffer('confusion_sums', torch.zeros(c, c))
            self.register_buffer('feature_counts', torch.zeros(c))
        elif smoothing_mode == 'file':
            self._set_similarity(read_similarity(similarity_file, c, self.topk, temperature))

    @property
    def smooths(self) -> bool:
        """Whether the targets differ from the host's."""
        return self.smoothing > 0 and self.smoothing_mode != 'none'

    @property
    def keeps_prototypes(self) -> bool:
        """Whether the head has the buffers ``prototypes`` (C, D), ``prototype_counts`` (C,)."""
        return self.smooths and self.smoothing_mode == 'similarity'

    @property
    def similarity(self) -> ClassSimilarity:
        """The similarity in force; rows of zeros stand for uniform ones."""
        return ClassSimilarity(self.similarity_indices, self.similarity_weights)

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
        """Add this batch to the statistics; refresh the similarity when it is due."""
        if has_objectness(self):
            # Its own forward pass, which counts, is not called. Ones alone would stop at 2^24.
            seen = torch.zeros_like(self.loss_cls.cum_samples)
            self.loss_cls.cum_samples += seen.index_add_(0, labels, torch.ones_like(labels).float())
        if self.keeps_prototypes and self._features is not None:
            if len(self._features) == len(labels):
                sums, counts = sum_features(self._features, labels, self.num_classes)
                self.feature_sums += sums
                self.feature_counts += counts
            self._features = None
        elif self.smoothing_mode == 'confusion':
            foreground = cls_score[:, : self.num_classes].float().softmax(1)
            sums, counts = sum_features(foreground, labels, self.num_classes)
            self.confusion_sums += sums
            self.feature_counts += counts
        self._iter += 1
        self.num_iters += 1
        if self._iter % self.refresh_interval == 0:
            self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Fold the statistics of all ranks into prototypes and similarity.

        Every rank must call it at the same time; ``loss`` does so every
        ``refresh_interval`` calls, with or without positives on a rank.
        """
        if self.smoothing_mode == 'similarity':
            sum_over_ranks(self.feature_sums, self.feature_counts)
            prototypes, counts = update_prototypes(
                self.prototypes,
                self.prototype_counts,
                self.feature_sums,
                self.feature_counts,
            )
            self.prototypes.copy_(prototypes)
            self.prototype_counts.copy_(counts)
            self.feature_sums.zero_()
            self.feature_counts.zero_()
            similarity = similarity_from_prototypes(
                self.prototypes, self.prototype_counts, self.topk, self.temperature
            )
            similarity, inflow = cap_inflow(
                similarity,
                self.prototype_counts,
                max_inflow=self.max_inflow / self.smoothing,
                topk=self.topk,
            )
            MMLogger.get_current_instance().debug(
                'class similarity: %.1f effective neighbours, largest inflow %.2f',
                effective_neighbours(similarity).mean(),
                self.smoothing * inflow.max(),
            )
        elif self.smoothing_mode == 'confusion':
            sum_over_ranks(self.confusion_sums, self.feature_counts)
            # The head changes, so what it confused 1,000 refreshes ago should fade.
            self.confusion.mul_(0.9).add_(self.confusion_sums)
            self.confusion_sums.zero_()
            self.feature_counts.zero_()
            similarity = similarity_from_confusion(self.confusion, self.topk)
        else:
            return
        self._set_similarity(similarity)

    def _set_similarity(self, similarity: ClassSimilarity) -> None:
        k = similarity.indices.shape[1]
        self.similarity_indices.zero_()[:, :k] = similarity.indices
        self.similarity_weights.zero_()[:, :k] = similarity.weights

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        # That of another ``topk`` is no reason to refuse weights that fit. Columns that are missing
        # say nothing; of too many, the next refresh makes it anew.
        for name in ('similarity_indices', 'similarity_weights') if self.smooths else ():
            saved, own = state_dict.get(prefix + name), getattr(self, name)
            if saved is not None and saved.shape[1] != own.shape[1]:
                missing = own.shape[1] - saved.shape[1]
                state_dict[prefix + name] = F.pad(saved, (0, missing)) if missing > 0 else own
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if not self.smooths:
            return
        self._iter = int(self.num_iters)
        # A checkpoint holds rank 0's share of what was seen since the last refresh.
        if get_rank() > 0:
            for name in ('feature_sums', 'feature_counts', 'confusion_sums'):
                if hasattr(self, name):
                    getattr(self, name).zero_()


def _check_loss_classes(owner: str, kwargs: dict[str, Any]) -> None:
    """Say what to set where the host would stop at an assertion without a word."""
    theirs = seesaw_classes(kwargs.get('loss_cls') or {})
    num_classes = kwargs.get('num_classes', signature(BBoxHead).parameters['num_classes'].default)
    if theirs is not None and theirs != num_classes:
        raise ValueError(
            f'{owner}: loss_cls=SeesawLoss has num_classes={theirs}, the head has {num_classes}; '
            f'set loss_cls.num_classes={num_classes}.'
        )
