"""Arm 0-true-normed: arm 0-true with a normalised (cosine) classifier. A bound."""

_base_ = './arm-0-true.py'

model = dict(
    detector=dict(roi_head=dict(bbox_head=dict(cls_predictor_cfg=dict(type='NormedLinear'))))
)
