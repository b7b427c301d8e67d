"""Any of the shipped or stock configs, made small enough to train in seconds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from tests.support.tiny import shrink

DATA_ROOTS = ('data/coco/', 'data/lvis_v1/', 'data/longtail_shapes/', 'data/custom/')
# Every detection becomes a pseudo-label.
KEEP_EVERYTHING = dict(
    score_thr=0.0,
    score_floor=0.0,
    objectness_thr=0.0,
    calibration_interval=1,
    student_correction=True,
)


def read_config(text: str, folder: Path, **names: object) -> Config:
    """``Config.fromfile`` of a text whose ``{name}`` are filled in, as a file of ``folder``."""
    for name, value in names.items():
        text = text.replace(f'{{{name}}}', str(value))
    path = folder / 'config.py'
    path.write_text(text)
    return Config.fromfile(path)


def shrink_model(model: Any) -> Any:
    """``shrink`` the detector of a plain or semi-supervised model config, in place."""
    detector = model.get('detector', model)
    heads = detector.roi_head.bbox_head
    head = heads[0] if isinstance(heads, list) else heads
    shrink(detector, head.num_classes)
    detector.train_cfg.rpn_proposal.max_per_img = 20
    detector.test_cfg.rpn.max_per_img = 20
    rcnn = detector.test_cfg.rcnn
    rcnn.max_per_img = 10
    if rcnn.score_thr >= 0.05:
        # An untrained network has about 1 / (C + 1) for every class.
        rcnn.score_thr = 0.001
    return model


def make_tiny(cfg: Config, root: Path | str, work_dir: Path, iters: int = 3) -> Config:
    """Small network, small pictures of ``root``, ``iters`` iterations and one evaluation.

    What a user composes (types of the parts and how they are wired) stays as it is.
    """
    relocate(cfg._cfg_dict, f'{root}/')
    shrink_model(cfg.model)
    loader = cfg.train_dataloader
    loader.update(num_workers=0, persistent_workers=False, batch_size=2, pin_memory=False)
    if 'source_ratio' in loader.sampler:
        loader.sampler.update(batch_size=2, source_ratio=[1, 1])
    for name in ('val_dataloader', 'test_dataloader'):
        cfg[name].update(num_workers=0, persistent_workers=False, pin_memory=False)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=iters, val_interval=iters)
    cfg.param_scheduler = []
    # Without pre-trained weights the recipes' steps would be far too large.
    cfg.optim_wrapper.clip_grad = dict(max_norm=1.0)
    cfg.optim_wrapper.optimizer.lr = 0.001
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=iters)
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=1)
    cfg.log_processor = dict(type='LogProcessor', by_epoch=False, window_size=1)
    cfg.work_dir = str(work_dir)
    cfg.randomness = dict(seed=0)
    for hook in cfg.get('custom_hooks', []):
        if hook.type.endswith('BurnInMeanTeacherHook'):
            hook.update(supervised_iters=1, ramp_iters=2)
        elif hook.type.endswith('RareBoostPseudoLabeler'):
            hook.update(interval=2, fixed_thr=0.0, thr_range=(0.0, 0.9))
    if cfg.model.type.endswith('CalibratedSoftTeacher'):
        cfg.model.setdefault('semi_train_cfg', {})
        cfg.model.semi_train_cfg.update(KEEP_EVERYTHING)
    return cfg


def relocate(node: Any, root: str, factor: float = 0.1) -> Any:
    """Set the data roots and scale the pictures, in nested dicts and lists, in place.

    In the host's configs all sizes are (1333, N).
    """
    if isinstance(node, dict):
        for key in node:
            node[key] = relocate(node[key], root, factor)
        return node
    if isinstance(node, (list, tuple)):
        if len(node) == 2 and node[0] == 1333:
            node = (round(1333 * factor), max(64, round(node[1] * factor)))
        items = [relocate(item, root, factor) for item in node]
        return items if isinstance(node, list) else tuple(items)
    if isinstance(node, str):
        for old in DATA_ROOTS:
            node = node.replace(old, root)
    return node


class Recorder(Hook):
    """Keeps the losses of every iteration."""

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.losses.append({key: float(value.detach()) for key, value in outputs.items()})


class KeptMetrics(Hook):
    """Keeps the metrics of the last evaluation."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}

    def after_val_epoch(self, runner, metrics=None) -> None:
        self.metrics = dict(metrics)


def train(cfg: Config) -> tuple[Runner, list[dict[str, float]], dict[str, float]]:
    """Train and evaluate.

    Returns:
        The runner, the losses of each iteration, the metrics of the evaluation.
    """
    recorder, kept = Recorder(), KeptMetrics()
    runner = Runner.from_cfg(cfg)
    runner.register_hook(recorder)
    runner.register_hook(kept)
    runner.train()
    return runner, recorder.losses, kept.metrics


def assert_trained(
    losses: list[dict[str, float]], metrics: dict[str, float], iters: int = 3
) -> None:
    """Every iteration had finite losses, and the evaluation has results."""
    assert len(losses) == iters
    for step in losses:
        assert all(math.isfinite(value) for value in step.values()), step
        assert step['loss'] > 0
    assert any('mAP' in key or '_AP' in key for key in metrics), metrics
