"""Arm 7-heldout: arm 7 calibrated on a tenth of the labelled images, which it does not train on."""

_base_ = './arm-7.py'

# The two files are made with the data (`benchmarks/longtail/data.py`).
fit_file = 'annotations/train.1@90.json'

labeled_dataset = _base_.labeled_dataset
labeled_dataset.ann_file = fit_file
train_dataloader = dict(dataset=dict(datasets=[labeled_dataset, _base_.unlabeled_dataset]))

custom_hooks = _base_.custom_hooks
custom_hooks[2].labeled_ann_file = _base_.data_root + fit_file
custom_hooks.append(
    dict(
        type='mmdet_softpl.HeldOutCalibrationHook',
        dataloader=dict(
            batch_size=8,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(
                type='CocoDataset',
                data_root=_base_.data_root,
                metainfo=_base_.metainfo,
                ann_file='annotations/train.1@90-heldout.json',
                data_prefix=dict(img='train/'),
                test_mode=True,
                pipeline=[
                    dict(type='LoadImageFromFile'),
                    dict(type='LoadAnnotations', with_bbox=True),
                    dict(type='Resize', scale=_base_.scale, keep_ratio=True),
                    dict(type='PackDetInputs'),
                ],
            ),
        ),
    )
)
