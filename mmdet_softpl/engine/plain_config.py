"""The config of the plain MMDetection detector inside a training.

Our types are replaced by the stock ones that they extend.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config

from mmdet_softpl import registry
from mmdet_softpl.datasets.config_sets import dataset_leaves
from mmdet_softpl.engine.load_teacher import without_pretrained

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
    source['test_pipeline'] = first_test_set(source).get('pipeline')
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


def first_test_set(cfg: Mapping[str, Any]) -> Mapping[str, Any]:
    """Config of the test set; of a ``ConcatDataset`` the first.

    Its classes and, as a rule, its pipeline the others have too.

    Raises:
        ExportError: There is none.
    """
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
    # What ours evaluates by default, CocoMetric does not.
    metric = {'type': 'CocoMetric', 'format_only': False, 'metric': ['bbox', 'segm']}
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
