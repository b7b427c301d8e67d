"""The same for the 1,203 classes of LVIS v1."""

_base_ = ['./calibrated-soft-teacher_mask-rcnn_r50_fpn.py']

model = dict(
    detector=dict(
        roi_head=dict(bbox_head=dict(num_classes=1203), mask_head=dict(num_classes=1203)),
        # LVIS: 300 detections an image, and rare classes live below 0.05.
        test_cfg=dict(rcnn=dict(score_thr=0.0001, max_per_img=300)),
    )
)
