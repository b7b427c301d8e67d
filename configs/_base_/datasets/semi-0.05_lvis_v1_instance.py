# 5 % of LVIS v1's training images labelled, the other images not. The two files come from
# `python -m mmdet_softpl split data/lvis_v1/annotations/lvis_v1_train.json --percent 5 --seed 1
# --out data/lvis_v1/semi_anns`; another seed is another fold.
_base_ = './semi_lvis_v1_instance.py'

fold, percent = 1, 5
labeled_ann_file = f'semi_anns/lvis_v1_train.{fold}@{percent}.json'
unlabeled_ann_file = f'semi_anns/lvis_v1_train.{fold}@{percent}-unlabeled.json'

labeled_dataset = _base_.labeled_dataset
labeled_dataset.ann_file = labeled_ann_file
unlabeled_dataset = _base_.unlabeled_dataset
unlabeled_dataset.update(ann_file=unlabeled_ann_file, data_prefix=dict(img=''))
balanced_dataset = _base_.balanced_dataset
balanced_dataset.dataset = labeled_dataset
train_dataloader = dict(dataset=dict(datasets=[balanced_dataset, unlabeled_dataset]))
pseudo_labeler = dict(labeled_ann_file=_base_.data_root + labeled_ann_file)
val_evaluator = dict(labeled_ann_file=_base_.data_root + labeled_ann_file)
test_evaluator = val_evaluator
