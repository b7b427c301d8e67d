"""Arm 3-pasted: arm 3-shipped on the images of 0-pasted."""

_base_ = './arm-3-shipped.py'

train_dataloader = dict(dataset=dict(type='mmdet_softpl.RareCopyPasteDataset', unlabeled=False))
