"""Arm 0-true: arm 0 that also has the true labels of the unlabelled images. A bound."""

_base_ = './arm-0.py'

train_dataloader = dict(
    batch_sampler=dict(unlabeled=True),
    dataset=dict(
        datasets=[
            _base_.labeled_dataset,
            dict(
                _base_.labeled_dataset,
                ann_file='annotations/hidden_unlabeled.json',
                data_prefix=dict(img='unlabeled/'),
            ),
        ]
    ),
)
