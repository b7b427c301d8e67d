"""The model of a runner, whatever wraps it."""

from __future__ import annotations

from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner


def model_of(runner: Runner) -> Any:
    """``runner.model`` without ``DistributedDataParallel`` and the like around it."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
