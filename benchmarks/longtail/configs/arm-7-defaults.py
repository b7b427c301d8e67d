"""Arm 7-defaults: arm 7 with the defaults of detector and labeller but for boost and weight."""

_base_ = './arm-7.py'

model = dict(semi_train_cfg=dict(mirror=False, calibration_interval=10))
custom_hooks = _base_.custom_hooks
custom_hooks[2].update(alpha=0.2, thr_range=(0.3, 0.9))
