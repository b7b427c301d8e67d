"""Arm 0-seesaw: arm 0 with Seesaw loss and its normalised classifier, as mmdet ships them."""

_base_ = './arm-0.py'

model = dict(
    detector=dict(
        roi_head=dict(
            bbox_head=dict(
                cls_predictor_cfg=dict(type='NormedLinear'),
                loss_cls=dict(
                    _delete_=True,
                    type='SeesawLoss',
                    p=0.8,
                    q=2.0,
                    num_classes=60,
                    loss_weight=1.0,
                ),
            )
        )
    )
)
