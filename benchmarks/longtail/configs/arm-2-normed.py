"""Arm 2-normed: arm 2 with a normalised (cosine) classifier, as the Seesaw arm has it."""

_base_ = './arm-2.py'

model = dict(
    detector=dict(roi_head=dict(bbox_head=dict(cls_predictor_cfg=dict(type='NormedLinear'))))
)
