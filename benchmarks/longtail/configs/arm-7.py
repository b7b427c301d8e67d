"""Arm 7: arm 6 + calibrated targets. The full method."""

_base_ = './arm-6.py'

model = dict(semi_train_cfg=dict(calibration='histogram', calibration_interval=2))
