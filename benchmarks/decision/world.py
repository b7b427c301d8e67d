"""A long-tailed class hierarchy in feature space, and a linear classifier on it.

Shape letters: **N** samples, **C** foreground classes (background has index C), **D** features,
**F** families of look-alike classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_softpl.functional import (
    ClassSimilarity,
    frequency_groups,
    similarity_from_prototypes,
    smoothed_cross_entropy,
    soft_cross_entropy,
    sum_features,
)


@dataclass(frozen=True)
class WorldConfig:
    """What the world looks like; defaults are the regime of the reported table.

    Attributes:
        families: F.
        siblings: Classes in a family, C = families * siblings.
        dim: D.
        family_spread: Distance scale of family centres.
        sibling_spread: Distance scale of the classes of a family around its centre.
        noise: Standard deviation of a sample around its class.
        largest: Labelled samples of the most frequent class.
        exponent: Of Zipf's law: class of rank r has ``largest / r ** exponent`` samples.
        unlabelled_ratio: Unlabelled samples for each labelled one.
        background_ratio: Background samples for each foreground one.
        weight_decay: L2 penalty of the linear classifiers; little of it over-fits.
    """

    families: int = 12
    siblings: int = 5
    dim: int = 32
    family_spread: float = 1.0
    sibling_spread: float = 0.45
    noise: float = 0.6
    largest: int = 300
    exponent: float = 1.2
    unlabelled_ratio: int = 8
    background_ratio: float = 1.0
    weight_decay: float = 2e-4

    @property
    def num_classes(self) -> int:
        return self.families * self.siblings


@dataclass(frozen=True)
class Samples:
    """(N, D) features and (N,) labels in [0, C]."""

    features: Tensor
    labels: Tensor


class World:
    """Class centres and counts drawn from a seed; draws labelled, unlabelled and test samples."""

    def __init__(self, config: WorldConfig, seed: int) -> None:
        self.config = config
        self.generator = torch.Generator().manual_seed(seed)
        c = config.num_classes
        centres = config.family_spread * self._normal(config.families, config.dim)
        offsets = config.sibling_spread * self._normal(c, config.dim)
        self.family = torch.arange(c) // config.siblings
        self.centres = centres[self.family] + offsets
        ranks = torch.randperm(c, generator=self.generator) + 1
        self.counts = (config.largest / ranks**config.exponent).round().clamp(min=2).long()
        self.groups = frequency_groups(self.counts)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def draw(self, counts: Tensor) -> Samples:
        """``counts`` (C,) samples of each class and background in proportion."""
        c, config = len(counts), self.config
        labels = torch.repeat_interleave(torch.arange(c), counts)
        features = self.centres[labels] + config.noise * self._normal(len(labels), config.dim)
        size = int(len(labels) * config.background_ratio)
        # Background lies anywhere, among the classes as well.
        scale = (config.family_spread**2 + config.sibling_spread**2 + config.noise**2) ** 0.5
        background = scale * self._normal(size, config.dim)
        return Samples(
            torch.cat([features, background]),
            torch.cat([labels, torch.full((size,), c)]),
        )

    def labelled(self) -> Samples:
        return self.draw(self.counts)

    def unlabelled(self) -> Samples:
        return self.draw(self.counts * self.config.unlabelled_ratio)

    def balanced(self, per_class: int = 40) -> Samples:
        return self.draw(torch.full_like(self.counts, per_class))


def prototypes_of(samples: Samples, num_classes: int) -> tuple[Tensor, Tensor]:
    """Class means (C, D) and counts (C,)."""
    sums, counts = sum_features(samples.features, samples.labels, num_classes)
    return sums / counts.clamp(min=1)[:, None], counts


def similarity_of(samples: Samples, num_classes: int, mode: str) -> ClassSimilarity:
    """``'similarity'`` from prototypes, or ``'uniform'`` (rows of zeros)."""
    if mode == 'uniform':
        return ClassSimilarity(
            torch.zeros(num_classes, 1, dtype=torch.long), torch.zeros(num_classes, 1)
        )
    return similarity_from_prototypes(*prototypes_of(samples, num_classes))


class Linear:
    """Softmax regression with weight decay, fitted by L-BFGS.

    Args:
        config: D, C (the logits are C+1) and the weight decay.
    """

    def __init__(self, config: WorldConfig) -> None:
        self.num_classes = config.num_classes
        self.weight_decay = config.weight_decay
        self.weight = torch.zeros(config.num_classes + 1, config.dim + 1, requires_grad=True)

    def logits(self, features: Tensor) -> Tensor:
        """(N, C+1)."""
        return F.linear(features, self.weight[:, :-1], self.weight[:, -1])

    def scores(self, features: Tensor) -> Tensor:
        """(N, C+1) softmax scores, detached."""
        return self.logits(features).detach().softmax(1)

    def fit(
        self, samples: Samples, smoothing: float = 0.0, similarity: ClassSimilarity | None = None
    ) -> Linear:
        """Fit to labels, smoothed toward ``similarity``."""
        epsilon = torch.full((self.num_classes,), smoothing)
        similarity = similarity or similarity_of(samples, self.num_classes, 'uniform')

        def loss() -> Tensor:
            return smoothed_cross_entropy(
                self.logits(samples.features), samples.labels, epsilon, similarity
            ).mean()

        return self._minimise(loss)

    def fit_soft(
        self, features: Tensor, targets: Tensor, weights: Tensor, offsets: Tensor | None = None
    ) -> Linear:
        """Fit to soft targets (N, C+1) with weights (N,) and logit offsets (C,)."""
        shift = torch.zeros(self.num_classes) if offsets is None else offsets

        def loss() -> Tensor:
            raw = soft_cross_entropy(self.logits(features) + F.pad(shift, (0, 1)), targets)
            return (raw * weights).sum() / weights.sum().clamp(min=1)

        return self._minimise(loss)

    def _minimise(self, loss) -> Linear:
        optimizer = torch.optim.LBFGS(
            [self.weight], max_iter=60, history_size=10, line_search_fn='strong_wolfe'
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = loss() + self.weight_decay * self.weight.square().sum()
            value.backward()
            return value

        optimizer.step(closure)
        return self
