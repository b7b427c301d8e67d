"""LVIS v1 with 10 % of the training images labelled.

The two annotation files come from
`python -m mmdet_softpl split data/lvis_v1/annotations/lvis_v1_train.json --percent 10 --seed 1
--out data/lvis_v1/semi_anns`.
"""

_base_ = [
    '../_base_/models/calibrated-soft-teacher_mask-rcnn_r50_fpn.py',
    '../_base_/datasets/semi_lvis_v1_instance.py',
    '../_base_/schedules/semi_180k.py',
]

custom_imports = dict(imports=['mmdet_softpl'], allow_failed_imports=False)

fold, percent = 1, 10
labeled_ann_file = f'semi_anns/lvis_v1_train.{fold}@{percent}.json'

model = dict(
    detector=dict(
        roi_head=dict(bbox_head=dict(num_classes=1203), mask_head=dict(num_classes=1203)),
        # LVIS: 300 detections an image, and rare classes live below 0.05.
        test_cfg=dict(rcnn=dict(score_thr=0.0001, max_per_img=300)),
    )
)

labeled_dataset = _base_.labeled_dataset
labeled_dataset.ann_file = labeled_ann_file
unlabeled_dataset = _base_.unlabeled_dataset
unlabeled_dataset.ann_file = f'semi_anns/lvis_v1_train.{fold}@{percent}-unlabeled.json'
unlabeled_dataset.data_prefix = dict(img='')
train_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(type='ClassBalancedDataset', oversample_thr=1e-3, dataset=labeled_dataset),
            unlabeled_dataset,
        ]
    )
)
val_evaluator = dict(labeled_ann_file=_base_.data_root + labeled_ann_file)
test_evaluator = val_evaluator

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmdet_softpl.RareBoostPseudoLabeler',
        labeled_ann_file=_base_.data_root + labeled_ann_file,
    ),
]
