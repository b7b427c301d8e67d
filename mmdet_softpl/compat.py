"""What has to happen to the stack underneath before our classes work in it."""

from __future__ import annotations

import sys
import warnings

from mmdet_softpl.after_import import after_import
from mmdet_softpl.installed_stack import untested
from mmdet_softpl.safe_checkpoints import allow_mmengine_checkpoints

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
        after_import('mmengine.runner.checkpoint', _prepare)
    after_import('mmdet.registry', register_plain_names)


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
