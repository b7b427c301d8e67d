"""Tiny detectors, batches and configs for tests: seconds on one core."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config, ConfigDict
from mmengine.structures import InstanceData

REPOSITORY = Path(__file__).resolve().parents[2]
NUM_CLASSES = 5
# ``semi_train_cfg`` for networks that are not trained and never sure of anything.
GENEROUS = dict(
    score_thr=0.15,
    objectness_thr=0.3,
    calibration_interval=1,
    refresh_interval=2,
    student_correction=True,
)


def shrink(detector: Any, num_classes: int = NUM_CLASSES) -> Any:
    """Make a Faster, Mask or Cascade R-CNN config tiny, in place: R18 of width 8, FPN of 16.

    A Swin backbone gets the same widths and one block a stage.
    """
    if detector.backbone.type.endswith('SwinTransformer'):
        detector.backbone.update(
            embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8], init_cfg=None
        )
    else:
        detector.backbone.update(depth=18, base_channels=8, init_cfg=None, frozen_stages=-1)
    detector.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    detector.rpn_head.update(in_channels=16, feat_channels=16)
    roi = detector.roi_head
    extractors = [roi.bbox_roi_extractor, roi.get('mask_roi_extractor')]
    for extractor in extractors:
        if extractor is not None:
            extractor.out_channels = 16
    heads = roi.bbox_head if isinstance(roi.bbox_head, list) else [roi.bbox_head]
    for head in heads:
        head.update(in_channels=16, fc_out_channels=32, num_classes=num_classes)
    if roi.get('mask_head') is not None:
        roi.mask_head.update(
            in_channels=16, conv_out_channels=16, num_convs=1, num_classes=num_classes
        )
    cfgs = detector.train_cfg.rcnn
    for rcnn in cfgs if isinstance(cfgs, list) else [cfgs]:
        rcnn.sampler.num = 32
    detector.train_cfg.rpn_proposal.update(nms_pre=100, max_per_img=50)
    detector.test_cfg.rpn.update(nms_pre=100, max_per_img=50)
    return detector


def detector_config(name: str = 'mask-rcnn', num_classes: int = NUM_CLASSES) -> Any:
    """Tiny config of mmdet's ``faster-rcnn``, ``mask-rcnn`` or ``cascade-mask-rcnn`` R50 FPN."""
    base = Config.fromstring(
        f"_base_ = ['mmdet::_base_/models/{name}_r50_fpn.py']\n", file_format='.py'
    )
    return shrink(base.model, num_classes)


def use_smoothed_head(detector: Any, **kwargs: Any) -> Any:
    """Replace the box heads' type, in place."""
    heads = detector.roi_head.bbox_head
    for head in heads if isinstance(heads, list) else [heads]:
        head.update(type='mmdet_softpl.SmoothedCEHead', **kwargs)
    return detector


def semi_config(detector: Any, **semi_train_cfg: Any) -> dict:
    """CalibratedSoftTeacher around a detector's config."""
    return dict(
        type='mmdet_softpl.CalibratedSoftTeacher',
        detector=copy.deepcopy(detector),
        data_preprocessor=dict(
            type='mmdet.MultiBranchDataPreprocessor',
            data_preprocessor=copy.deepcopy(detector.data_preprocessor),
        ),
        semi_train_cfg=semi_train_cfg,
    )


def lively(model: Any) -> Any:
    """In training mode, with unequal scores: the host's zero-mean heads give equal ones."""
    with torch.no_grad():
        for parameter in model.student.parameters():
            if parameter.dim() > 1:
                parameter.add_(0.02 * torch.randn_like(parameter))
    model.teacher.load_state_dict(model.student.state_dict())
    return model.train()


def data_sample(
    size: int = 96,
    num_instances: int = 2,
    num_classes: int = NUM_CLASSES,
    homography: np.ndarray | None = None,
    seed: int = 0,
) -> DetDataSample:
    """A data sample with boxes, labels and box-shaped masks."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, size * 0.6, (num_instances, 2))
    sizes = rng.uniform(size * 0.2, size * 0.4, (num_instances, 2))
    boxes = np.concatenate([corners, corners + sizes], 1).astype(np.float32)
    masks = np.zeros((num_instances, size, size), dtype=np.uint8)
    for mask, box in zip(masks, boxes.astype(int), strict=True):
        mask[box[1] : box[3], box[0] : box[2]] = 1
    sample = DetDataSample(
        metainfo=dict(
            img_id=seed,
            img_path=f'{seed}.png',
            ori_shape=(size, size),
            img_shape=(size, size),
            pad_shape=(size, size),
            batch_input_shape=(size, size),
            scale_factor=(1.0, 1.0),
            homography_matrix=np.eye(3, dtype=np.float32) if homography is None else homography,
        )
    )
    sample.gt_instances = InstanceData(
        bboxes=torch.from_numpy(boxes),
        labels=torch.from_numpy(rng.integers(0, num_classes, num_instances)),
        masks=BitmapMasks(masks, size, size),
    )
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4))
    return sample


def multi_batch(
    size: int = 96, batch_size: int = 2, num_classes: int = NUM_CLASSES, flip: bool = True
) -> tuple[dict, dict]:
    """Inputs and data samples of the three branches; the student sees a flipped image."""
    generator = torch.Generator().manual_seed(0)
    matrix = np.array([[-1, 0, size], [0, 1, 0], [0, 0, 1]], dtype=np.float32)
    weak = torch.randn(batch_size, 3, size, size, generator=generator)
    inputs = dict(
        sup=torch.randn(batch_size, 3, size, size, generator=generator),
        unsup_teacher=weak,
        unsup_student=weak.flip(3) if flip else weak.clone(),
    )
    samples = dict(
        sup=[data_sample(size, num_classes=num_classes, seed=i) for i in range(batch_size)],
        unsup_teacher=[data_sample(size, 0, num_classes, seed=i) for i in range(batch_size)],
        unsup_student=[
            data_sample(size, 0, num_classes, matrix if flip else None, seed=i)
            for i in range(batch_size)
        ],
    )
    return inputs, samples


def soft_teacher_config() -> ConfigDict:
    """The host's own detector for boxes."""
    return ConfigDict(
        type='SoftTeacher',
        detector=detector_config('faster-rcnn'),
        data_preprocessor=dict(
            type='MultiBranchDataPreprocessor', data_preprocessor=dict(type='DetDataPreprocessor')
        ),
        semi_train_cfg=dict(
            freeze_teacher=True,
            pseudo_label_initial_score_thr=0.5,
            rpn_pseudo_thr=0.9,
            cls_pseudo_thr=0.9,
            reg_pseudo_thr=0.02,
            jitter_times=2,
            jitter_scale=0.06,
            min_pseudo_bbox_wh=(1e-2, 1e-2),
        ),
        semi_test_cfg=dict(predict_on='teacher'),
    )
