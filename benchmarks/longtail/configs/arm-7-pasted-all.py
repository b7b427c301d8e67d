"""Arm 7-pasted-all: arm 7-pasted, with labelled objects pasted into unlabelled images as well."""

_base_ = './arm-7-pasted.py'

train_dataloader = dict(
    dataset=dict(
        datasets=[
            _base_.train_dataloader.dataset.datasets[0],
            dict(
                type='mmdet_softpl.RareCopyPasteDataset',
                dataset=_base_.unlabeled_dataset,
                source=_base_.labeled_dataset,
            ),
        ]
    )
)
