"""Arm 7-shipped: arm 7-normed with the weight of unlabelled images of the shipped configs."""

_base_ = './arm-7-normed.py'

model = dict(semi_train_cfg=dict(unsup_weight=1.0))
