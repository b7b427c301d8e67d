"""Arm 4: the teacher of arm 3 on the similarity-smoothed head of arm 2."""

_base_ = './arm-2.py'

train_dataloader = dict(batch_sampler=dict(unlabeled=True))
