"""Arm 2-seesaw: arm 2 with Seesaw loss and its normalised classifier."""

_base_ = './arm-2.py'

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
