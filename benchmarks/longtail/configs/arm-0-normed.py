"""Arm 0-normed: arm 0 with a normalised (cosine) classifier, as the Seesaw arm has it."""

_base_ = './arm-0.py'

model = dict(
    detector=dict(roi_head=dict(bbox_head=dict(cls_predictor_cfg=dict(type='NormedLinear'))))
)
