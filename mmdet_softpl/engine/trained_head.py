"""The box head of a training, loaded without its detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope

from mmdet_softpl.datasets.config_sets import configured_sets
from mmdet_softpl.engine.load_teacher import read_checkpoint, read_config
from mmdet_softpl.models.checkpoint_parts import classifier, classifier_text, network_part
from mmdet_softpl.models.smoothed_ce_head import SmoothedCEHead

LEARNED_MODES = ('similarity', 'confusion', 'file')


@dataclass(frozen=True)
class TrainedHead:
    """A box head alone, as a training left it.

    Attributes:
        head: In evaluation mode.
        cfg: Its config, from which another one can be built.
        names: (C,) class names; numbers where neither checkpoint nor config knows them.
        scope: ``default_scope`` of the training's config, or None.
    """

    head: SmoothedCEHead
    cfg: dict[str, Any]
    names: list[str]
    scope: str | None


def load_trained_head(config: str, checkpoint: str, network: str) -> TrainedHead:
    """The (last) ``SmoothedCEHead`` of a training, without the rest of the detector.

    Args:
        config: Config of the training.
        checkpoint: Checkpoint of it.
        network: ``'teacher'`` or ``'student'``; of no effect on a plain detector.

    Raises:
        ValueError: The config has no such head, or one that learns no similarity, or the
            checkpoint is of another head.
        OSError: A file that cannot be read.
    """
    cfg = read_config(config)
    head_cfg, place = _head_config(cfg, config)
    loaded = read_checkpoint(checkpoint)
    state = head_state(loaded['state_dict'], place, network)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmdet'):
        head = MODELS.build(ConfigDict(head_cfg))
    if not isinstance(head, SmoothedCEHead):
        raise ValueError(
            f'{config}: the box head is {type(head).__name__}, which has no class '
            'similarity; give a config with SmoothedCEHead.'
        )
    if head.smoothing_mode not in LEARNED_MODES or not head.smooths:
        raise ValueError(
            f'{config}: the head has smoothing_mode={head.smoothing_mode!r} and smoothing='
            f'{head.smoothing:g}: it learns no similarity. Known modes that do: '
            f'{", ".join(LEARNED_MODES)}.'
        )
    _check_state(head, state, config, checkpoint)
    head.load_state_dict(state)
    names = _class_names(loaded, cfg, head.num_classes)
    return TrainedHead(head.eval(), head_cfg, names, cfg.get('default_scope'))


def _head_config(cfg: Any, config: str) -> tuple[dict[str, Any], str]:
    """Config of the (last) box head, and where the detector has it."""
    model = cfg.model.to_dict()
    detector = model.get('detector', model)
    head = (detector.get('roi_head') or {}).get('bbox_head')
    if isinstance(head, (list, tuple)) and head:
        return dict(head[-1]), f'roi_head.bbox_head.{len(head) - 1}.'
    if not isinstance(head, dict):
        raise ValueError(
            f'{config}: the model has no roi_head.bbox_head; give a two-stage detector.'
        )
    stages = detector['roi_head'].get('num_stages')
    # A cascade may give one config for all of its stages.
    return dict(head), 'roi_head.bbox_head.' + ('' if stages is None else f'{stages - 1}.')


def head_state(state_dict: Mapping[str, Any], place: str, network: str) -> dict[str, Any]:
    """Entries of one head in a checkpoint, without what stands before their names.

    Args:
        state_dict: of a semi-supervised detector (keys start with ``teacher.`` and ``student.``)
            or of a plain one.
        place: where the detector has the head, such as ``'roi_head.bbox_head.'``.
        network: ``'teacher'`` or ``'student'``; of no effect on a plain detector.
    """
    part = network_part(state_dict, network)
    return {k[len(place) :]: v for k, v in part.items() if k.startswith(place)}


def _check_state(head: SmoothedCEHead, state: dict[str, Any], config: str, who: str) -> None:
    """Name what does not fit between checkpoint and head."""
    own = head.state_dict()
    if 'fc_cls.weight' not in state:
        raise ValueError(f'{who}: there is no box head where {config} has it; give its checkpoint.')
    theirs, mine = classifier(state, ''), classifier(own, '')
    if theirs is not None and mine is not None and theirs != mine:
        raise ValueError(
            f'{who}: its head has {classifier_text(theirs)}, that of {config} '
            f'{classifier_text(mine)}. Give the config of that training.'
        )
    missing = sorted(own.keys() - state.keys())
    if missing:
        raise ValueError(
            f'{who}: its head has no {", ".join(missing[:3])}: it was trained with another head or '
            f'another smoothing_mode than {head.smoothing_mode!r} (a plain or exported checkpoint '
            'has none). Give a checkpoint of the training with SmoothedCEHead.'
        )
    for name, value in own.items():
        if state[name].shape != value.shape:
            raise ValueError(
                f'{who}: {name} of the head is {tuple(state[name].shape)}, in {config} '
                f'{tuple(value.shape)}. Give the config of that training.'
            )
    for name in state.keys() - own.keys():
        # What the mode of the config does not keep.
        state.pop(name)


def _class_names(loaded: dict[str, Any], cfg: Any, num_classes: int) -> list[str]:
    """Of the checkpoint, else of the labelled set, else numbers."""
    meta = (loaded.get('meta') or {}).get('dataset_meta') or {}
    names: Sequence[str] | None = meta.get('classes') or meta.get('CLASSES')
    if names is None or len(names) != num_classes:
        known = [s.classes for s in configured_sets(cfg) if isinstance(s.classes, tuple)]
        names = next((n for n in known if len(n) == num_classes), None)
    return [str(n) for n in names] if names is not None else [f'{i}' for i in range(num_classes)]
