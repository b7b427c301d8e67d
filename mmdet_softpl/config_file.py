"""Reading a config, which is a program of the user's and can fail in any way."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmengine.config import Config


def load_config(path: str) -> Config:
    """mmengine's ``Config`` of a file that is there, with its ``custom_imports`` done.

    Raises:
        ValueError: The file is an annotation json or no config, or one of its bases or imports is
            missing; names the file, and what was wrong in which line.
    """
    from mmengine.config import Config

    if path.endswith('.json') and _holds_annotations(path):
        raise ValueError(f'{path}: this is an annotation json; a config (.py) is needed.')
    try:
        return Config.fromfile(path)
    except Exception as error:
        reason = f'{type(error).__name__}: {error}'
        if isinstance(error, SyntaxError):
            # mmengine parses the text, so that Python does not know the file.
            reason = f'{error.msg}, line {error.lineno} of it or of one of its _base_ files'
        elif isinstance(error, FileNotFoundError):
            reason = f'{error}; it may be named by _base_'
        elif isinstance(error, ModuleNotFoundError) and error.name == 'pkg_resources':
            reason += '; `python -m mmdet_softpl doctor` says how to install it'
        raise ValueError(f'{path}: the config cannot be read: {reason}') from error


def type_name(type_: Any) -> str:
    """Name of what a config's ``type`` stands for: a name, with or without a scope, or a class."""
    name = type_.__name__ if isinstance(type_, type) else str(type_)
    return name.rsplit('.', 1)[-1]


def find_hook(cfg: Mapping[str, Any], name: str) -> tuple[int, Any] | None:
    """Index and config of the custom hook of that class name, with or without a scope."""
    for index, hook in enumerate(cfg.get('custom_hooks') or ()):
        if isinstance(hook, Mapping) and type_name(hook.get('type')) == name:
            return index, hook
    return None


def seesaw_classes(loss_cls: Mapping[str, Any]) -> int | None:
    """Classes of a ``SeesawLoss``, which has a default of its own; None of other losses."""
    if type_name(loss_cls.get('type')) != 'SeesawLoss':
        return None
    from mmdet.models.losses import SeesawLoss

    return loss_cls.get(
        'num_classes', inspect.signature(SeesawLoss).parameters['num_classes'].default
    )


def _holds_annotations(path: str) -> bool:
    try:
        content = json.loads(Path(path).read_bytes())
    except ValueError:
        return False
    return isinstance(content, dict) and 'images' in content
