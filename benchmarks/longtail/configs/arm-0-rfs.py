"""Arm 0-rfs: arm 0 + repeat-factor sampling of the labelled images, as on LVIS."""

_base_ = './arm-0.py'

train_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(type='ClassBalancedDataset', oversample_thr=0.1, dataset=_base_.labeled_dataset),
            _base_.unlabeled_dataset,
        ]
    )
)
