"""Which classes are alike, as a box head learns it from what it sees in training.

Shape legend: N RoIs, C foreground classes (background has index C), D penultimate feature
size, k kept neighbours of a class.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.dist import get_rank
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from torch import Tensor

from mmdet_softpl.functional import (
    ClassSimilarity,
    cap_inflow,
    effective_neighbours,
    similarity_from_confusion,
    similarity_from_prototypes,
    sum_features,
    update_prototypes,
)
from mmdet_softpl.models.similarity_file import read_similarity
from mmdet_softpl.ranks import sum_over_ranks

# Two dense (C, C) matrices of 4,096 classes take 128 MB in each of teacher and student.
MAX_CONFUSION_CLASSES = 4096


class LearnedSimilarity(BaseModule):
    """Mixin of a box head that smooths: its class similarity, and the statistics behind it.

    Attributes:
        num_classes: C.
        smoothing, smoothing_mode, temperature, topk, max_inflow, refresh_interval: Those of
            ``SmoothedCEHead``.
        num_iters: Batches observed, ().
        similarity_indices, similarity_weights: (C, k), the similarity in force.
        prototypes, prototype_counts: (C, D) and (C,), of mode ``'similarity'``.
        confusion: (C, C), of mode ``'confusion'``.
        feature_sums, feature_counts, confusion_sums: This rank's, since the last refresh.
    """

    num_classes: int
    smoothing: float
    smoothing_mode: str
    temperature: float
    topk: int
    max_inflow: float
    refresh_interval: int
    _iter: int = 0
    _absent_file: str | None = None

    num_iters: Tensor
    similarity_indices: Tensor
    similarity_weights: Tensor
    prototypes: Tensor
    prototype_counts: Tensor
    confusion: Tensor
    feature_sums: Tensor
    feature_counts: Tensor
    confusion_sums: Tensor

    def init_similarity(self, feature_size: int, similarity_file: str | None) -> None:
        """Register the buffers of the mode: that of a file, or uniform until something is learnt.

        The settings among the attributes must be there already.

        Args:
            feature_size: D.
            similarity_file: Of mode ``'file'``. One that does not exist is missed by ``train``
                alone: a trained detector labels and detects without it.

        Raises:
            ValueError: The file does not fit, or ``'confusion'`` has too many classes.
        """
        c, k, d = self.num_classes, self.topk, feature_size
        self.register_buffer('num_iters', torch.zeros((), dtype=torch.long))
        # Uniform rows and those of a file come from the config, not from a checkpoint that may
        # be of another mode.
        learned = self.smoothing_mode in ('similarity', 'confusion')
        indices = torch.zeros(c, k, dtype=torch.long)
        self.register_buffer('similarity_indices', indices, persistent=learned)
        self.register_buffer('similarity_weights', torch.zeros(c, k), persistent=learned)
        if self.smoothing_mode == 'similarity':
            self.register_buffer('prototypes', torch.zeros(c, d))
            self.register_buffer('prototype_counts', torch.zeros(c))
            self.register_buffer('feature_sums', torch.zeros(c, d))
            self.register_buffer('feature_counts', torch.zeros(c))
        elif self.smoothing_mode == 'confusion':
            if c > MAX_CONFUSION_CLASSES:
                raise ValueError(
                    f"{type(self).__name__}: smoothing_mode='confusion' keeps a dense matrix and "
                    f'takes at most {MAX_CONFUSION_CLASSES} classes, got num_classes={c}; use '
                    "'similarity'."
                )
            self.register_buffer('confusion', torch.zeros(c, c))
            self.register_buffer('confusion_sums', torch.zeros(c, c))
        elif self.smoothing_mode == 'file':
            if similarity_file and not Path(similarity_file).is_file():
                self._absent_file = similarity_file
                return
            self._set_similarity(read_similarity(similarity_file, c, k, self.temperature))

    def train(self, mode: bool = True) -> LearnedSimilarity:
        """Train or evaluate.

        Raises:
            FileNotFoundError: On the way to training, where ``similarity_file`` does not exist.
        """
        if mode and self._absent_file:
            raise FileNotFoundError(
                f'{type(self).__name__}: similarity_file={self._absent_file!r} does not exist.'
            )
        return super().train(mode)

    @property
    def similarity(self) -> ClassSimilarity:
        """The similarity in force; rows of zeros stand for uniform ones."""
        return ClassSimilarity(self.similarity_indices, self.similarity_weights)

    @torch.no_grad()
    def observe_classes(self, features: Tensor | None, cls_score: Tensor, labels: Tensor) -> None:
        """Add a batch to the statistics; refresh the similarity when it is due.

        Args:
            features: (N, D) inputs of the classifier; None, or of another N: not to be counted.
            cls_score: (N, C+1) logits, with objectness (N, C+2).
            labels: (N,) int64 in [0, C].
        """
        if self.smoothing_mode == 'similarity':
            if features is not None and len(features) == len(labels):
                sums, counts = sum_features(features, labels, self.num_classes)
                self.feature_sums += sums
                self.feature_counts += counts
        elif self.smoothing_mode == 'confusion':
            foreground = cls_score[:, : self.num_classes].float().softmax(1)
            self.confusion_sums += sum_features(foreground, labels, self.num_classes)[0]
        self._iter += 1
        self.num_iters += 1
        if self._iter % self.refresh_interval == 0:
            self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Fold the statistics of all ranks into prototypes and similarity.

        Every rank must call it at the same time; ``observe_classes`` does so every
        ``refresh_interval`` calls, with or without positives on a rank.
        """
        if self.smoothing_mode == 'similarity':
            self._set_similarity(self._similarity_of_prototypes())
        elif self.smoothing_mode == 'confusion':
            self._set_similarity(self._similarity_of_confusion())

    def _similarity_of_prototypes(self) -> ClassSimilarity:
        sum_over_ranks(self.feature_sums, self.feature_counts)
        prototypes, counts = update_prototypes(
            self.prototypes, self.prototype_counts, self.feature_sums, self.feature_counts
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
        return similarity

    def _similarity_of_confusion(self) -> ClassSimilarity:
        sum_over_ranks(self.confusion_sums)
        # The head changes, so what it confused 1,000 refreshes ago should fade.
        self.confusion.mul_(0.9).add_(self.confusion_sums)
        self.confusion_sums.zero_()
        return similarity_from_confusion(self.confusion, self.topk)

    def _set_similarity(self, similarity: ClassSimilarity) -> None:
        k = similarity.indices.shape[1]
        self.similarity_indices.zero_()[:, :k] = similarity.indices
        self.similarity_weights.zero_()[:, :k] = similarity.weights

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        has_state = 'num_iters' in self._buffers
        # That of another ``topk`` is no reason to refuse weights that fit. Columns that are missing
        # say nothing; of too many, the next refresh makes it anew.
        for name in ('similarity_indices', 'similarity_weights') if has_state else ():
            saved, own = state_dict.get(prefix + name), getattr(self, name)
            if saved is not None and saved.shape[1] != own.shape[1]:
                missing = own.shape[1] - saved.shape[1]
                state_dict[prefix + name] = F.pad(saved, (0, missing)) if missing > 0 else own
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if not has_state:
            return
        self._iter = int(self.num_iters)
        # A checkpoint holds rank 0's share of what was seen since the last refresh.
        if get_rank() > 0:
            for name in ('feature_sums', 'feature_counts', 'confusion_sums'):
                if name in self._buffers:
                    getattr(self, name).zero_()
