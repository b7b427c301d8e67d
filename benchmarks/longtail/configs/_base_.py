"""What all arms share: Mask R-CNN of a narrow ResNet-18 from scratch, everything of ours off.

Numbers of iterations, sizes and paths here are placeholders: the preset sets them
(`benchmarks/longtail/arms.py`).
"""

_base_ = [
    'mmdet::_base_/default_runtime.py',
    '../../../configs/_base_/models/calibrated-soft-teacher_mask-rcnn_r18_tiny.py',
    '../../../configs/_base_/datasets/longtail_shapes.py',
]

custom_imports = dict(
    imports=['mmdet_softpl', 'benchmarks.longtail.parts'], allow_failed_imports=False
)

model = dict(
    detector=dict(
        # The plain classifier, unlike the shipped configs: what that brings are arms of its own.
        roi_head=dict(bbox_head=dict(smoothing_mode='none', cls_predictor_cfg=dict(type='Linear'))),
        # As LVIS does it: a low floor and many detections, or rare classes are cut off first.
        test_cfg=dict(rcnn=dict(score_thr=0.001, max_per_img=100)),
    ),
    # One-hot labels above one threshold; unlabelled images count twice, as they did when the arms
    # were begun (arm 7-unsup_weight-1 has the default).
    semi_train_cfg=dict(
        unsup_weight=2.0,
        label_mode='hard',
        score_thr=0.7,
        calibration='none',
        student_correction=False,
    ),
)

# Every labelled image equally often in every arm (but the two of repeat-factor sampling).
train_dataloader = dict(
    _delete_=True,
    batch_size=8,
    num_workers=0,
    pin_memory=False,
    # DefaultSampler is there for the data set and the seed alone.
    sampler=dict(type='DefaultSampler', shuffle=False),
    batch_sampler=dict(type='PhasedBatches', unlabeled=False),
    dataset=dict(
        type='ConcatDataset',
        ignore_keys=['palette'],
        datasets=[_base_.labeled_dataset, _base_.unlabeled_dataset],
    ),
)
# The benchmark evaluates by itself, at the points of the curves and at the end.
val_dataloader = None
val_evaluator = None
test_dataloader = None
test_evaluator = None

train_cfg = dict(type='IterBasedTrainLoop', max_iters=1)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.001, weight_decay=0.01),
    clip_grad=dict(max_norm=10, norm_type=2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='MultiStepLR', by_epoch=False, milestones=[1], gamma=0.1),
]
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1, max_keep_ckpts=2),
    logger=dict(type='LoggerHook', interval=50),
)
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=False)
visualizer = dict(vis_backends=[])
custom_hooks = [
    dict(type='mmdet_softpl.BurnInMeanTeacherHook'),
    dict(type='UnlabeledSwitch'),
    dict(
        type='mmdet_softpl.RareBoostPseudoLabeler',
        labeled_ann_file=_base_.data_root + 'annotations/train.json',
        threshold_mode='fixed',
        fixed_thr=0.7,
        boost_gamma=0.0,
        max_boost=1.0,
        prototype_weight=0.0,
        align_rate=0.0,
    ),
    dict(type='mmdet_softpl.RandomStateHook'),
]
