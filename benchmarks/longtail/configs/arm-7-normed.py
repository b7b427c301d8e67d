"""Arm 7-normed: arm 7 with a normalised (cosine) classifier, as the Seesaw arm has it."""

_base_ = './arm-7.py'

model = dict(
    detector=dict(roi_head=dict(bbox_head=dict(cls_predictor_cfg=dict(type='NormedLinear'))))
)
