"""Your own data in COCO format, calibrated on a tenth of the labelled images kept aside.

The layout of the config below, and the two files that this command writes beside labelled.json:

    python -m mmdet_softpl split data/custom/labelled.json --percent 90 --held-out
"""

_base_ = './calibrated-soft-teacher_mask-rcnn_r50_fpn_custom-coco-format.py'

data_root = _base_.data_root
fit_ann_file = 'labelled.1@90.json'
held_out_ann_file = 'labelled.1@90-heldout.json'

labeled_dataset = _base_.labeled_dataset
labeled_dataset.ann_file = fit_ann_file
train_dataloader = dict(dataset=dict(datasets=[labeled_dataset, _base_.unlabeled_dataset]))
val_evaluator = dict(labeled_ann_file=data_root + fit_ann_file)
test_evaluator = val_evaluator

# As for validation, and the labels are read.
load, *rest = _base_.test_pipeline
held_out_pipeline = [load, dict(type='LoadAnnotations', with_bbox=True), *rest]
custom_hooks = _base_.custom_hooks
custom_hooks[-1].labeled_ann_file = data_root + fit_ann_file
custom_hooks.append(
    dict(
        type='mmdet_softpl.HeldOutCalibrationHook',
        dataloader=dict(
            batch_size=4,
            num_workers=2,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(
                type='CocoDataset',
                data_root=data_root,
                metainfo=_base_.metainfo,
                ann_file=held_out_ann_file,
                data_prefix=dict(img='images/'),
                test_mode=True,
                pipeline=held_out_pipeline,
            ),
        ),
        # A pass over the part takes the time of as many test images.
        interval=500,
    )
)
