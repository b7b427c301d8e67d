"""How much rare classes are boosted, and which score keeps a label of a class.

Shape legend: C foreground classes, S score bins, G = 3 frequency groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from mmdet_softpl.checks import check_choice, check_range
from mmdet_softpl.datasets.class_statistics import ClassStatistics
from mmdet_softpl.functional import (
    FREQUENCY_LETTERS,
    GROUP_NAMES,
    THRESHOLD_MODES,
    frequency_boost,
    per_class_thresholds,
)
from mmdet_softpl.models.class_state import ClassState

# Whose arguments they are.
_OWNER = 'RareBoostPseudoLabeler'


def by_group(weight: float | Sequence[float]) -> Sequence[float]:
    """A number for each frequency group, where one stands for all; (G,)."""
    return (weight,) * len(GROUP_NAMES) if isinstance(weight, (int, float)) else weight


@dataclass(frozen=True)
class LabelPolicy:
    """The arguments of ``RareBoostPseudoLabeler`` that say which labels a teacher gives.

    Training and its replay from a dump of the teacher's scores share them.

    Attributes:
        boost_gamma, max_boost, prototype_weight, threshold_mode, fixed_thr, alpha, quantile,
            thr_range, min_count, align_rate: See there; ``prototype_weight`` (G,). Sequences become
            tuples.

    Raises:
        ValueError: A value is out of its range, or a mode unknown.
    """

    boost_gamma: float = 0.5
    max_boost: float = 4.0
    prototype_weight: Sequence[float] = (1.0, 0.5, 0.0)
    threshold_mode: str = 'prior'
    fixed_thr: float = 0.7
    alpha: float = 0.2
    quantile: float = 0.5
    thr_range: Sequence[float] = (0.3, 0.9)
    min_count: int = 20
    align_rate: float = 0.5

    def __post_init__(self) -> None:
        check_range(_OWNER, 'boost_gamma', self.boost_gamma, 0, None)
        check_range(_OWNER, 'max_boost', self.max_boost, 1, None)
        check_choice(_OWNER, 'threshold_mode', self.threshold_mode, THRESHOLD_MODES)
        check_range(_OWNER, 'fixed_thr', self.fixed_thr, 0, 1)
        check_range(_OWNER, 'alpha', self.alpha, 0, None, include_lower=False)
        check_range(_OWNER, 'quantile', self.quantile, 0, 1)
        bounds = self.thr_range
        if not isinstance(bounds, Sequence) or len(bounds) != 2:
            raise ValueError(
                f'{_OWNER}: thr_range takes a lower and an upper bound, got {bounds!r}; for one '
                "threshold use threshold_mode='fixed' with fixed_thr."
            )
        check_range(_OWNER, 'thr_range[0]', bounds[0], 0, 1)
        check_range(_OWNER, 'thr_range[1]', bounds[1], bounds[0], 1)
        check_range(_OWNER, 'min_count', self.min_count, 1, None)
        check_range(_OWNER, 'align_rate', self.align_rate, 0, 1)
        weights = self.prototype_weight
        if len(weights) != len(GROUP_NAMES):
            raise ValueError(
                f'{_OWNER}: prototype_weight takes one number or three (rare, common, frequent), '
                f'got {weights!r}.'
            )
        for one in weights:
            check_range(_OWNER, 'prototype_weight', one, 0, 1)
        # Lists, as configs and json give them, would not compare equal.
        object.__setattr__(self, 'prototype_weight', tuple(float(one) for one in weights))
        object.__setattr__(self, 'thr_range', tuple(float(bound) for bound in bounds))

    @staticmethod
    def given_by(hook: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments that the config of a ``RareBoostPseudoLabeler`` gives."""
        names = [field.name for field in fields(LabelPolicy)]
        given = {name: hook[name] for name in names if name in hook}
        if 'prototype_weight' in given:
            given['prototype_weight'] = by_group(given['prototype_weight'])
        return given

    def frequency_boosts(self, statistics: ClassStatistics) -> Tensor:
        """(C,) boosts in [1, ``max_boost``] by the labelled images of each class."""
        counts = torch.as_tensor(statistics.image_counts, dtype=torch.float32)
        return frequency_boost(counts, gamma=self.boost_gamma, max_boost=self.max_boost)

    def thresholds(
        self, histogram: Tensor, num_images: float, rate: Tensor, groups: Tensor
    ) -> Tensor:
        """(C,) thresholds that the teacher's scores ask for.

        Args:
            histogram: (C, S) scores of the surest detections.
            num_images: Images that they are of, >= 0.
            rate: (C,) labelled instances per labelled image.
            groups: (C,) long in [0, G).
        """
        return per_class_thresholds(
            self.threshold_mode,
            histogram,
            num_images,
            rate,
            groups,
            fixed=self.fixed_thr,
            alpha=self.alpha,
            quantile=self.quantile,
            min_count=self.min_count,
            lower=self.thr_range[0],
            upper=self.thr_range[1],
        )

    def set_groups(self, state: ClassState, statistics: ClassStatistics) -> None:
        """Groups and what goes by them, which never change in training; in place."""
        groups = torch.tensor([FREQUENCY_LETTERS.index(letter) for letter in statistics.groups])
        state.groups.copy_(groups)
        weights = torch.tensor(self.prototype_weight, dtype=torch.float32)
        state.prototype_weights.copy_(weights[groups])
        state.wanted_boosts.copy_(self.frequency_boosts(statistics))

    def set_initial(self, state: ClassState, statistics: ClassStatistics) -> None:
        """The state before anything was seen; in place."""
        state.load_state_dict(ClassState(state.num_classes, self.fixed_thr).state_dict())
        self.set_groups(state, statistics)
        state.boosts.copy_(state.wanted_boosts)
