"""Arm 3-shipped: arm 3-normed with the weight of unlabelled images of the shipped configs."""

_base_ = './arm-3-normed.py'

model = dict(semi_train_cfg=dict(unsup_weight=1.0))
