"""Arm 5-plain: arm 3 + soft labels of every object, that is arm 5 on the head of arm 0."""

_base_ = './arm-3.py'

model = dict(semi_train_cfg=dict(label_mode='soft'))
