"""Tests of models build them by plain names, from the same weights."""

from __future__ import annotations

import pytest
import torch
from mmengine.registry import init_default_scope


@pytest.fixture(autouse=True)
def _scope() -> None:
    init_default_scope('mmdet')
    torch.manual_seed(0)
