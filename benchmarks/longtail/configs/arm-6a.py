"""Arm 6a: arm 5v + boost of rare classes by frequency, thresholds per class."""

_base_ = './arm-5v.py'

custom_hooks = _base_.custom_hooks
custom_hooks[2].update(
    threshold_mode='prior',
    alpha=0.5,
    thr_range=(0.2, 0.9),
    boost_gamma=1.0,
    max_boost=16.0,
    align_rate=0.5,
)
