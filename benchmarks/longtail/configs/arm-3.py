"""Arm 3: arm 0 + a teacher of one-hot labels above 0.7 (Soft Teacher, Guided Distillation)."""

_base_ = './arm-0.py'

train_dataloader = dict(batch_sampler=dict(unlabeled=True))
