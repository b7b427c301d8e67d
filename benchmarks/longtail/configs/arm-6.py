"""Arm 6: arm 6a + evidence of the class prototypes for rare and common classes."""

_base_ = './arm-6a.py'

custom_hooks = _base_.custom_hooks
custom_hooks[2].update(prototype_weight=(1.0, 0.5, 0.0))
