"""The class loss and the mask targets against what the host has.

Shape letters: **N** RoIs, **C** foreground classes, **K** instances, **P** positive RoIs.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
from mmdet.structures.mask import BitmapMasks
from torch import Tensor

from benchmarks.speed.records import Record, of_number, of_rounds
from benchmarks.speed.timing import freed_memory_kept, interleave, peak_bytes
from mmdet_softpl.functional import (
    ClassSimilarity,
    SmoothingTable,
    resample_roi_masks,
    smoothing_table,
    sparse_cross_entropy,
)

NUM_ROIS, NUM_CLASSES, NEIGHBOURS = 2048, 1203, 16
CASE = f'N = {NUM_ROIS:,}, C = {NUM_CLASSES:,}'
NOTES = {
    'cuda': 'at this size a GPU takes as long as the host needs to launch the operations, of which '
    'the sparse target has more than hard labels',
    'cpu': 'one pass of exponentials where hard labels take two, but two more that only read, '
    'and the scattered reads of the neighbours',
}
UNIFORM_NOTE = (
    'before the first refresh and with mode="uniform", where a target has all entries: another '
    'sum over the logits and another subtraction'
)


def _batch(device: str) -> tuple[Tensor, Tensor, ClassSimilarity, Tensor]:
    """Logits (N, C+1) that want a gradient, labels (N,), similarity, and strengths (C,)."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(NUM_ROIS, NUM_CLASSES + 1, generator=generator).to(device)
    labels = torch.randint(0, NUM_CLASSES + 1, (NUM_ROIS,), generator=generator).to(device)
    indices = torch.randint(0, NUM_CLASSES, (NUM_CLASSES, NEIGHBOURS), generator=generator)
    weights = torch.rand(NUM_CLASSES, NEIGHBOURS, generator=generator).softmax(dim=1)
    similarity = ClassSimilarity(indices.to(device), weights.to(device))
    return logits.requires_grad_(), labels, similarity, torch.full((NUM_CLASSES,), 0.1).to(device)


def plain_formula(logits: Tensor, labels: Tensor, table: SmoothingTable) -> Tensor:
    """``sparse_cross_entropy`` as one would write it down, where no row is uniform; (N,)."""
    own = logits.gather(1, table.entries[labels]) * table.coefficients[labels]
    return torch.logsumexp(logits, dim=1) - own.sum(dim=1)


def compiled_rows(device: str, name: str, rounds: int) -> list[Record]:
    """Our function with its own backward pass, against the formula under ``torch.compile``."""
    logits, labels, similarity, epsilon = _batch(device)
    table = smoothing_table(epsilon, similarity, uniform_rows=False)
    compiled = torch.compile(plain_formula)

    def ours() -> None:
        sparse_cross_entropy(logits, labels, table).mean().backward()
        logits.grad = None

    def theirs() -> None:
        compiled(logits, labels, table).mean().backward()
        logits.grad = None

    with freed_memory_kept():
        times = interleave(
            {'ours': ours, 'compiled': theirs}, max(1, 20 * rounds), device, warmup=3
        )
    return [
        of_rounds(
            times.ratios('ours', 'compiled'),
            what='smoothed cross entropy, forward and backward',
            against='its formula under torch.compile',
            case=CASE,
            device=name,
            target=1.0,
            wall_ratio=times.wall_ratio('ours', 'compiled'),
            note='below 1 it does not pay to compile, which also takes some 15 s at first',
        )
    ]


def smoothed_cross_entropy_rows(device: str, name: str, rounds: int) -> list[Record]:
    """Smoothed cross entropy, forward and backward, against hard labels."""
    logits, labels, similarity, epsilon = _batch(device)
    # As the head does: made once for all iterations between two refreshes.
    table = smoothing_table(epsilon, similarity, uniform_rows=False)
    none = ClassSimilarity(similarity.indices, torch.zeros_like(similarity.weights))
    uniform_table = smoothing_table(epsilon, none)

    def ours() -> None:
        sparse_cross_entropy(logits, labels, table).mean().backward()
        logits.grad = None

    def uniform() -> None:
        sparse_cross_entropy(logits, labels, uniform_table).mean().backward()
        logits.grad = None

    def host() -> None:
        F.cross_entropy(logits, labels).backward()
        logits.grad = None

    variants = {'ours': ours, 'uniform': uniform, 'host': host}
    with freed_memory_kept():
        times = interleave(variants, max(1, 20 * rounds), device, warmup=3)
    memory = peak_bytes(ours, device) / peak_bytes(host, device)
    common = dict(against='F.cross_entropy', case=CASE, device=name)
    return [
        of_rounds(
            times.ratios('ours', 'host'),
            what='smoothed cross entropy, forward and backward',
            target=1.10,
            wall_ratio=times.wall_ratio('ours', 'host'),
            note=NOTES[device],
            **common,
        ),
        of_rounds(
            times.ratios('uniform', 'host'),
            what='cross entropy with uniform smoothing, forward and backward',
            target=1.10,
            wall_ratio=times.wall_ratio('uniform', 'host'),
            note=UNIFORM_NOTE,
            **common,
        ),
        of_number(memory, what='smoothed cross entropy, peak memory', target=1.05, **common),
    ]


def mask_target_rows(device: str, name: str, rounds: int) -> list[Record]:
    """Mask targets from RoI masks, against pasting, warping and cropping image-sized masks."""
    height, width, count, positives, side = 800, 1333, 30, 64, 28
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(count, side, side, generator=generator).to(device)
    corner = torch.rand(count, 2, generator=generator) * torch.tensor([width - 200.0, height - 200])
    boxes = torch.cat([corner, corner + 40 + 150 * torch.rand(count, 2, generator=generator)], 1)
    boxes = boxes.to(device)
    inds = torch.arange(positives, device=device) % count
    matrix = torch.tensor([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]], device=device)
    rois = boxes[inds]
    rois = torch.stack([width - rois[:, 2], rois[:, 1], width - rois[:, 0], rois[:, 3]], dim=1)
    homography = matrix.expand(positives, 3, 3)
    shape = torch.tensor([[float(height), width]], device=device).expand(positives, 2)

    def ours() -> None:
        resample_roi_masks(masks, boxes, rois, inds, homography, shape, side)

    def host() -> None:
        pasted = _do_paste_mask(masks[:, None], boxes, height, width, skip_empty=False)[0]
        pasted = (pasted > 0.5).cpu().numpy().astype(np.uint8)
        moved = [cv2.warpPerspective(m, matrix.cpu().numpy(), (width, height)) for m in pasted]
        bitmaps = BitmapMasks(np.stack(moved), height, width)
        crops = bitmaps.crop_and_resize(
            rois, (side, side), device=device, inds=inds.cpu().numpy(), binarize=True
        )
        torch.as_tensor(crops.masks).to(device)

    with freed_memory_kept():
        times = interleave({'ours': ours, 'host': host}, 2 * rounds, device)
    return [
        of_rounds(
            times.ratios('ours', 'host'),
            what="mask targets from the teacher's RoI masks",
            against='paste, warp, crop_and_resize',
            case=f'{positives} positives of {count} instances, {width} x {height}',
            device=name,
            target=0.05,
            wall_ratio=times.wall_ratio('ours', 'host'),
        )
    ]
