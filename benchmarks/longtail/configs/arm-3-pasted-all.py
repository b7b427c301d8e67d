"""Arm 3-pasted-all: arm 3-pasted, with labelled objects pasted into unlabelled images as well."""

_base_ = './arm-3-pasted.py'

train_dataloader = dict(dataset=dict(unlabeled=True))
