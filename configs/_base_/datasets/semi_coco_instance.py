# Semi-supervised instance segmentation on COCO: a labelled json and a folder (or json) of
# unlabelled images. Variable names as in mmdet's `semi_coco_detection.py`.
dataset_type = 'CocoDataset'
data_root = 'data/coco/'
backend_args = None

color_space = [
    [dict(type='ColorTransform')],
    [dict(type='AutoContrast')],
    [dict(type='Equalize')],
    [dict(type='Sharpness')],
    [dict(type='Posterize')],
    [dict(type='Solarize')],
    [dict(type='Color')],
    [dict(type='Contrast')],
    [dict(type='Brightness')],
]

geometric = [
    [dict(type='Rotate')],
    [dict(type='ShearX')],
    [dict(type='ShearY')],
    [dict(type='TranslateX')],
    [dict(type='TranslateY')],
]

scale = [(1333, 400), (1333, 1200)]

branch_field = ['sup', 'unsup_teacher', 'unsup_student']

# `homography_matrix` maps original pixels to the view; the student's mask targets need it of
# both views.
view_meta_keys = (
    'img_id',
    'img_path',
    'ori_shape',
    'img_shape',
    'scale_factor',
    'flip',
    'flip_direction',
    'homography_matrix',
)

# labelled images -> student
sup_pipeline = [
    dict(type='LoadImageFromFile', backend_args=backend_args),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomResize', scale=scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandAugment', aug_space=color_space, aug_num=1),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-2, 1e-2), by_mask=True),
    dict(type='MultiBranch', branch_field=branch_field, sup=dict(type='PackDetInputs')),
]

# unlabelled images, weak view -> teacher
weak_pipeline = [
    dict(type='RandomResize', scale=scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs', meta_keys=view_meta_keys),
]

# unlabelled images, strong view -> student
strong_pipeline = [
    dict(type='RandomResize', scale=scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomOrder',
        transforms=[
            dict(type='RandAugment', aug_space=color_space, aug_num=1),
            dict(type='RandAugment', aug_space=geometric, aug_num=1),
        ],
    ),
    dict(type='RandomErasing', n_patches=(1, 5), ratio=(0, 0.2)),
    dict(type='PackDetInputs', meta_keys=view_meta_keys),
]

unsup_pipeline = [
    dict(type='LoadImageFromFile', backend_args=backend_args),
    dict(type='LoadEmptyAnnotations'),
    dict(
        type='MultiBranch',
        branch_field=branch_field,
        unsup_teacher=weak_pipeline,
        unsup_student=strong_pipeline,
    ),
]

test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=backend_args),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]

batch_size = 4
num_workers = 4

# All of train2017 is labelled and unlabeled2017 is the rest of the data. For a part of
# train2017 use the two files of `python -m mmdet_softpl split`.
labeled_dataset = dict(
    type=dataset_type,
    data_root=data_root,
    ann_file='annotations/instances_train2017.json',
    data_prefix=dict(img='train2017/'),
    filter_cfg=dict(filter_empty_gt=True, min_size=32),
    pipeline=sup_pipeline,
    backend_args=backend_args,
)

# A folder. With `ann_file` it takes the images of a json instead.
unlabeled_dataset = dict(
    type='mmdet_softpl.UnlabeledImageDataset',
    data_root=data_root,
    data_prefix=dict(img='unlabeled2017/'),
    filter_cfg=dict(filter_empty_gt=False, min_size=32),
    pipeline=unsup_pipeline,
    backend_args=backend_args,
)

# Half of each batch is labelled. Not GroupMultiSourceSampler: it waits for ever when one of the
# sources has no image of an aspect group (mmdetection#12327).
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
    persistent_workers=True,
    sampler=dict(type='MultiSourceSampler', batch_size=batch_size, source_ratio=[1, 1]),
    # A ConcatDataset that pastes labelled objects into all images, rare classes more often. The
    # unlabelled images define no classes; the labelled ones speak for both.
    dataset=dict(
        type='mmdet_softpl.RareCopyPasteDataset',
        ignore_keys=['classes', 'palette'],
        datasets=[labeled_dataset, unlabeled_dataset],
    ),
)

val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        pipeline=test_pipeline,
        backend_args=backend_args,
    ),
)
test_dataloader = val_dataloader

# Both count the classes of the labelled file: the labeller for its boosts, thresholds and groups,
# the metric for its groups. A config appends the labeller to the schedule's `custom_hooks`.
pseudo_labeler = dict(
    type='mmdet_softpl.RareBoostPseudoLabeler',
    labeled_ann_file=data_root + 'annotations/instances_train2017.json',
    # Stronger than the hook's own defaults, which also hold where nothing aligns the boosts (hard
    # labels, mmdet's SoftTeacher). In benchmarks/longtail, with a small network from scratch, these
    # and the thresholds were the better ones in one seed; with a pre-trained one nobody knows.
    boost_gamma=1.0,
    max_boost=16.0,
    alpha=0.5,
    thr_range=(0.2, 0.9),
)
val_evaluator = dict(
    type='mmdet_softpl.LongTailMetric',
    ann_file=data_root + 'annotations/instances_val2017.json',
    metric=['bbox', 'segm'],
    labeled_ann_file=data_root + 'annotations/instances_train2017.json',
)
test_evaluator = val_evaluator
