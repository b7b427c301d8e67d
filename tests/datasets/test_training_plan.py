"""The rules of the plan, by the schedules that they must give."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from mmengine.config import Config

from mmdet_softpl.cli.new_config import ARCHS
from mmdet_softpl.datasets.training_plan import ARCHITECTURES, plan_training
from mmdet_softpl.shipped_configs import config_path

COCO_10_PERCENT = (11_829, 106_458)


def test_coco_gets_the_shipped_schedule() -> None:
    plan = plan_training('mask-rcnn_r50', *COCO_10_PERCENT, gpus=4, gpu_memory=9)
    assert (plan.batch_per_gpu, plan.batch, plan.lr_factor) == (2, 8, 1.0)
    cfg = Config.fromfile(str(config_path('semi_180k')))
    assert cfg.auto_scale_lr.base_batch_size == plan.batch
    assert plan.supervised_iters == cfg.custom_hooks[0].supervised_iters
    assert plan.max_iters == cfg.train_cfg.max_iters
    assert list(plan.milestones) == cfg.param_scheduler[1].milestones
    assert plan.val_interval == cfg.train_cfg.val_interval
    assert plan.checkpoint_interval == cfg.default_hooks.checkpoint.interval
    assert plan.warmup_iters == cfg.param_scheduler[0].end
    assert plan.ramp_iters == cfg.custom_hooks[0].ramp_iters
    assert plan.momentum == cfg.custom_hooks[0].momentum
    assert plan.refresh_interval == 500
    assert plan.scale is None and plan.oversample_thr is None


def test_small_data_gets_a_short_schedule() -> None:
    plan = plan_training('mask-rcnn_r50', 300, 1000, gpus=1, gpu_memory=28)
    assert plan.batch == 8
    # 24 passes are 1,800 iterations, below the least; 12 passes over the others likewise.
    assert (plan.supervised_iters, plan.max_iters) == (2000, 10_000)
    assert plan.momentum == 0.001 and plan.refresh_interval == 80
    assert (plan.val_interval, plan.checkpoint_interval) == (500, 500)
    assert plan.milestones == (6700, 8900)
    more = plan_training('mask-rcnn_r50', 300, 20_000, gpus=1, gpu_memory=28)
    assert more.max_iters - more.supervised_iters == 60_000


@pytest.mark.parametrize('arch', ARCHITECTURES)
def test_memory_decides_the_batch(arch: str) -> None:
    memories = (4, 11, 16, 24, 48, 80)
    plans = [plan_training(arch, 300, 900, gpu_memory=memory) for memory in memories]
    batches = [plan.batch_per_gpu for plan in plans]
    assert batches == sorted(batches) and batches[0] == 2 and 12 <= batches[-1] <= 16
    assert not plans[0].fits and plans[-1].fits
    for memory, plan in zip(memories, plans, strict=True):
        assert plan.batch_per_gpu % 2 == 0 and plan.lr_factor == plan.batch / 8
        used = 1.5 + plan.batch_per_gpu * plan.gb_per_image
        assert plan.fits == (used <= memory)
        # Two more would not fit, or be more than 16.
        more = used + 2 * plan.gb_per_image
        assert more > memory or plan.batch_per_gpu == 16
    # What the model zoo reports for two images of 1333 x 800, in proportion to the pixels.
    assert plans[0].gb_per_image == pytest.approx(ARCHITECTURES[arch].zoo_gb * 0.75)


@pytest.mark.parametrize('gpus', [0, 1, 2, 8, 16])
def test_gpus(gpus: int) -> None:
    plan = plan_training('mask-rcnn_r50', 3000, 9000, gpus=gpus, gpu_memory=80)
    assert plan.batch == plan.batch_per_gpu * max(gpus, 1)
    assert plan.batch == {0: 2, 1: 16, 2: 16, 8: 16, 16: 32}[gpus]
    # The images that are seen do not depend on the batch, but for rounding to whole intervals.
    one = plan_training('mask-rcnn_r50', 3000, 9000, gpus=4, gpu_memory=9)
    assert plan.max_iters * plan.batch == pytest.approx(one.max_iters * 8, rel=0.1)


def test_small_images_are_not_blown_up() -> None:
    plan = plan_training('mask-rcnn_r50', 300, 900, longer_side=128)
    assert plan.scale == (256, 64, 224, 160)
    assert plan.gb_per_image < 0.2
    assert plan_training('mask-rcnn_r50', 300, 900, longer_side=667).scale is None


def test_oversampling_of_a_long_tail() -> None:
    plan = plan_training('mask-rcnn_r50', 20_000, 90_000, image_counts=[16_000, 6000, 4000, 800, 0])
    assert plan.oversample_thr == 0.25
    even = plan_training('mask-rcnn_r50', 20_000, 90_000, image_counts=[16_000, 6000, 4000, 1800])
    assert even.oversample_thr is None
    one = plan_training('mask-rcnn_r50', 20_000, 90_000, image_counts=[16_000])
    assert one.oversample_thr is None
    assert even == replace(plan, oversample_thr=None)


@pytest.mark.parametrize('batch', [2, 8, 16])
def test_images_that_are_seen_often_are_not_oversampled(batch: int) -> None:
    # 180,000 steps of 8 images, half of them labelled: 64 times each of 11,250.
    for labelled, often in ((300, True), (11_000, True), (11_500, False), (100_000, False)):
        counts = [labelled, labelled // 2, labelled // 100]
        gpus = max(1, batch // 8)
        memory = 80 if batch > 2 else 8
        plan = plan_training(
            'mask-rcnn_r50', labelled, 1_000_000, gpus=gpus, gpu_memory=memory, image_counts=counts
        )
        passes = plan.max_iters * plan.batch / 2 / labelled
        assert (passes > 64) == often
        assert (plan.oversample_thr is None) == often


@pytest.mark.parametrize(
    ('median', 'labelled'), [(2, 20_003), (6800, 33_333), (1, 70_001), (9701, 120_301), (5, 50_000)]
)
def test_the_median_class_is_not_repeated(median: int, labelled: int) -> None:
    plan = plan_training('mask-rcnn_r50', labelled, 9, image_counts=[1, median, 10 * labelled])
    assert plan.oversample_thr is not None
    # As the host counts: ceil(sqrt(t / f)).
    assert math.ceil(math.sqrt(plan.oversample_thr / (median / labelled))) == 1
    assert plan.oversample_thr > 0.9 * median / labelled


@pytest.mark.parametrize('batch', [2, 4, 8, 16])
@pytest.mark.parametrize('labelled', [10, 300, 1700, 12_345, 100_000])
@pytest.mark.parametrize('unlabelled', [50, 7_777, 1_000_000])
def test_the_supervised_part_ends_with_a_validation_and_a_checkpoint(
    batch: int, labelled: int, unlabelled: int
) -> None:
    plan = plan_training('mask-rcnn_r50', labelled, unlabelled, gpus=batch // 2, gpu_memory=5)
    assert plan.batch == batch
    for interval in (plan.val_interval, plan.checkpoint_interval):
        assert interval >= 500
        assert plan.supervised_iters % interval == 0 and plan.max_iters % interval == 0
    seen = plan.supervised_iters * batch / 2
    assert plan.later_val_interval % plan.val_interval == 0
    later = (plan.max_iters - plan.supervised_iters) / plan.later_val_interval
    validations = plan.supervised_iters / plan.val_interval + later
    assert 10 <= validations <= 28
    longest = 180_000 * 8 / batch
    assert plan.max_iters <= longest + plan.val_interval
    room = longest - plan.supervised_iters
    assert plan.max_iters >= min(
        5 * plan.supervised_iters, plan.supervised_iters + room - plan.val_interval
    )
    # 24 passes or the bounds of 2,000 and 60,000 steps of 8, and at most one interval more.
    wanted = min(max(24 * labelled, 8_000), 240_000)
    assert wanted <= seen < wanted + plan.val_interval * batch / 2


@pytest.mark.parametrize('gpus', [64, 1024])
def test_the_least_data_still_gives_a_schedule(gpus: int) -> None:
    plan = plan_training('mask-rcnn_swin-t', 1, 1, gpus=gpus, gpu_memory=80)
    assert 0 < plan.warmup_iters < plan.supervised_iters < plan.milestones[0]
    assert plan.milestones[0] < plan.milestones[1] < plan.max_iters


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        (dict(arch='yolo'), 'yolo'),
        (dict(labelled=0), 'labelled images'),
        (dict(unlabelled=0), 'unlabelled images'),
        (dict(gpus=-1), '--gpus'),
        (dict(gpu_memory=0), '--gpu-memory'),
        (dict(longer_side=0), 'longer side'),
    ],
)
def test_bad_values(change: dict, named: str) -> None:
    arguments = dict(arch='mask-rcnn_r50', labelled=10, unlabelled=10)
    with pytest.raises(ValueError, match=named):
        plan_training(**{**arguments, **change})


def test_every_architecture_is_offered_and_shipped() -> None:
    assert tuple(ARCHITECTURES) == ARCHS
    for architecture in ARCHITECTURES.values():
        assert config_path(architecture.model).parent.name == 'models'
        cfg = Config.fromfile(str(config_path(architecture.schedule)))
        assert cfg.auto_scale_lr.base_batch_size == 8
