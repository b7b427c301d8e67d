"""Arm 8: arm 7 + student-side correction."""

_base_ = './arm-7.py'

model = dict(semi_train_cfg=dict(student_correction=True))
