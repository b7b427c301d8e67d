"""Arm 0: supervised, cross entropy."""

_base_ = './_base_.py'
