"""Arm 2: smoothing toward similar classes instead."""

_base_ = './arm-1.py'

model = dict(detector=dict(roi_head=dict(bbox_head=dict(smoothing_mode='similarity'))))
