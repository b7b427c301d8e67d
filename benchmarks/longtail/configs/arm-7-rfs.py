"""Arm 7-rfs: arm 7 + repeat-factor sampling of the labelled images, as on LVIS."""

_base_ = './arm-7.py'

train_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(type='ClassBalancedDataset', oversample_thr=0.1, dataset=_base_.labeled_dataset),
            _base_.unlabeled_dataset,
        ]
    )
)
