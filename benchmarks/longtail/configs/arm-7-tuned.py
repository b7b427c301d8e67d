"""Arm 7-tuned: arm 7 with what `softpl tune` chose for it.

`softpl tune CONFIG --checkpoint burn-in-similarity-seed2/final.pth --trials 100`, where CONFIG is
the config of arm 7 with `tune` as its validation set. The search went by F2 instead of today's F1;
by F1 it is 0.218 instead of 0.189 on the half of `tune` that was not tuned on.
"""

_base_ = './arm-7.py'

model = dict(detector=dict(roi_head=dict(bbox_head=dict(temperature=0.05))))
custom_hooks = _base_.custom_hooks
custom_hooks[2].update(
    boost_gamma=1.4265, max_boost=4.3449, prototype_weight=(0.9278, 0.6456, 0.8633)
)
