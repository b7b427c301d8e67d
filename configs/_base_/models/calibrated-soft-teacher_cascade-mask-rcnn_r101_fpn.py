"""As the R50, with ResNet-101."""

_base_ = ['./calibrated-soft-teacher_cascade-mask-rcnn_r50_fpn.py']

model = dict(
    detector=dict(
        backbone=dict(
            depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')
        )
    )
)
