"""Arm 7-pasted-all: arm 7-pasted, with labelled objects pasted into unlabelled images as well."""

_base_ = './arm-7-pasted.py'

train_dataloader = dict(dataset=dict(unlabeled=True))
