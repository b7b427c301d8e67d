# Semi-supervised instance segmentation on LVIS v1: all of train is labelled, COCO's
# unlabeled2017 is not. Parts of train: `semi-0.01_lvis_v1_instance.py` and the like.
_base_ = './semi_coco_instance.py'

dataset_type = 'LVISV1Dataset'
data_root = 'data/lvis_v1/'

# LVIS takes its file names from `coco_url`: train2017/000000391895.jpg, so the prefix is empty.
labeled_dataset = dict(
    type=dataset_type,
    data_root=data_root,
    ann_file='annotations/lvis_v1_train.json',
    data_prefix=dict(img=''),
    filter_cfg=dict(filter_empty_gt=True, min_size=32),
    pipeline={{_base_.sup_pipeline}},
    backend_args={{_base_.backend_args}},
)

unlabeled_dataset = dict(
    type='mmdet_softpl.UnlabeledImageDataset',
    data_root=data_root,
    data_prefix=dict(img='unlabeled2017/'),
    filter_cfg=dict(filter_empty_gt=False, min_size=32),
    pipeline={{_base_.unsup_pipeline}},
    backend_args={{_base_.backend_args}},
)

# Repeat factor sampling as in mmdet's supervised LVIS configs: without it an epoch shows a rare
# class a handful of times.
balanced_dataset = dict(type='ClassBalancedDataset', oversample_thr=1e-3, dataset=labeled_dataset)
# Classes of pasted objects are drawn by the square root of their objects, as repeat factors have
# it: alike often, each of the few objects of a rare class would be pasted dozens of times a pass.
train_dataloader = dict(dataset=dict(balance=0.5, datasets=[balanced_dataset, unlabeled_dataset]))

val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/lvis_v1_val.json',
        data_prefix=dict(img=''),
    )
)
test_dataloader = val_dataloader

pseudo_labeler = dict(labeled_ann_file=data_root + 'annotations/lvis_v1_train.json')
val_evaluator = dict(
    ann_file=data_root + 'annotations/lvis_v1_val.json',
    labeled_ann_file=data_root + 'annotations/lvis_v1_train.json',
)
test_evaluator = val_evaluator
