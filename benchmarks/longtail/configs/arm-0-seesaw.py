"""Arm 0-seesaw: arm 0 with Seesaw loss and its normalised classifier, as mmdet ships them.

`CalibratedSoftTeacher` takes softmax heads alone, so it is a plain pair of networks.
"""

_base_ = './arm-0.py'

model = dict(
    type='SupervisedPair',
    semi_train_cfg=dict(_delete_=True, sup_weight=1.0),
    detector=dict(
        roi_head=dict(
            bbox_head=dict(
                _delete_=True,
                type='Shared2FCBBoxHead',
                in_channels=64,
                fc_out_channels=256,
                roi_feat_size=7,
                num_classes=60,
                bbox_coder=dict(
                    type='DeltaXYWHBBoxCoder',
                    target_means=[0.0, 0.0, 0.0, 0.0],
                    target_stds=[0.1, 0.1, 0.2, 0.2],
                ),
                reg_class_agnostic=False,
                loss_bbox=dict(type='L1Loss', loss_weight=1.0),
                cls_predictor_cfg=dict(type='NormedLinear'),
                loss_cls=dict(type='SeesawLoss', p=0.8, q=2.0, num_classes=60, loss_weight=1.0),
            )
        )
    ),
)
# The labeller needs a teacher that labels.
custom_hooks = _base_.custom_hooks[:2] + _base_.custom_hooks[3:]
