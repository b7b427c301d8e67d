"""Arm 5v: arm 5 with labels that are means over each view and its mirror image."""

_base_ = './arm-5.py'

model = dict(semi_train_cfg=dict(mirror=True))
