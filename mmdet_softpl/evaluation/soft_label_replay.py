"""Soft labels of a replay: where alignment takes the boosts, and what true classes get of them.

Shape legend: K detections of an image, D surest detections, M objects of all images, C foreground
classes, k stored classes of a RoI, G = 3 frequency groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_softpl.evaluation.ground_truth import ImageTruth
from mmdet_softpl.functional import GROUP_NAMES, follow_labelled_shares, match_indices
from mmdet_softpl.models.class_state import ClassState

# A step halves what is missing, less where a class has little: fifty leave nothing to see.
ALIGN_STEPS = 50
# A class that a dump has not stored has a score too, and one that is never right no logarithm.
LEAST_SCORE = 1e-3


@dataclass(frozen=True)
class SoftLabels:
    """What the soft labels of surest detections say, before calibration.

    Attributes:
        is_object: (D,) bool, the student learns from it, and it is not on a crowd.
        true_class: (D,) int64, class of the object that it lies on, whatever its own; -1 if none.
        true_score: (D,) boosted score of that class, 0 if none.
        group_mass: (D, G) boosted scores, by group, of the classes that can be judged there.
        own_judged: (D,) bool, its own label is such a class.
    """

    is_object: Tensor
    true_class: Tensor
    true_score: Tensor
    group_mass: Tensor
    own_judged: Tensor

    @classmethod
    def join(cls, parts: Sequence[SoftLabels]) -> SoftLabels:
        """Those of several images one after another."""
        columns = ([getattr(part, field.name) for part in parts] for field in fields(cls))
        return cls(*(torch.cat(column) for column in columns))


def soft_labels_of(surest: InstanceData, truth: ImageTruth, groups: Tensor) -> SoftLabels:
    """The soft labels of one image.

    Args:
        surest: (D,) detections with ``bboxes``, ``scores``, ``is_object``, ``classes`` (D, k) and
            ``score_vectors`` (D, k + 2): of ``classes``, of all others, of background.
        truth: Of the image.
        groups: (C,) int64 frequency groups.
    """
    rows = surest.is_object.nonzero().squeeze(1)
    taken = match_indices(
        surest.bboxes[rows].double(),
        surest.scores[rows],
        None,
        truth.bboxes,
        None,
        ignore=truth.crowd,
    )
    # One more at the end: index -1, for what takes no object.
    true_class = F.pad(truth.labels.masked_fill(truth.crowd, -1), (0, 1), value=-1)[taken]
    on_crowd = F.pad(truth.crowd, (0, 1))[taken]
    true_class = torch.full_like(surest.labels, -1).index_copy(0, rows, true_class)
    is_object = surest.is_object.index_copy(0, rows, ~on_crowd)
    # On nothing, a class that is not annotated exhaustively may be right.
    judged = torch.where(
        true_class[:, None] >= 0, truth.judged, truth.judged & ~truth.not_exhaustive
    )
    foreground = surest.score_vectors[:, :-2]
    true_score = (foreground * (surest.classes == true_class[:, None])).sum(1)
    of_group = F.one_hot(groups[surest.classes], len(GROUP_NAMES)).to(foreground)
    told = foreground * judged.gather(1, surest.classes)
    return SoftLabels(
        is_object,
        true_class,
        true_score,
        (told[:, :, None] * of_group).sum(1),
        judged.gather(1, surest.labels[:, None]).squeeze(1),
    )


def soft_sums(
    soft: SoftLabels, labels: Tensor, scores: Tensor, target_scores: Tensor, groups: Tensor
) -> Tensor:
    """Mass of each group in calibrated soft labels, and what true classes get of it.

    The label gets its calibrated score, the rest of the foreground is rescaled, as
    :func:`.soft_targets` does it.

    Args:
        soft: Of the detections.
        labels: (D,).
        scores: (D,) boosted, in [0, 1].
        target_scores: (D,) calibrated, in [0, 1].
        groups: (C,) int64.

    Returns:
        (D, 4, G) mass, mass of the true class, 1 on an object, and there the logarithm of what its
        class gets (at least ``LEAST_SCORE``); the last three in the group of that class. 0 where
        nothing is learned from a detection.
    """
    rescaled = (1 - target_scores) / (1 - scores).clamp_min(1e-6)
    change = target_scores - scores * rescaled
    own = F.one_hot(groups[labels], len(GROUP_NAMES)) * change[:, None]
    mass = soft.group_mass * rescaled[:, None] + own * soft.own_judged[:, None]
    true_score = torch.where(labels == soft.true_class, target_scores, soft.true_score * rescaled)
    of_group = F.one_hot(groups[soft.true_class.clamp(min=0)], len(GROUP_NAMES))
    on_object = of_group * (soft.true_class >= 0)[:, None]
    right = on_object * true_score[:, None]
    logs = on_object * true_score.clamp_min(LEAST_SCORE).log()[:, None]
    sums = torch.stack([mass.clamp(min=0), right, on_object.to(mass), logs], 1)
    return sums * soft.is_object[:, None, None]


def settled_boosts(
    found: Sequence[InstanceData],
    weights: Sequence[Tensor],
    state: ClassState,
    labelled_rate: Tensor,
    align_rate: float,
    unknown: Tensor,
    num_images: int | None,
) -> tuple[Tensor, Tensor]:
    """Boosts and own boosts that alignment comes to if these objects are labelled again and again.

    In training the network changes meanwhile; this is where the boosts would go if it did not.

    Args:
        found: Of each image, named detections as in :func:`soft_labels_of`.
        weights: Of each image, (K,) how much a detection counts.
        state: With the boosts that ``found`` was scored with, and those that are wanted.
        labelled_rate: (C,) labelled instances per image.
        align_rate: In [0, 1].
        unknown: (C,) bool, and
        num_images: those of ``found`` or None, as in :func:`.follow_labelled_shares`.

    Returns:
        (C,) > 0 each.
    """
    rows = [detections.is_object for detections in found]
    classes = torch.cat([d.classes[r] for d, r in zip(found, rows, strict=True)])
    on = torch.cat([w[r] for w, r in zip(weights, rows, strict=True)])

    def factors(boosts: Tensor) -> Tensor:
        """(M, k + 1); what is not stored is not boosted."""
        return F.pad(boosts.log()[classes], (0, 1))

    def settle(key: str, boosts: Tensor, wanted_boosts: Tensor) -> Tensor:
        vectors = torch.cat([d[key][r] for d, r in zip(found, rows, strict=True)])
        foreground = vectors[:, :-1]
        mass = foreground.sum(1) * on
        tiny = torch.finfo(foreground.dtype).tiny
        plain = foreground.clamp_min(tiny).log() - factors(boosts)
        for _ in range(ALIGN_STEPS):
            shares = (plain + factors(boosts)).softmax(1)[:, :-1] * mass[:, None]
            seen = torch.zeros_like(boosts).index_add(0, classes.flatten(), shares.flatten())
            boosts = follow_labelled_shares(
                boosts,
                seen,
                labelled_rate,
                wanted_boosts,
                state.groups,
                align_rate,
                unknown,
                num_images=num_images,
            )
        return boosts

    return (
        settle('score_vectors', state.boosts, state.wanted_boosts),
        settle('own_vectors', state.own_boosts, torch.ones_like(state.own_boosts)),
    )
