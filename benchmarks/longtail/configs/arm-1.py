"""Arm 1: arm 0 + uniform smoothing."""

_base_ = './arm-0.py'

model = dict(detector=dict(roi_head=dict(bbox_head=dict(smoothing_mode='uniform', smoothing=0.1))))
