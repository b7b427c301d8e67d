"""The plain MMDetection detector inside a training: its config and its weights.

Our head is replaced by the stock head it is made of. The extra buffers of our head (prototypes,
similarities) matter in training only, so that predictions do not change.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.fileio import list_from_file
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmdet_softpl import registry
from mmdet_softpl.config_file import load_config
from mmdet_softpl.datasets.config_sets import dataset_leaves
from mmdet_softpl.engine.load_teacher import without_pretrained
from mmdet_softpl.models.checkpoint_parts import network_part

# What testing and inference read; training belongs to the semi-supervised config.
_KEPT = (
    'default_scope',
    'model',
    'test_dataloader',
    'test_evaluator',
    'test_pipeline',
    'test_cfg',
    'tta_model',
    'tta_pipeline',
    'default_hooks',
    'env_cfg',
    'vis_backends',
    'visualizer',
    'log_processor',
    'log_level',
    'custom_imports',
)
_PACKAGE = 'mmdet_softpl'


class ExportError(ValueError):
    """The checkpoint or its config cannot become a plain detector."""


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


def plain_config(cfg: Config) -> Config:
    """The config of a plain detector for testing and inference.

    Args:
        cfg: ``mmengine.Config`` of the training.

    Returns:
        A new ``mmengine.Config`` without a base file and without our types.

    Raises:
        ExportError: there is no model or test set, or a type of ours has no stock
            counterpart.
    """
    source = cfg.to_dict()
    for required in ('model', 'test_dataloader', 'test_evaluator'):
        fallback = required.replace('test_', 'val_')
        source[required] = source.get(required) or source.get(fallback)
        if source[required] is None:
            raise ExportError(
                f'the config has neither {required!r} nor {fallback!r}; give one that has, with '
                '--config'
            )
    source['test_cfg'] = {'type': 'TestLoop'}
    # MMDeploy asks for it under this name.
    source['test_pipeline'] = _first_test_set(source).get('pipeline')
    source['model'] = without_pretrained(_plain_model(source['model']))
    source['test_evaluator'] = _plain_evaluator(source['test_evaluator'])
    source['default_scope'] = 'mmdet'
    imports = (source.get('custom_imports') or {}).get('imports', [])
    imports = [imports] if isinstance(imports, str) else imports
    imports = [name for name in imports if name.split('.')[0] != _PACKAGE]
    source['custom_imports'] = {'imports': imports} if imports else None
    source['default_hooks'] = {
        name: hook
        for name, hook in (source.get('default_hooks') or {}).items()
        if not (isinstance(hook, dict) and _our_class(hook.get('type')))
    }
    kept = {key: source[key] for key in _KEPT if source.get(key) is not None}
    return Config(_stock(kept))


def _first_test_set(cfg: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a ``ConcatDataset`` the first, whose classes and, as a rule, pipeline the others have."""
    leaves = list(dataset_leaves(cfg['test_dataloader']['dataset']))
    if not leaves:
        raise ExportError('test_dataloader names no data set')
    return leaves[0]


def _plain_model(model: dict[str, Any]) -> dict[str, Any]:
    """The detector inside a semi-supervised model, with the preprocessor it was used with."""
    if 'detector' not in model:
        return model
    detector = dict(model['detector'])
    outer = model.get('data_preprocessor') or {}
    if outer.get('data_preprocessor') is not None:
        detector['data_preprocessor'] = outer['data_preprocessor']
    return detector


def _plain_evaluator(evaluator: Any) -> Any:
    """``CocoMetric`` in place of our metrics; it reads LVIS files as well."""
    if isinstance(evaluator, (list, tuple)):
        return [_plain_evaluator(metric) for metric in evaluator]
    if not _our_class(evaluator.get('type')):
        return evaluator
    if 'ann_file' not in evaluator:
        raise ExportError(f"test_evaluator {evaluator['type']!r} has no 'ann_file' to evaluate on")
    metric = {'type': 'CocoMetric', 'format_only': False}
    copied = ('ann_file', 'metric', 'backend_args')
    return metric | {key: evaluator[key] for key in copied if key in evaluator}


def _stock(node: Any) -> Any:
    """``node`` with each of our types replaced by the stock class that it extends."""
    if isinstance(node, (list, tuple)):
        return type(node)(_stock(item) for item in node)
    if not isinstance(node, dict):
        return node
    node = {key: _stock(value) for key, value in node.items()}
    ours = _our_class(node.get('type'))
    if ours is None:
        return node
    parent = _stock_parent(ours)
    theirs = {name for cls in parent.__mro__ for name in _arguments(cls)}
    mine = {
        name
        for cls in ours.__mro__
        if cls.__module__.split('.')[0] == _PACKAGE
        for name in _arguments(cls)
    }
    kept = {key: value for key, value in node.items() if key not in mine - theirs}
    return kept | {'type': parent.__name__}


def _our_class(name: Any) -> type | None:
    """Our class of that registered name (``X``, ``mmdet_softpl.X``, ``mmdet.X``), if any."""
    if not isinstance(name, str):
        return None
    for registered in (registry.MODELS, registry.HOOKS, registry.DATASETS, registry.METRICS):
        registered.import_from_location()
        found = registered.module_dict.get(name.rsplit('.', 1)[-1])
        if found is not None:
            return found
    if name.startswith(f'{_PACKAGE}.'):
        raise ExportError(f'the config has the type {name!r}, which {_PACKAGE} does not have')
    return None


def _stock_parent(ours: type) -> type:
    for cls in ours.__mro__:
        if cls.__module__.split('.')[0] != _PACKAGE and any(
            registry.get(cls.__name__) is cls for registry in (MODELS, DATASETS)
        ):
            return cls
    raise ExportError(f'{ours.__name__} extends no class that MMDetection has registered')


def _arguments(cls: type) -> set[str]:
    """Names of the arguments that the constructor of this very class takes."""
    if '__init__' not in vars(cls):
        return set()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(vars(cls)['__init__']).parameters.values()
    return {p.name for p in parameters if p.kind not in variadic}


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
        dataset = _first_test_set(plain)
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
