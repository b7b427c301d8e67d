"""Arm 7-pasted: arm 7-shipped on the images of 0-pasted."""

_base_ = './arm-7-shipped.py'

train_dataloader = dict(dataset=dict(type='mmdet_softpl.RareCopyPasteDataset', unlabeled=False))
