"""What the versions underneath need from us, and which of them are installed.

Three jobs: let mmengine 0.10 resume its own checkpoints under torch >= 2.6, make the plain
names of our classes known to mmdet (both :func:`install`), and tell which stack is there
(:func:`stack`, :func:`untested`).
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import pickle
import sys
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

# Distributions that can provide an import name, the official one first.
_PROVIDERS = {
    'torch': ('torch',),
    'torchvision': ('torchvision',),
    'numpy': ('numpy',),
    'mmengine': ('mmengine', 'mmengine-lite', 'onedl-mmengine'),
    'mmcv': ('mmcv', 'mmcv-lite', 'onedl-mmcv'),
    'mmdet': ('mmdet', 'onedl-mmdetection'),
    'faster-coco-eval': ('faster-coco-eval',),
    'pycocotools': ('pycocotools',),
    'lvis': ('lvis',),
    'setuptools': ('setuptools',),
}

# Release series that the test suite runs on (distribution -> prefixes of its version).
_TESTED = {
    'mmengine': ('0.10.',),
    'mmcv': ('2.1.',),
    'mmcv-lite': ('2.1.',),
    'mmdet': ('3.3.',),
}

_CHECKPOINT_LOADER = 'mmengine.runner.checkpoint'
_HOST_REGISTRY = 'mmdet.registry'
_installed = False
_warned = False


class UntestedStackWarning(UserWarning):
    """An installed MMDetection, MMCV or MMEngine is not one that the tests run on."""


def install() -> None:
    """Prepare the stack underneath, only once; importing nothing of it.

    - mmengine's checkpoints become loadable and an untested stack is reported: at once
      where torch is imported already, else as soon as mmengine's checkpoint loader is.
    - ``type='X'`` of our classes works in mmdet's scope after ``import mmdet_softpl`` alone:
      as soon as ``mmdet.registry`` is imported, see :func:`register_plain_names`.
    """
    global _installed
    if _installed:
        return
    _installed = True
    if sys.modules.get('torch') is not None:
        _prepare()
    else:
        sys.meta_path.insert(0, _AfterImport(_CHECKPOINT_LOADER, _prepare))
    if sys.modules.get(_HOST_REGISTRY) is not None:
        register_plain_names()
    else:
        sys.meta_path.insert(0, _AfterImport(_HOST_REGISTRY, register_plain_names))


def register_plain_names() -> None:
    """Have mmdet's registries import our modules, too, at their next lookup.

    Our classes register themselves in mmdet's registries, but only when their modules are
    imported. mmengine has no public way to add to the ``locations`` of a registry.
    """
    import mmdet.registry as host

    from mmdet_softpl import registry

    for name in ('MODELS', 'HOOKS', 'DATASETS', 'METRICS'):
        theirs, ours = getattr(host, name), getattr(registry, name)
        theirs._locations.extend(ours._locations)
        theirs._imported = False


def allow_mmengine_checkpoints() -> None:
    """Add what mmengine's checkpoints hold to the safe globals of ``torch.load``.

    torch >= 2.6 loads with ``weights_only=True``; mmengine 0.10 stores its message hub
    (``HistoryBuffer`` objects around numpy arrays) beside the weights and does not ask for
    anything else, so that every resume raises ``UnpicklingError``. Allowed are that class,
    numpy's arrays and scalars of numbers under the module names of numpy 1 and 2, and
    ``getattr`` on ``HistoryBuffer`` alone: the pickled name ``builtins.getattr`` is bound to
    :func:`_history_buffer_statistic`, because the real one would open every attribute of
    every allowed object to a file.

    Does nothing below torch 2.6 and where mmengine is missing.
    """
    import torch

    if _release(torch.__version__) < (2, 6) or importlib.util.find_spec('mmengine') is None:
        return
    import numpy as np
    from mmengine.logging.history_buffer import HistoryBuffer

    # Read off numpy itself, which calls its private module differently in 1.x and 2.x.
    reconstruct = np.zeros(1).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    dtypes = {type(np.dtype(code)) for code in '?' + np.typecodes['AllInteger'] + 'efd'}
    classes = (HistoryBuffer, np.ndarray, np.dtype, *dtypes)
    # By name, for onedl-mmengine takes the plain objects out again after each load of its own.
    allowed: list[Any] = [(c, f'{c.__module__}.{c.__qualname__}') for c in classes]
    allowed.append((_history_buffer_statistic, 'builtins.getattr'))
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        allowed += [(reconstruct, f'{module}._reconstruct'), (scalar, f'{module}.scalar')]
    torch.serialization.add_safe_globals(allowed)


def stack() -> dict[str, dict[str, str | None]]:
    """The installed versions of what the package works with.

    Returns:
        import name -> ``version`` (None: not installed), ``distribution`` that provides it
        (``mmcv-lite`` or ``onedl-mmcv`` for ``mmcv``, say) and ``origin``: ``'openmmlab'``,
        ``'onedl'`` or None where the name is no part of either. Several distributions of one
        import name overwrite each other's files; ``distribution`` then lists them joined
        with ``' + '``.
    """
    found: dict[str, dict[str, str | None]] = {}
    for name, candidates in _PROVIDERS.items():
        versions = {dist: _version_of(dist) for dist in candidates}
        present = [dist for dist in candidates if versions[dist] is not None]
        origin = None
        if present and name.startswith('mm'):
            origin = 'onedl' if present[0].startswith('onedl') else 'openmmlab'
        found[name] = {
            'version': versions[present[0]] if present else None,
            'distribution': ' + '.join(present) or None,
            'origin': origin,
        }
    return found


def untested(found: dict[str, dict[str, str | None]] | None = None) -> list[str]:
    """Sentences about installed versions that the test suite does not run on.

    Args:
        found: what :func:`stack` returned; asked again when None.
    """
    found = stack() if found is None else found
    sentences = []
    for name in ('mmengine', 'mmcv', 'mmdet'):
        version, distribution = found[name]['version'], found[name]['distribution']
        if version is None or distribution is None:
            continue
        prefixes = _TESTED.get(distribution)
        if prefixes is None:
            sentences.append(f'{name} comes from {distribution} {version}, which is not tested')
        elif not version.startswith(prefixes):
            tested = ', '.join(prefix + 'x' for prefix in prefixes)
            sentences.append(f'{distribution} {version} is not tested (tested: {tested})')
    return sentences


def _prepare() -> None:
    global _warned
    allow_mmengine_checkpoints()
    sentences = [] if _warned else untested()
    if sentences:
        _warned = True
        warnings.warn(
            'mmdet_softpl: ' + '; '.join(sentences) + '. It may well work; '
            '`python -m mmdet_softpl doctor` looks at the whole stack.',
            UntestedStackWarning,
            stacklevel=2,
        )


def _history_buffer_statistic(owner: Any, name: str) -> Callable:
    """``getattr`` for the statistic methods of ``HistoryBuffer`` and for nothing else."""
    from mmengine.logging.history_buffer import HistoryBuffer

    if owner is HistoryBuffer and not name.startswith('_'):
        return getattr(owner, name)
    raise pickle.UnpicklingError(
        f'the checkpoint asks for attribute {name!r} of {owner!r}; only the statistics of '
        'mmengine.logging.HistoryBuffer may be looked up while a checkpoint is loaded'
    )


def _version_of(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _release(version: str) -> tuple[int, int]:
    """Major and minor number of a version such as ``2.13.0+cpu``."""
    major, minor = version.split('.')[:2]
    return int(major), int(minor)


class _AfterImport(importlib.abc.MetaPathFinder):
    """Calls ``action`` once, right after the module ``name`` has been imported."""

    def __init__(self, name: str, action: Callable[[], None]) -> None:
        self.name = name
        self.action = action

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _LoaderWithAction(spec.loader, self.action)
        return spec


class _LoaderWithAction(importlib.abc.Loader):
    """Delegates to ``loader`` and calls ``action`` when the module has been executed."""

    def __init__(self, loader: Any, action: Callable[[], None]) -> None:
        self.loader = loader
        self.action = action

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        self.action()
