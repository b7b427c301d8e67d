"""Arm 3-normed: arm 3 with a normalised (cosine) classifier, as the Seesaw arm has it."""

_base_ = './arm-3.py'

model = dict(
    detector=dict(roi_head=dict(bbox_head=dict(cls_predictor_cfg=dict(type='NormedLinear'))))
)
