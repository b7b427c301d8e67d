"""Mask R-CNN with a narrow ResNet-18, from scratch, for pictures of 128 to 160 pixels on a CPU."""

_base_ = ['./calibrated-soft-teacher_mask-rcnn_r50_fpn.py']

model = dict(
    detector=dict(
        backbone=dict(
            depth=18,
            base_channels=32,
            frozen_stages=-1,
            norm_eval=False,
            init_cfg=None,
        ),
        neck=dict(in_channels=[32, 64, 128, 256], out_channels=64),
        rpn_head=dict(
            in_channels=64,
            feat_channels=64,
            # Half the host's anchor size: objects here are 12 to 80 pixels wide.
            anchor_generator=dict(scales=[4]),
        ),
        roi_head=dict(
            bbox_roi_extractor=dict(out_channels=64),
            bbox_head=dict(in_channels=64, fc_out_channels=256),
            mask_roi_extractor=dict(out_channels=64),
            mask_head=dict(in_channels=64, conv_out_channels=64, num_convs=2),
        ),
        train_cfg=dict(
            rpn_proposal=dict(nms_pre=300, max_per_img=150),
            rcnn=dict(sampler=dict(num=64)),
        ),
        test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=150), rcnn=dict(max_per_img=50)),
    ),
    # Without the mirror image, to be over in minutes; who wants it says so.
    semi_train_cfg=dict(_delete_=True, sup_weight=1.0, unsup_weight=1.0),
)
