"""Helpers shared by the numeric files: precision, counting into (class, bin) cells, class scores.

Shape letters: **N** elements, **C** foreground classes, **B** bins.
"""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Return ``x`` as float32, or as float64 where it is that already."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def bin_centres(num_bins: int, like: Tensor) -> Tensor:
    """Centres of ``num_bins`` equal bins on [0, 1], (B,), with dtype and device of ``like``."""
    steps = torch.arange(num_bins, dtype=like.dtype, device=like.device)
    return (steps + 0.5) / num_bins


def cumulative_sum(x: Tensor) -> Tensor:
    """Running sum along the last dimension, summed on the CPU.

    On CUDA torch refuses it where a training is to be deterministic, and a sum over triangular
    ones may be rounded to TF32; these are small tensors that are summed once a refresh.
    """
    return x.cpu().cumsum(dim=-1).to(x.device)


def class_rows(labels: Tensor, num_classes: int) -> Tensor:
    """Labels with everything outside [0, C) sent to row C, which the callers cut off.

    Keeping a row to throw away costs less than a boolean mask, whose size the host has to wait for.
    """
    inside = (labels >= 0) & (labels < num_classes)
    return torch.where(inside, labels, num_classes).long()


def class_bin_sums(
    values: Tensor, scores: Tensor, labels: Tensor, num_classes: int, num_bins: int
) -> Tensor:
    """Sum ``values`` (V, N) into cells (V, C, B) by label and by equal-width bin of the score.

    A score of exactly 1 belongs to the last bin; labels outside [0, C) are ignored.
    """
    bins = (at_least_float32(scores) * num_bins).long().clamp(0, num_bins - 1)
    cells = class_rows(labels, num_classes) * num_bins + bins
    sums = values.new_zeros(values.shape[0], (num_classes + 1) * num_bins)
    sums = sums.index_add(1, cells, values)
    return sums.view(values.shape[0], num_classes + 1, num_bins)[:, :num_classes]


def log_foreground(scores: Tensor) -> Tensor:
    """(N, C) logarithms of the class scores (N, C+1); finite, since 0 counts as the least there is.

    Logarithms, since products and powers of small probabilities underflow.
    """
    return scores[:, :-1].clamp_min(torch.finfo(scores.dtype).tiny).log()


def shared_out(scores: Tensor, log_mass: Tensor) -> Tensor:
    """(N, C+1) scores whose foreground is shared out by exp(log_mass) (N, C); objectness stays.

    A class of score 0 stays at 0.
    """
    foreground, background = scores[:, :-1], scores[:, -1:]
    possible = foreground > 0
    log_mass = log_mass.masked_fill(~possible, torch.finfo(scores.dtype).min)
    share = torch.softmax(log_mass, dim=1) * possible
    return torch.cat([share * (1 - background).clamp_min(0), background], dim=1)
