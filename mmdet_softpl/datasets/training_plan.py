"""Batch size, learning rate and schedule for a data set's size, by rules that are stated.

Letters: L labelled and U unlabelled images, B images a step over all GPUs, half of them labelled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmdet_softpl.checks import check_choice, check_range

# Of the shipped configs: the 180,000 iterations of Soft Teacher (arXiv 2106.09018) with 8 images a
# step, at most a third of them on labelled images alone.
BASE_BATCH = 8
BASE_MAX_ITERS = 180000
BASE_SUPERVISED_ITERS = 60000
BASE_RAMP_ITERS = 5000
MIN_SUPERVISED_ITERS = 2000
LABELLED_PASSES = 24
UNLABELLED_PASSES = 12
# Beyond this a step gets slower and the schedule shorter, for nothing that was shown to help.
MAX_BATCH = 16
LONGER_SIDE, SHORTER_SIDES, TEST_SIDE = 1333, (400, 1200), 800
# Images are shown at most this much larger than they are.
MAX_UPSCALING = 2
# The weights of teacher and student, their gradients and momentum, and CUDA's own.
FIXED_GB = 1.5
OVERSAMPLED_RATIO = 10
# On benchmarks/longtail, with 84 passes, repeat factor sampling cost AP; on LVIS, where it is
# standard, an image is seen 12 to 24 times.
OVERSAMPLED_PASSES = 64
VALIDATIONS = 18
# An evaluation, and writing two detectors and their momentum, take as long as many steps.
MIN_INTERVAL = 500


@dataclass(frozen=True)
class Architecture:
    """A detector that ``new-config`` offers.

    Attributes:
        model: file name of its base below ``configs/_base_/models``.
        schedule: file name of its schedule below ``configs/_base_/schedules``.
        zoo_gb: GPU memory of its supervised training in mmdet's model zoo, for 2 images of
            1333 x 800.
        zoo_config: mmdet's config of a COCO-trained detector to start from.
    """

    model: str
    schedule: str
    zoo_gb: float
    zoo_config: str


ARCHITECTURES = {
    'mask-rcnn_r50': Architecture(
        'calibrated-soft-teacher_mask-rcnn_r50_fpn', 'semi_180k', 4.4, 'mask-rcnn_r50_fpn_2x_coco'
    ),
    'mask-rcnn_r101': Architecture(
        'calibrated-soft-teacher_mask-rcnn_r101_fpn', 'semi_180k', 6.4, 'mask-rcnn_r101_fpn_2x_coco'
    ),
    'cascade-mask-rcnn_r50': Architecture(
        'calibrated-soft-teacher_cascade-mask-rcnn_r50_fpn',
        'semi_180k',
        6.0,
        'cascade-mask-rcnn_r50_fpn_20e_coco',
    ),
    'cascade-mask-rcnn_r101': Architecture(
        'calibrated-soft-teacher_cascade-mask-rcnn_r101_fpn',
        'semi_180k',
        7.9,
        'cascade-mask-rcnn_r101_fpn_20e_coco',
    ),
    'mask-rcnn_swin-t': Architecture(
        'calibrated-soft-teacher_mask-rcnn_swin-t-p4-w7_fpn',
        'semi_180k_adamw',
        7.6,
        'mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco',
    ),
}


@dataclass(frozen=True)
class TrainingPlan:
    """What to train with.

    Attributes:
        batch_per_gpu: images of one GPU in a step, even: half labelled, half not.
        batch: B.
        fits: whether two images of the largest size fit into the memory.
        gb_per_image: estimated GPU memory of one image of the largest size.
        lr_factor: the shipped learning rate is multiplied by it (linear rule, arXiv 1706.02677).
        scale: None for the shipped sizes, else (longer side, least and greatest shorter side,
            shorter side of the test) in pixels.
        supervised_iters, max_iters: iterations on labelled images alone, and in all; multiples of
            ``val_interval``.
        warmup_iters, ramp_iters: of the learning rate, and of the unsupervised loss.
        milestones: iterations at which the learning rate drops by 10.
        val_interval, checkpoint_interval: iterations; the former is a multiple of the latter.
        later_val_interval: from the second part on, a multiple of ``val_interval``.
        refresh_interval: iterations between two refreshes of the thresholds.
        momentum: of the mean teacher.
        oversample_thr: of ``ClassBalancedDataset``; None where the tail is short or labelled images
            are seen often.
    """

    batch_per_gpu: int
    batch: int
    fits: bool
    gb_per_image: float
    lr_factor: float
    scale: tuple[int, int, int, int] | None
    supervised_iters: int
    max_iters: int
    warmup_iters: int
    ramp_iters: int
    milestones: tuple[int, int]
    val_interval: int
    later_val_interval: int
    checkpoint_interval: int
    refresh_interval: int
    momentum: float
    oversample_thr: float | None


def plan_training(
    arch: str,
    labelled: int,
    unlabelled: int,
    *,
    gpus: int = 1,
    gpu_memory: float = 24.0,
    longer_side: float = LONGER_SIDE,
    image_counts: Sequence[int] = (),
) -> TrainingPlan:
    """Batch, learning rate and schedule.

    - Images of a GPU: the largest even number n with 1.5 GB + n x (GB per image) <= memory, at
      least 2, B at most 16 (or 2 a GPU). GB per image is the model zoo's, in proportion to the
      pixels.
    - Sizes: the shipped ones (longer side 1333), or all of them smaller, so that the median
      image is at most doubled.
    - Labelled images alone: 24 passes, between 2,000 and 60,000 steps of 8 images. Then 12
      passes over the unlabelled images, at least 4 times the first part where 180,000 steps of 8
      in all leave room for that. The COCO 10 % split gets the shipped 60,000 + 120,000.
    - Some 18 validations, at least 500 steps apart, one of them at the end of the first part.
    - Everything else is in proportion to the shipped schedule.
    - Repeat factor sampling where the commonest class has 10 times the images of the rarest and
      labelled images are seen at most 64 times, for classes in fewer images than the median class.

    Args:
        arch: a key of ``ARCHITECTURES``.
        labelled: L, images with annotations, >= 1.
        unlabelled: U, >= 1.
        gpus: >= 0; 0 for the CPU, which takes 2 images.
        gpu_memory: of one GPU in GB, > 0.
        longer_side: median over the labelled images, in pixels, > 0.
        image_counts: labelled images of every class.

    Raises:
        ValueError: an argument is out of its range, or the architecture unknown.
    """
    check_choice('new-config', '--arch', arch, ARCHITECTURES)
    check_range('new-config', 'labelled images', labelled, 1, None)
    check_range('new-config', 'unlabelled images', unlabelled, 1, None)
    check_range('new-config', '--gpus', gpus, 0, None)
    check_range('new-config', '--gpu-memory', gpu_memory, 0, None, include_lower=False)
    check_range('new-config', 'longer side', longer_side, 0, None, include_lower=False)

    shrink = min(1.0, MAX_UPSCALING * longer_side / LONGER_SIDE)
    pixels = SHORTER_SIDES[1] / TEST_SIDE * shrink**2
    gb_per_image = ARCHITECTURES[arch].zoo_gb / 2 * pixels
    per_gpu = 2
    if gpus > 0:
        fitting = 2 * int((gpu_memory - FIXED_GB) / (2 * gb_per_image))
        per_gpu = max(2, min(fitting, 2 * (MAX_BATCH // (2 * gpus))))
    batch = per_gpu * max(gpus, 1)
    longer = BASE_BATCH / batch
    supervised = _between(
        LABELLED_PASSES * labelled / (batch / 2),
        MIN_SUPERVISED_ITERS * longer,
        BASE_SUPERVISED_ITERS * longer,
    )
    semi = _between(
        UNLABELLED_PASSES * unlabelled / (batch / 2),
        4 * supervised,
        BASE_MAX_ITERS * longer - supervised,
    )
    before = max(1, round(VALIDATIONS * supervised / (supervised + semi)))
    val_interval = math.ceil(max(supervised / before, MIN_INTERVAL) / 100) * 100
    supervised = math.ceil(supervised / val_interval) * val_interval
    # Where the first part is short its interval would be a short one for all the rest.
    later = max(1, round((supervised + semi) / VALIDATIONS / val_interval)) * val_interval
    longest = math.floor((BASE_MAX_ITERS * longer - supervised) / val_interval) * val_interval
    # Of very many GPUs, whose batch leaves no iteration over.
    longest = max(longest, val_interval)
    semi = min(math.ceil(max(semi, 4 * supervised) / val_interval) * val_interval, longest)
    total = supervised + semi
    return TrainingPlan(
        batch_per_gpu=per_gpu,
        batch=batch,
        fits=gpus == 0 or FIXED_GB + 2 * gb_per_image <= gpu_memory,
        gb_per_image=gb_per_image,
        lr_factor=batch / BASE_BATCH,
        scale=None if shrink == 1 else _scaled(shrink),
        supervised_iters=supervised,
        max_iters=total,
        warmup_iters=min(1000, supervised // 4),
        ramp_iters=min(round(BASE_RAMP_ITERS * longer), supervised // 4),
        milestones=(_hundreds(total * 2 / 3), _hundreds(total * 8 / 9)),
        val_interval=val_interval,
        later_val_interval=later,
        checkpoint_interval=val_interval // 2 if val_interval >= 2 * MIN_INTERVAL else val_interval,
        refresh_interval=int(np.clip(semi // 100, 50, 500)),
        momentum=float(f'{max(0.0004, 10 / semi):.1g}'),
        oversample_thr=_oversample_thr(image_counts, labelled, total * batch / 2 / labelled),
    )


def _between(value: float, lower: float, upper: float) -> float:
    return min(max(value, lower), upper)


def _hundreds(value: float) -> int:
    return max(100, round(value / 100) * 100)


def _scaled(shrink: float) -> tuple[int, int, int, int]:
    sides = (LONGER_SIDE, *SHORTER_SIDES, TEST_SIDE)
    # Multiples of 32, the size of a cell of the coarsest feature map.
    longer, low, high, test = (max(32, round(side * shrink / 32) * 32) for side in sides)
    return longer, low, high, test


def _oversample_thr(image_counts: Sequence[int], labelled: int, passes: float) -> float | None:
    counts = np.array([n for n in image_counts if n > 0])
    if passes > OVERSAMPLED_PASSES:
        return None
    if len(counts) < 2 or counts.max() < OVERSAMPLED_RATIO * counts.min():
        return None
    # Rounded down: a threshold just above the median class's share would show it twice as often,
    # since the host rounds repeats up.
    share = min(1.0, float(np.median(counts)) / labelled)
    digits = 1 - math.floor(math.log10(share))
    return math.floor(share * 10**digits + 1e-9) / 10**digits
