"""180,000 iterations of SGD with teacher and student evaluated.

Iterations, learning rate and milestones are those of mmdet's Soft Teacher. The batch is 8 images,
half of them labelled, where Soft Teacher has 40 with 8 labelled, and the first third sees labelled
images alone: as many as the most labelled images need to be used up, before unlabelled ones help
(docs/evidence.md). Configs with fewer labelled images shorten it.
"""

_base_ = ['mmdet::_base_/default_runtime.py']

train_cfg = dict(type='IterBasedTrainLoop', max_iters=180000, val_interval=10000)
val_cfg = dict(type='TeacherStudentValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(
        type='MultiStepLR',
        begin=0,
        end=180000,
        by_epoch=False,
        milestones=[120000, 160000],
        gamma=0.1,
    ),
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0001),
    # Pseudo-labels of a young teacher make rare spikes, which end in NaN on LVIS.
    clip_grad=dict(max_norm=35, norm_type=2),
)
# lr is for 8 images a step; `--auto-scale-lr` of tools/train.py scales it to the real batch.
auto_scale_lr = dict(enable=False, base_batch_size=8)

default_hooks = dict(
    checkpoint=dict(
        by_epoch=False,
        interval=5000,
        max_keep_ckpts=2,
        # Weights alone, in best_*.pth.
        save_best='teacher/longtail/segm_AP',
        rule='greater',
    ),
    # By default validation results of an iteration-based training are logged at step 0.
    logger=dict(interval=50, log_metric_by_epoch=False),
)
log_processor = dict(by_epoch=False)
custom_hooks = [
    dict(
        type='mmdet_softpl.BurnInMeanTeacherHook',
        momentum=0.0004,
        supervised_iters=60000,
        ramp_iters=5000,
    ),
    # mmengine would load all images of the iterations before a resume once more.
    dict(type='mmdet_softpl.QuickResumeHook'),
    dict(type='mmdet_softpl.RandomStateHook'),
    # For `python -m mmdet_softpl report WORK_DIR`.
    dict(type='mmdet_softpl.ValidationRecordHook'),
]
