"""Arm 7-one-view: arm 7 with labels from the view alone, without its mirror image."""

_base_ = './arm-7.py'

model = dict(semi_train_cfg=dict(mirror=False))
