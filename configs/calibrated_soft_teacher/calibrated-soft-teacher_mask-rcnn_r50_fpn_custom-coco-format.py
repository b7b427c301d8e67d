"""Your own data in COCO format: copy this file, change the first part, train.

What it expects below `data_root`:

    labelled.json   COCO format; a class may have one image
    val.json        COCO format, the same classes
    images/         the images of both
    unlabelled/     images without labels; folders in it are searched too
"""

# In a copy elsewhere: the path that `python -m mmdet_softpl config-path` prints for these files.
_base_ = [
    '../_base_/models/calibrated-soft-teacher_mask-rcnn_r50_fpn.py',
    '../_base_/datasets/semi_coco_instance.py',
    '../_base_/schedules/semi_180k.py',
]

data_root = 'data/custom/'
# All classes, in the order of `categories` in the labelled json. For one class: ('scratch',).
metainfo = dict(classes=('scratch', 'dent', 'hole', 'stain'))
labeled_ann_file = 'labelled.json'
val_ann_file = 'val.json'

num_classes = len(metainfo['classes'])
model = dict(
    detector=dict(
        roi_head=dict(
            bbox_head=dict(num_classes=num_classes), mask_head=dict(num_classes=num_classes)
        )
    )
)

# ---- data --------------------------------------------------------------------------------
labeled_dataset = _base_.labeled_dataset
labeled_dataset.update(
    data_root=data_root,
    metainfo=metainfo,
    ann_file=labeled_ann_file,
    data_prefix=dict(img='images/'),
)
# With a file of `split` instead of a folder: ann_file='...-unlabeled.json' and the labelled
# images' prefix.
unlabeled_dataset = _base_.unlabeled_dataset
unlabeled_dataset.update(data_root=data_root, ann_file='', data_prefix=dict(img='unlabelled/'))
# The list is restated because a config's lists are copies: the base's does not follow the two
# changes above. To show rare classes more often put
# dict(type='ClassBalancedDataset', oversample_thr=0.01, dataset=labeled_dataset) in the place of
# `labeled_dataset`: classes in less than 1 % of the images then come up more often. Standard on
# LVIS; it cost AP where each labelled image was seen 64 times (docs/evidence.md).
# The base's type of data set pastes labelled objects into all images, rare classes more often: add
# max_num_pasted=0 where an object means nothing outside its place.
train_dataloader = dict(dataset=dict(datasets=[labeled_dataset, unlabeled_dataset]))
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file=val_ann_file,
        data_prefix=dict(img='images/'),
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(
    ann_file=data_root + val_ann_file, labeled_ann_file=data_root + labeled_ann_file
)
test_evaluator = val_evaluator

# ---- schedule ----------------------------------------------------------------------------
# For some 300 labelled images, 4 images a step (2 labelled, 2 not) on one GPU: 27 passes over the
# labelled ones alone; more, if the validation AP still rises at their end. With other numbers of
# images let `python -m mmdet_softpl new-config` write this part.
supervised_iters = 4000
max_iters = 20000
train_cfg = dict(max_iters=max_iters, val_interval=1000)
# The base's rate is for 8 images a step.
optim_wrapper = dict(optimizer=dict(lr=0.005))
auto_scale_lr = dict(base_batch_size=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=False, milestones=[13000, 18000], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(interval=1000))

custom_hooks = _base_.custom_hooks
# Momentum 0.001 forgets in 1,000 iterations; the base's 0.0004 is for 180,000.
custom_hooks[0].update(supervised_iters=supervised_iters, ramp_iters=1000, momentum=0.001)
custom_hooks.append(
    dict(
        _base_.pseudo_labeler,
        labeled_ann_file=data_root + labeled_ann_file,
        # Thresholds are renewed every so many iterations.
        interval=150,
    )
)
# To start from a COCO-trained detector, whose heads are left out, instead of ImageNet weights:
# mim download mmdet --config mask-rcnn_r50_fpn_2x_coco --dest checkpoints
# model['detector']['init_cfg'] = dict(type='Pretrained', checkpoint='checkpoints/FILE.pth')
