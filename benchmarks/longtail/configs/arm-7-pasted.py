"""Arm 7-pasted: arm 7-shipped on the images of 0-pasted."""

_base_ = './arm-7-shipped.py'

train_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(type='mmdet_softpl.RareCopyPasteDataset', dataset=_base_.labeled_dataset),
            _base_.unlabeled_dataset,
        ]
    )
)
