"""Arm 0-pasted: arm 0-normed + labelled objects pasted into labelled images, rare ones more."""

_base_ = './arm-0-normed.py'

train_dataloader = dict(dataset=dict(type='mmdet_softpl.RareCopyPasteDataset', unlabeled=False))
