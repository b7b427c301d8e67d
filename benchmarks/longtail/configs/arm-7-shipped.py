"""Arm 7-shipped: arm 7 with the settings of the shipped configs."""

_base_ = './arm-7.py'

model = dict(semi_train_cfg=dict(mirror=False, calibration_interval=10))
custom_hooks = _base_.custom_hooks
custom_hooks[2].update(alpha=0.2, thr_range=(0.3, 0.9))
