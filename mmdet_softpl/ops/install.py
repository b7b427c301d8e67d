"""Put the stand-in where Python looks for ``mmcv._ext``, and say which ops are active.

Imports neither torch nor mmcv at module level, because ``import mmdet_softpl`` runs it.
"""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

EXTENSION = 'mmcv._ext'
_STAND_IN = Path(__file__).with_name('stand_in.py')


class StandInFinder(MetaPathFinder):
    """Import finder that offers ``stand_in.py`` under the name ``mmcv._ext``.

    It stands last in ``sys.meta_path``, so Python asks it only after every other finder has failed:
    a compiled extension is never replaced, and mmcv is not imported before somebody asks for it.
    """

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Return the spec of the stand-in for ``mmcv._ext``, None for every other name."""
        if fullname != EXTENSION:
            return None
        return importlib.util.spec_from_file_location(EXTENSION, _STAND_IN)


def install() -> None:
    """Let ``import mmcv._ext`` fall back to the stand-in. Repeated calls do nothing more."""
    if not any(isinstance(finder, StandInFinder) for finder in sys.meta_path):
        sys.meta_path.append(StandInFinder())


def _load() -> tuple[str, str]:
    """Import ``mmcv._ext`` and return (kind, detail); kind as :func:`active`."""
    if importlib.util.find_spec('mmcv') is None:
        return 'missing', 'mmcv is not installed: pip install mmcv-lite==2.1.0'
    try:
        extension = importlib.import_module(EXTENSION)
    except Exception as error:  # a broken build raises whatever its loader likes
        return 'missing', f'mmcv._ext does not load ({type(error).__name__}: {error})'
    if extension.__file__ != str(_STAND_IN):
        return 'compiled', f'mmcv compiled ops ({extension.__file__})'
    import torch

    from mmdet_softpl.ops.torchvision import why_unusable

    device_type = 'cuda' if torch.cuda.is_available() else 'cpu'
    reason = why_unusable(device_type)
    if reason is None:
        return 'torchvision', (
            'mmdet_softpl stand-in for mmcv._ext: NMS from torchvision, RoIAlign from torchvision '
            'on CUDA and in plain PyTorch on CPU'
        )
    return 'torch', f'mmdet_softpl stand-in for mmcv._ext, in plain PyTorch (torchvision: {reason})'


def active() -> str:
    """Say which ops MMDetection uses. Imports mmcv.

    Returns:
        ``'compiled'`` (mmcv's own), ``'torchvision'`` or ``'torch'`` (the stand-in, and what it
        computes with on the GPU, or without one on the CPU), or ``'missing'`` (no mmcv, or an
        extension that does not load).
    """
    return _load()[0]


def describe() -> str:
    """Return one sentence for a doctor-style report: what is active, where from or why not."""
    return _load()[1]
