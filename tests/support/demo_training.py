"""The demo's training, small enough for seconds, with every phase and several refreshes."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from mmdet_softpl.cli.demo import replace_prefix
from mmdet_softpl.datasets.longtail_shapes import generate_longtail_shapes
from mmdet_softpl.datasets.shape_plan import ShapesConfig
from tests.support.tiny import shrink

CONFIG = 'configs/demo/calibrated-soft-teacher_mask-rcnn_r18_longtail-shapes.py'
ITERS = 8
# Phases: supervised 0-1, frozen teacher 2-3, moving average 4-7; refreshes at 4, 6 and 8, and the
# labeller's first one at 3.
SUPERVISED, BURN_IN, REFRESH = 2, 2, 2


def make_shapes(root: Path) -> Path:
    """Write the pictures below ``root``, and return it."""
    config = ShapesConfig(num_train=24, num_unlabeled=16, num_val=4, image_size=64)
    generate_longtail_shapes(str(root), config, progress=False, workers=1)
    return root


def make_config(
    repository: Path, shapes: Path, work_dir: Path, workers: int, validate: bool
) -> Config:
    """The config, with a checkpoint of every iteration.

    Args:
        repository: Root of the repository.
        shapes: Of ``make_shapes``.
        work_dir: Of the training.
        workers: Processes that load data.
        validate: Whether it validates, at iterations 4 and 8.
    """
    read = Config.fromfile(repository / CONFIG)
    # Unformatted: every checkpoint holds the config's text, which takes seconds to format.
    moved = replace_prefix(read.to_dict(), read.data_root, f'{shapes}/')
    cfg = Config(moved, filename=read.filename, format_python_code=False)
    shrink(cfg.model.detector, cfg.num_classes)
    cfg.model.detector.roi_head.bbox_head.update(warmup_iters=1, refresh_interval=REFRESH)
    # An untrained network is never sure of anything: every detection becomes a pseudo-label.
    cfg.model.detector.test_cfg.rcnn.max_per_img = 5
    cfg.model.semi_train_cfg.update(
        score_thr=0.0,
        score_floor=0.01,
        objectness_thr=0.0,
        calibration_interval=1,
        refresh_interval=REFRESH,
        max_per_img=10,
    )
    mean_teacher, labeler, *_ = cfg.custom_hooks
    mean_teacher.update(supervised_iters=SUPERVISED, burn_in_iters=BURN_IN, ramp_iters=3)
    labeler.update(interval=REFRESH, fixed_thr=0.05, thr_range=(0.02, 0.9), min_count=2)
    loader = cfg.train_dataloader
    loader.update(
        batch_size=2, num_workers=workers, persistent_workers=workers > 0, pin_memory=False
    )
    loader.sampler.batch_size = 2
    cfg.val_dataloader.update(
        batch_size=2, num_workers=workers, persistent_workers=workers > 0, pin_memory=False
    )
    cfg.train_cfg.update(max_iters=ITERS, val_interval=4)
    if not validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
    cfg.param_scheduler[1].milestones = [6]
    cfg.default_hooks.checkpoint.update(interval=1, max_keep_ckpts=-1)
    cfg.default_hooks.logger.interval = 1
    cfg.log_level = 'WARNING'
    cfg.randomness = dict(seed=0)
    cfg.work_dir = str(work_dir)
    return cfg
