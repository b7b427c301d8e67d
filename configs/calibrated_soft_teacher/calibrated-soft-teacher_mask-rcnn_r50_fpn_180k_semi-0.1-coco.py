"""COCO with 10 % of train2017 labelled.

The two annotation files come from
`python -m mmdet_softpl split data/coco/annotations/instances_train2017.json --percent 10 --seed 1
--out data/coco/semi_anns`.
"""

_base_ = [
    '../_base_/models/calibrated-soft-teacher_mask-rcnn_r50_fpn.py',
    '../_base_/datasets/semi_coco_instance.py',
    '../_base_/schedules/semi_180k.py',
]

custom_imports = dict(imports=['mmdet_softpl'], allow_failed_imports=False)

labeled_ann_file = 'semi_anns/instances_train2017.1@10.json'
labeled_dataset = _base_.labeled_dataset
labeled_dataset.ann_file = labeled_ann_file
unlabeled_dataset = _base_.unlabeled_dataset
unlabeled_dataset.ann_file = 'semi_anns/instances_train2017.1@10-unlabeled.json'
unlabeled_dataset.data_prefix = dict(img='train2017/')
train_dataloader = dict(dataset=dict(datasets=[labeled_dataset, unlabeled_dataset]))
val_evaluator = dict(labeled_ann_file=_base_.data_root + labeled_ann_file)
test_evaluator = val_evaluator
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmdet_softpl.RareBoostPseudoLabeler',
        labeled_ann_file=_base_.data_root + labeled_ann_file,
    ),
]
