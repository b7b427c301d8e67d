"""Arm soft-teacher: mmdet's own Soft Teacher, with the settings that mmdet ships for it.

It has no masks: its mask head learns from labelled images alone.
"""

_base_ = './arm-3.py'

model = dict(
    type='BoxesSoftTeacher',
    semi_train_cfg=dict(
        _delete_=True,
        freeze_teacher=True,
        sup_weight=1.0,
        unsup_weight=4.0,
        pseudo_label_initial_score_thr=0.5,
        rpn_pseudo_thr=0.9,
        cls_pseudo_thr=0.9,
        reg_pseudo_thr=0.02,
        jitter_times=10,
        jitter_scale=0.06,
        min_pseudo_bbox_wh=(0.01, 0.01),
    ),
)
# The labeller works on CalibratedSoftTeacher, or would change what is compared with.
custom_hooks = _base_.custom_hooks[:2] + _base_.custom_hooks[3:]
