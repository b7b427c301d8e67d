"""What a refresh does to boosts and thresholds, and what it remembers of those before it.

Shape legend: C foreground classes, S score bins.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_softpl.functional import FREQUENT, damp, follow_labelled_shares
from mmdet_softpl.models.class_state import SCORE_BINS, ClassState
from mmdet_softpl.models.label_policy import LabelPolicy
from mmdet_softpl.ranks import sum_over_ranks

# Of a damped class that has no boost left to lose, the threshold rises by this factor.
DAMPED_THRESHOLD_FACTOR = 1.1
# Old score histograms keep this weight, so that a class seen once in 1,000 images has a past.
HISTOGRAM_DECAY = 0.5
# Of the way to what a refresh aims at: thresholds that jump would make the student's classes do so.
THRESHOLD_STEP = 0.5


def new_history(num_classes: int) -> dict[str, Tensor]:
    """What refreshes remember, empty.

    Args:
        num_classes: C.

    Returns:
        ``num_iters`` () iterations with unlabelled images, ``histogram`` (C, S) decayed scores of
        the surest detections on ``histogram_images`` () images, ``strikes`` (C,) refreshes in a row
        at which a class was kept too often, ``damped`` (C,) how often it was damped,
        ``total_kept`` (C,) its labels on all ``total_images`` () images so far.
    """
    return {
        'num_iters': torch.zeros((), dtype=torch.long),
        'histogram': torch.zeros(num_classes, SCORE_BINS),
        'histogram_images': torch.zeros(()),
        'strikes': torch.zeros(num_classes, dtype=torch.long),
        'damped': torch.zeros(num_classes, dtype=torch.long),
        'total_kept': torch.zeros(num_classes, dtype=torch.float64),
        'total_images': torch.zeros((), dtype=torch.float64),
    }


def forget_teacher(state: ClassState, history: dict[str, Tensor]) -> None:
    """Drop the scores and strikes of a teacher that is no more; the audit's sums stay. In place.

    Every rank must call it at the same time.
    """
    sum_over_ranks(state.kept, state.num_images)
    _count(state, history)
    for key in ('histogram', 'histogram_images', 'strikes'):
        history[key].zero_()
    state.clear(*ClassState.ACCUMULATORS)


def _count(state: ClassState, history: dict[str, Tensor]) -> None:
    history['total_kept'] += state.kept
    history['total_images'] += state.num_images


@torch.no_grad()
def refresh_labels(
    state: ClassState,
    history: dict[str, Tensor],
    policy: LabelPolicy,
    rate: Tensor,
    *,
    damp_factor: float,
    damp_patience: int,
    federated: bool = False,
    partial: bool = False,
) -> tuple[float, Tensor]:
    """Thresholds, damping and boosts from the statistics of all ranks; in place.

    Every rank must call it at the same time.

    Args:
        state: Its accumulators are summed over ranks, used and cleared; its boosts and thresholds
            are set.
        history: See :func:`new_history`.
        policy: Which labels are wanted.
        rate: (C,) labelled instances per labelled image.
        damp_factor: See ``RareBoostPseudoLabeler``, > 0.
        damp_patience: See there, >= 1.
        federated: Whether images of the labelled set say nothing of some classes, by LVIS's rules.
        partial: Whether they really do, for any image and class.

    Returns:
        The number of unlabelled images since the refresh before, and (C,) labels kept per image.
        Without an image, as after :func:`forget_teacher`, boosts and thresholds stay as they are.
    """
    sum_over_ranks(state.score_histogram, state.kept, state.mass, state.own_mass, state.num_images)
    history['histogram'].mul_(HISTOGRAM_DECAY).add_(state.score_histogram)
    history['histogram_images'].mul_(HISTOGRAM_DECAY).add_(state.num_images)
    _count(state, history)
    images = float(state.num_images)
    if not images:
        return images, torch.zeros_like(state.kept)
    rate = rate.to(state.boosts.device)
    kept_per_image = kept_rate = state.kept / images
    if federated:
        # LVIS annotates a frequent class in some of its images only: its rate is a lower
        # bound, and keeping more than that is no excess.
        kept_rate = torch.where(state.groups == FREQUENT, torch.zeros_like(rate), kept_rate)

    new = policy.thresholds(
        history['histogram'], float(history['histogram_images']), rate, state.groups
    )
    boosts, strikes, damped = damp(
        state.boosts,
        kept_rate,
        rate,
        history['strikes'],
        factor=damp_factor,
        patience=damp_patience,
    )
    thresholds = (1 - THRESHOLD_STEP) * state.thresholds + THRESHOLD_STEP * new
    if policy.threshold_mode != 'fixed':
        unboosted = damped & (state.boosts <= 1)
        raised = (thresholds * DAMPED_THRESHOLD_FACTOR).clamp(max=policy.thr_range[1])
        thresholds = torch.where(unboosted, raised, thresholds)
    if policy.align_rate and bool(state.mass.any()):

        def aligned(boosts: Tensor, mass: Tensor, wanted_boosts: Tensor) -> Tensor:
            return follow_labelled_shares(
                boosts,
                mass,
                rate,
                wanted_boosts,
                state.groups,
                policy.align_rate,
                # For the same reason, nothing says how many labels a frequent class should have.
                unknown=(state.groups == FREQUENT) & federated,
                num_images=images if partial else None,
            )

        boosts = aligned(boosts, state.mass, state.wanted_boosts)
        own = aligned(state.own_boosts, state.own_mass, torch.ones_like(state.own_boosts))
        state.own_boosts.copy_(own)
    state.boosts.copy_(boosts)
    state.thresholds.copy_(thresholds)
    history['strikes'] = strikes
    history['damped'] += damped
    state.clear('score_histogram', 'kept', 'mass', 'own_mass', 'num_images')
    return images, kept_per_image
