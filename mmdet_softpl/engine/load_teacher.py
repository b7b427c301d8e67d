"""A trained detector out of a config and a checkpoint, with messages for what people mix up."""

from __future__ import annotations

import os
import pickle
import zipfile
from typing import Any

from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader

from mmdet_softpl.config_file import load_config, type_name
from mmdet_softpl.models import CalibratedSoftTeacher
from mmdet_softpl.models.checkpoint_parts import is_class_statistic
from mmdet_softpl.safe_checkpoints import allow_mmengine_checkpoints


class TrainedModelError(ValueError):
    """Config and checkpoint do not make a trained detector."""


def read_config(config: str) -> Config:
    """``Config.fromfile`` of a config file.

    Raises:
        TrainedModelError: the file is missing, a checkpoint, or no config with a ``model``.
        ValueError: the config cannot be read.
    """
    if os.path.isdir(config):
        raise TrainedModelError(f'{config}: a folder; a config (.py) is needed.')
    if not os.path.isfile(config):
        raise TrainedModelError(f'{config}: there is no such config file.')
    if not config.endswith(('.py', '.json', '.yaml', '.yml')):
        hint = ' CONFIG comes first, CHECKPOINT second.' if config.endswith('.pth') else ''
        raise TrainedModelError(f'{config}: a config ends in .py.{hint}')
    cfg = load_config(config)
    if cfg.get('model') is None:
        raise TrainedModelError(f'{config}: the config has no `model`; give that of a training.')
    return cfg


def read_checkpoint(checkpoint: str) -> dict[str, Any]:
    """A checkpoint of mmengine, on the CPU.

    Returns:
        A dict with ``state_dict`` and, usually, ``meta``.

    Raises:
        TrainedModelError: the file is missing, a config, damaged, or no checkpoint.
    """
    if not os.path.isfile(checkpoint):
        raise TrainedModelError(
            f'{checkpoint}: there is no such checkpoint; give a .pth of the work directory.'
        )
    if checkpoint.endswith('.py'):
        raise TrainedModelError(
            f'{checkpoint}: this is a config, not a checkpoint (.pth). A command that takes both '
            'wants CONFIG first.'
        )
    allow_mmengine_checkpoints()
    try:
        loaded = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu', logger='silent')
    except (RuntimeError, EOFError, pickle.UnpicklingError, KeyError) as error:
        if not zipfile.is_zipfile(checkpoint) and not _is_pickle(checkpoint):
            raise TrainedModelError(
                f'{checkpoint}: not a checkpoint of PyTorch; give a .pth of the work directory.'
            ) from error
        raise TrainedModelError(f'{checkpoint}: not readable as a checkpoint: {error}') from error
    if not isinstance(loaded, dict) or 'state_dict' not in loaded:
        raise TrainedModelError(
            f'{checkpoint}: there is no entry `state_dict`; give a checkpoint of MMEngine.'
        )
    return loaded


def _is_pickle(path: str) -> bool:
    """Whether a file begins as torch's older format does."""
    with open(path, 'rb') as file:
        return file.read(1) == b'\x80'


def load_teacher(cfg: Config, checkpoint: str) -> tuple[CalibratedSoftTeacher, list[str]]:
    """The semi-supervised detector of a config with the weights of a checkpoint.

    Args:
        cfg: of the training.
        checkpoint: of that training, or of a plain detector of the same architecture, which then
            is teacher and student.

    Returns:
        The detector in evaluation mode, on the CPU, and sentences about what is doubtful.

    Raises:
        TrainedModelError: as :func:`read_checkpoint`; the model is no ``CalibratedSoftTeacher``;
            the checkpoint is of another one, or of other classes.
    """
    model = cfg.model.to_dict() if hasattr(cfg.model, 'to_dict') else dict(cfg.model)
    if type_name(model.get('type')) != 'CalibratedSoftTeacher':
        raise TrainedModelError(
            f'{cfg.filename}: model.type is {model.get("type")!r}; a config with '
            'CalibratedSoftTeacher is needed (a plain detector can be its CHECKPOINT).'
        )
    state_dict = read_checkpoint(checkpoint)['state_dict']
    model.pop('teacher_checkpoint', None)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet')):
        detector = MODELS.build(ConfigDict(without_pretrained(model)))
    assert isinstance(detector, CalibratedSoftTeacher)
    try:
        missing = detector.load_state_dict(state_dict, strict=False).missing_keys
    except (RuntimeError, ValueError) as error:
        lines = str(error).strip().splitlines()
        raise TrainedModelError(
            f'{checkpoint}: does not fit {cfg.filename}: '
            f'{" ".join(lines[:3])[:400].rstrip(".")}. Or give the config of that training.'
        ) from error
    weights = [key for key in missing if key.startswith('teacher.')]
    extra = [key for key in weights if is_class_statistic(key)]
    if len(weights) > len(extra):
        absent = sorted(set(weights) - set(extra))
        raise TrainedModelError(
            f'{checkpoint}: {len(absent)} weights of the teacher of {cfg.filename} are missing '
            f'(first {absent[0]!r}). Give the config of that training.'
        )
    doubts = []
    if extra:
        doubts.append(
            f'{checkpoint} has no prototypes for the head of the config; they take no part.'
        )
    if 'class_state.thresholds' in missing:
        doubts.append(
            f'{checkpoint} is a plain detector: nothing is calibrated, and one threshold '
            '(semi_train_cfg.score_thr) holds for all classes.'
        )
    return detector.eval(), doubts


def without_pretrained(node: Any) -> Any:
    """A model config without downloads of weights that a checkpoint replaces."""
    if isinstance(node, dict):
        return {
            key: without_pretrained(value)
            for key, value in node.items()
            if not (
                key == 'init_cfg' and isinstance(value, dict) and value.get('type') == 'Pretrained'
            )
        }
    if isinstance(node, (list, tuple)):
        return type(node)(without_pretrained(item) for item in node)
    return node
