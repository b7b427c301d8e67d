# 1 % of COCO's train2017 labelled, the other images not. The two files come from
# `python -m mmdet_softpl split data/coco/annotations/instances_train2017.json --percent 1 --seed 1
# --out data/coco/semi_anns`; another seed is another fold.
_base_ = './semi_coco_instance.py'

fold, percent = 1, 1
labeled_ann_file = f'semi_anns/instances_train2017.{fold}@{percent}.json'
unlabeled_ann_file = f'semi_anns/instances_train2017.{fold}@{percent}-unlabeled.json'

labeled_dataset = _base_.labeled_dataset
labeled_dataset.ann_file = labeled_ann_file
unlabeled_dataset = _base_.unlabeled_dataset
unlabeled_dataset.update(ann_file=unlabeled_ann_file, data_prefix=dict(img='train2017/'))
train_dataloader = dict(dataset=dict(datasets=[labeled_dataset, unlabeled_dataset]))
pseudo_labeler = dict(labeled_ann_file=_base_.data_root + labeled_ann_file)
val_evaluator = dict(labeled_ann_file=_base_.data_root + labeled_ann_file)
test_evaluator = val_evaluator
