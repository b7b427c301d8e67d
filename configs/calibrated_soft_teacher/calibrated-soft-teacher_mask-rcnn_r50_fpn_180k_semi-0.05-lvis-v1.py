"""LVIS v1 with 5 % of the training images labelled; files as in the 10 % config."""

_base_ = ['./calibrated-soft-teacher_mask-rcnn_r50_fpn_180k_semi-0.1-lvis-v1.py']

labeled_ann_file = 'semi_anns/lvis_v1_train.1@5.json'
labeled_dataset = _base_.labeled_dataset
labeled_dataset.ann_file = labeled_ann_file
unlabeled_dataset = _base_.unlabeled_dataset
unlabeled_dataset.ann_file = 'semi_anns/lvis_v1_train.1@5-unlabeled.json'
balanced = dict(type='ClassBalancedDataset', oversample_thr=1e-3, dataset=labeled_dataset)
train_dataloader = dict(dataset=dict(datasets=[balanced, unlabeled_dataset]))
val_evaluator = dict(labeled_ann_file=_base_.data_root + labeled_ann_file)
test_evaluator = val_evaluator
custom_hooks = _base_.custom_hooks
custom_hooks[-1].labeled_ann_file = _base_.data_root + labeled_ann_file
