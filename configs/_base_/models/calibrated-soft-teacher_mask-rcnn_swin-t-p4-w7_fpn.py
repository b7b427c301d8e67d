"""Mask R-CNN Swin-T. Train it with `../schedules/semi_180k_adamw.py`: SGD does not suit it."""

_base_ = ['./calibrated-soft-teacher_mask-rcnn_r50_fpn.py']

# Of ImageNet-1k, by the authors of Swin; mmdet's Swin configs start from the same file.
pretrained = (
    'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/'
    'swin_tiny_patch4_window7_224.pth'
)

model = dict(
    detector=dict(
        backbone=dict(
            _delete_=True,
            type='SwinTransformer',
            embed_dims=96,
            depths=[2, 2, 6, 2],
            num_heads=[3, 6, 12, 24],
            window_size=7,
            # The student drops paths; the teacher is always in evaluation mode and drops none.
            drop_path_rate=0.2,
            out_indices=(0, 1, 2, 3),
            # The file above names its layers as the original code does.
            convert_weights=True,
            init_cfg=dict(type='Pretrained', checkpoint=pretrained),
        ),
        neck=dict(in_channels=[96, 192, 384, 768]),
    )
)
