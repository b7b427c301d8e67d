"""Mask R-CNN Swin-T, 10 % of COCO labelled."""

_base_ = [
    '../_base_/models/calibrated-soft-teacher_mask-rcnn_swin-t-p4-w7_fpn.py',
    '../_base_/datasets/semi-0.1_coco_instance.py',
    '../_base_/schedules/semi_180k_adamw.py',
]

custom_hooks = [*_base_.custom_hooks, _base_.pseudo_labeler]
