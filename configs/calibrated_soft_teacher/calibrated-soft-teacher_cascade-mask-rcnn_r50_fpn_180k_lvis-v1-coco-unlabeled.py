"""Cascade Mask R-CNN R50, all of LVIS v1 labelled, COCO's unlabeled2017 (a folder) beside it."""

_base_ = [
    '../_base_/models/calibrated-soft-teacher_cascade-mask-rcnn_r50_fpn_lvis-v1.py',
    '../_base_/datasets/semi_lvis_v1_instance.py',
    '../_base_/schedules/semi_180k.py',
]

custom_hooks = [*_base_.custom_hooks, _base_.pseudo_labeler]
# The 60,000 supervised iterations are 2.4 passes over the labelled images. Better start, by
# load_from, from a detector of this architecture that was trained on LVIS with this classifier
# (NormedLinear; or set cls_predictor_cfg to the one that it has).
