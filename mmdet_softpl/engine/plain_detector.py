"""The plain MMDetection detector inside a training: built, with its weights and class names.

The extra buffers of our head (prototypes, similarities) matter in training only, so that
predictions do not change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.fileio import list_from_file
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmdet_softpl.config_file import load_config
from mmdet_softpl.engine.plain_config import ExportError, first_test_set, plain_config
from mmdet_softpl.models.checkpoint_parts import network_part


@dataclass(frozen=True)
class PlainDetector:
    """A plain detector out of a training.

    Attributes:
        cfg: Of it, as it is written down.
        model: Built, on the CPU, with the weights.
        state_dict: The weights.
        dropped: Sorted names of the entries of the training that it does not have.
    """

    cfg: Config
    model: nn.Module
    state_dict: dict[str, Tensor]
    dropped: list[str]


def training_config(loaded: Mapping[str, Any], checkpoint: str, config: str | None) -> Config:
    """Config of the training: the file ``config``; where that is None, that of its checkpoint.

    Raises:
        ExportError: There is neither.
    """
    if config is not None:
        return load_config(config)
    text = loaded.get('meta', {}).get('cfg')
    if not text:
        raise ExportError(f"{checkpoint} has no config in its 'meta'; give one with --config")
    # Messages name the config by its file.
    return Config(Config.fromstring(text, '.py').to_dict(), cfg_text=text, filename=checkpoint)


def plain_detector(
    cfg: Config, state_dict: Mapping[str, Tensor], network: str, checkpoint: str
) -> PlainDetector:
    """The plain detector of a training's config and weights.

    Args:
        cfg: Of the training.
        state_dict: Of its checkpoint.
        network: ``'teacher'`` or ``'student'``; of no effect on a plain detector.
        checkpoint: Named in messages.

    Raises:
        ExportError: As ``plain_config`` and ``plain_state_dict``; the weights do not fit.
    """
    plain = plain_config(cfg)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(plain.model)
    weights, dropped = plain_state_dict(dict(state_dict), network, model.state_dict())
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise ExportError(f'{checkpoint}: {error}') from error
    return PlainDetector(plain, model.eval(), weights, dropped)


def plain_state_dict(
    state_dict: dict[str, Any], network: str, expected: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The part of a state dict that a plain detector takes.

    Args:
        state_dict: of the checkpoint; keys with ``teacher.`` and ``student.`` in front of
            them, or the plain ones.
        network: ``'teacher'`` or ``'student'``.
        expected: state dict of the plain detector; only its keys matter.

    Returns:
        The plain state dict, and the sorted names (without prefix) that were left out.

    Raises:
        ExportError: ``expected`` has keys that the checkpoint lacks.
    """
    state_dict = network_part(state_dict, network)
    missing = sorted(expected.keys() - state_dict.keys())
    if missing:
        shown = ', '.join(missing[:5])
        raise ExportError(
            f'the checkpoint lacks {len(missing)} of {len(expected)} entries of the plain '
            f'{network} (first: {shown}); is it a checkpoint of this config?'
        )
    dropped = sorted(state_dict.keys() - expected.keys())
    return {key: state_dict[key] for key in expected}, dropped


def dataset_meta(loaded: dict[str, Any], plain: Config, checkpoint: str) -> dict[str, Any]:
    """Class names (and palette) as plain values, from the checkpoint or the test set.

    Args:
        loaded: the checkpoint.
        plain: config of the plain detector.
        checkpoint: what messages call it.

    Returns:
        ``classes`` and, where one is known, ``palette``.

    Raises:
        ExportError: no class names are known, or not as many as the head has.
    """
    meta = loaded.get('meta', {}).get('dataset_meta') or {}
    if 'classes' not in meta:
        dataset = first_test_set(plain)
        meta = getattr(DATASETS.get(dataset['type']), 'METAINFO', {}) | dataset.get('metainfo', {})
    classes = meta.get('classes')
    if isinstance(classes, str):
        # As mmengine's data sets do: the path of a text file with one name a line.
        classes = list_from_file(classes)
    if not classes:
        raise ExportError(f'{checkpoint} has no class names, and its test set names none either')
    heads = plain.model.get('roi_head', {}).get('bbox_head', [])
    for head in heads if isinstance(heads, (list, tuple)) else [heads]:
        if head.get('num_classes', len(classes)) != len(classes):
            raise ExportError(
                f'{checkpoint}: the box head has num_classes={head.num_classes}, but there are '
                f'{len(classes)} class names'
            )
    result: dict[str, Any] = {'classes': tuple(str(name) for name in classes)}
    palette = meta.get('palette')
    if palette is not None and not isinstance(palette, str):
        result['palette'] = [tuple(int(channel) for channel in colour) for colour in palette]
    return result
