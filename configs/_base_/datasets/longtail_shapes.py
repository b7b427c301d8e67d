# The generated long-tail shapes: `python -m mmdet_softpl shapes data/longtail_shapes`.
dataset_type = 'CocoDataset'
data_root = 'data/longtail_shapes/'
image_size = 128
scale = (image_size, image_size)

# The generator writes the names beside the annotations: any --num-classes works with this file.
metainfo = dict(classes=data_root + 'annotations/classes.txt')

color_space = [
    [dict(type='AutoContrast')],
    [dict(type='Equalize')],
    [dict(type='Sharpness')],
    [dict(type='Color')],
    [dict(type='Contrast')],
    [dict(type='Brightness')],
]

# Half the host's default angles: the pictures are small, and turning them by 30 degrees cuts off
# a good part of their objects.
geometric = [
    [dict(type='Rotate', max_mag=15.0)],
    [dict(type='ShearX', max_mag=15.0)],
    [dict(type='ShearY', max_mag=15.0)],
    [dict(type='TranslateX')],
    [dict(type='TranslateY')],
]

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
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandAugment', aug_space=color_space, aug_num=1),
    dict(type='MultiBranch', branch_field=branch_field, sup=dict(type='PackDetInputs')),
]

# unlabelled images, weak view -> teacher. Resize keeps the size, but records the homography
# also where no flip happens.
weak_pipeline = [
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs', meta_keys=view_meta_keys),
]

# unlabelled images, strong view -> student
strong_pipeline = [
    dict(type='RandomResize', scale=scale, ratio_range=(0.8, 1.2), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomOrder',
        transforms=[
            dict(type='RandAugment', aug_space=color_space, aug_num=1),
            dict(type='RandAugment', aug_space=geometric, aug_num=1),
        ],
    ),
    dict(type='RandomErasing', n_patches=(1, 3), ratio=(0, 0.15)),
    dict(type='PackDetInputs', meta_keys=view_meta_keys),
]

unsup_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadEmptyAnnotations'),
    dict(
        type='MultiBranch',
        branch_field=branch_field,
        unsup_teacher=weak_pipeline,
        unsup_student=strong_pipeline,
    ),
]

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]

batch_size = 8
num_workers = 2

labeled_dataset = dict(
    type=dataset_type,
    data_root=data_root,
    metainfo=metainfo,
    ann_file='annotations/train.json',
    data_prefix=dict(img='train/'),
    filter_cfg=dict(filter_empty_gt=True),
    pipeline=sup_pipeline,
)

# The json gives the image ids of annotations/hidden_unlabeled.json, which audits compare with.
unlabeled_dataset = dict(
    type='mmdet_softpl.UnlabeledImageDataset',
    data_root=data_root,
    metainfo=metainfo,
    ann_file='annotations/unlabeled.json',
    data_prefix=dict(img='unlabeled/'),
    pipeline=unsup_pipeline,
)

# Half of each batch is labelled. Not GroupMultiSourceSampler: it waits for ever when one of the
# sources has no image of an aspect group (mmdetection#12327), and here all images are square.
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
    persistent_workers=True,
    sampler=dict(type='MultiSourceSampler', batch_size=batch_size, source_ratio=[1, 1]),
    # `palette` is the labelled data set's alone.
    dataset=dict(
        type='ConcatDataset',
        ignore_keys=['palette'],
        datasets=[labeled_dataset, unlabeled_dataset],
    ),
)

val_dataloader = dict(
    batch_size=8,
    num_workers=num_workers,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type='mmdet_softpl.LongTailMetric',
    ann_file=data_root + 'annotations/val.json',
    metric=['bbox', 'segm'],
    labeled_ann_file=data_root + 'annotations/train.json',
)
test_evaluator = val_evaluator
