"""Arm 5: arm 4 + soft labels of every object."""

_base_ = './arm-4.py'

model = dict(semi_train_cfg=dict(label_mode='soft'))
