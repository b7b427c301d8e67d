"""Alignment: no class gets more or less of the soft pseudo-labels than it is meant to have.

Shape letters: **C** foreground classes.
Source: distribution alignment (ReMixMatch, arXiv 1911.09785), here as a feedback on the boosts;
"Alignment" in docs/DESIGN.md, section 4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._tensor import at_least_float32
from .group_statistics import shrink_to_groups


def wanted_mass(mass: Tensor, labelled_rate: Tensor, boost: Tensor) -> Tensor:
    """Share of the mass that each class is meant to have: r_c a_c / sum_j r_j a_j of it all.

    Args:
        mass: (C,) summed soft labels.
        labelled_rate: (C,) labelled instances per image, >= 0.
        boost: (C,) factors a > 0 by which rare classes are meant to be over-represented.

    Returns:
        (C,) with the sum of ``mass``; 0 for a class without a labelled instance.
    """
    share = at_least_float32(labelled_rate) * at_least_float32(boost)
    return mass.sum() * share / share.sum().clamp_min(1e-12)


def align_boosts(
    boosts: Tensor,
    mass: Tensor,
    wanted: Tensor,
    groups: Tensor,
    rate: float = 0.5,
    prior: float = 20.0,
    limit: float = 50.0,
) -> Tensor:
    """One step of the boosts toward those that give every class its wanted mass.

    a_c <- clip(a_c ((w_c + k r_g) / (m_c + k))^rate, 1 / limit, limit), with r_g the same ratio of
    the frequency group, and so on up to 1. A student that learns boosted labels becomes a
    teacher whose scores are boosted already: without this feedback the boost multiplies
    itself.

    Args:
        boosts: (C,) > 0, under which ``mass`` was seen.
        mass: (C,) summed soft labels, >= 0.
        wanted: (C,) >= 0.
        groups: (C,) int64 frequency groups.
        rate: In [0, 1]; 0 leaves the boosts alone.
        prior: Pseudo-counts k > 0.
        limit: Largest factor, >= 1.

    Returns:
        (C,) float32.

    Raises:
        ValueError: prior <= 0.
    """
    ratio = shrink_to_groups(wanted, mass, groups, prior, base=1.0)
    return (at_least_float32(boosts) * ratio.pow(rate)).clamp(1 / limit, limit)


def follow_labelled_shares(
    boosts: Tensor,
    mass: Tensor,
    labelled_rate: Tensor,
    wanted_boosts: Tensor,
    groups: Tensor,
    rate: float,
    unknown: Tensor,
    num_images: float | None = None,
) -> Tensor:
    """:func:`align_boosts` toward :func:`wanted_mass`, but for classes of unknown share.

    Where classes were damped since the mass was seen, ``boosts`` are the damped ones, so that a
    class which is kept too often falls below what its share alone would give it.

    Classes share the mass of all. Where the labelled rates of the unknown ones are lower bounds,
    nothing is known of how it splits between the two kinds: the others then share their own mass,
    of which they want no more than the labelled images have.

    Args:
        boosts: (C,) > 0, under which ``mass`` was seen, or damped ones of these.
        mass: (C,) summed soft labels, >= 0.
        labelled_rate: (C,) labelled instances per image, >= 0.
        wanted_boosts: (C,) factors > 0 by which classes are meant to be over-represented.
        groups: (C,) int64 frequency groups.
        rate: In [0, 1].
        unknown: (C,) bool, classes whose labelled rate is no measure of how many there are: they
            keep their boost, and count in their group as if they had what they want.
        num_images: That ``mass`` was seen in, >= 0, where rates of unknown classes are lower
            bounds; else None.

    Returns:
        (C,) float32.
    """
    wanted = wanted_mass(mass, labelled_rate, wanted_boosts)
    if num_images is not None:
        own = (~unknown).to(mass.dtype)
        shared = wanted_mass(mass * own, labelled_rate * own, wanted_boosts)
        # Else what boosted labels teach the next teacher would grow with nobody to lose it.
        most = labelled_rate * wanted_boosts * num_images
        wanted = torch.where(unknown.any(), torch.minimum(shared, most), wanted)
    wanted = torch.where(unknown, mass, wanted)
    return torch.where(unknown, boosts, align_boosts(boosts, mass, wanted, groups, rate))
