"""What `make demo` trains: 300 labelled, 600 unlabelled pictures of 12 shapes, on a CPU."""

_base_ = [
    'mmdet::_base_/default_runtime.py',
    '../_base_/models/calibrated-soft-teacher_mask-rcnn_r18_tiny.py',
    '../_base_/datasets/longtail_shapes.py',
]

custom_imports = dict(imports=['mmdet_softpl'], allow_failed_imports=False)

num_classes = 12
supervised_iters = 400
max_iters = 700

model = dict(
    detector=dict(
        roi_head=dict(
            # Prototypes are refreshed five times as often as by default, thresholds and
            # calibration ten times: the whole training is as long as one ordinary interval.
            bbox_head=dict(num_classes=num_classes, warmup_iters=100, refresh_interval=20),
            mask_head=dict(num_classes=num_classes),
        )
    ),
    semi_train_cfg=dict(calibration_interval=2, refresh_interval=50),
)

# Labelled objects are pasted into all images, rare classes more often, and labelled images of rare
# classes come up to five times as often (repeat factor sampling, as on LVIS).
balanced = dict(type='ClassBalancedDataset', oversample_thr=0.1, dataset=_base_.labeled_dataset)
train_dataloader = dict(
    dataset=dict(
        type='mmdet_softpl.RareCopyPasteDataset', datasets=[balanced, _base_.unlabeled_dataset]
    )
)

train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=supervised_iters)
val_cfg = dict(type='TeacherStudentValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.001, weight_decay=0.01),
    clip_grad=dict(max_norm=10, norm_type=2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='MultiStepLR', by_epoch=False, milestones=[600], gamma=0.1),
]
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=50, max_keep_ckpts=2),
    # By default validation results of an iteration-based training are logged at step 0.
    logger=dict(type='LoggerHook', interval=20, log_metric_by_epoch=False),
)
log_processor = dict(type='LogProcessor', window_size=20, by_epoch=False)
custom_hooks = [
    dict(
        type='mmdet_softpl.BurnInMeanTeacherHook',
        # Forgets in 100 iterations instead of 2,500: the semi-supervised part has only 300.
        momentum=0.01,
        supervised_iters=supervised_iters,
        ramp_iters=50,
    ),
    dict(
        type='mmdet_softpl.RareBoostPseudoLabeler',
        labeled_ann_file=_base_.data_root + 'annotations/train.json',
        interval=50,
        # A teacher of 400 iterations is right but never sure: the default of 0.2 leaves next to
        # nothing.
        alpha=0.5,
        thr_range=(0.2, 0.9),
    ),
    dict(type='mmdet_softpl.RandomStateHook'),
    dict(type='mmdet_softpl.ValidationRecordHook'),
    dict(type='mmdet_softpl.PseudoLabelVisualizationHook', interval=100),
]
