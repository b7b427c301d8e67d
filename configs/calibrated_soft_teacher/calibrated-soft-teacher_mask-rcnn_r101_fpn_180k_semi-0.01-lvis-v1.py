"""Mask R-CNN R101, 1 % of LVIS v1 labelled."""

_base_ = [
    '../_base_/models/calibrated-soft-teacher_mask-rcnn_r101_fpn_lvis-v1.py',
    '../_base_/datasets/semi-0.01_lvis_v1_instance.py',
    '../_base_/schedules/semi_180k.py',
]

custom_hooks = [*_base_.custom_hooks, _base_.pseudo_labeler]
custom_hooks[0].supervised_iters = 20000  # 80 passes over the labelled images
