"""The module that Python loads as ``mmcv._ext`` where mmcv has no compiled one.

It has the calling convention of mmcv 2.1's extension: the ops that two-stage detectors use, and for
every other name a function that raises when it is called (mmcv asks for all names at import).
"""

from collections.abc import Callable
from typing import Any, NoReturn

from mmdet_softpl.ops.nms import nms
from mmdet_softpl.ops.roi_align import roi_align_backward, roi_align_forward
from mmdet_softpl.ops.soft_nms import softnms

__all__ = [
    'get_compiler_version',
    'get_compiling_cuda_version',
    'nms',
    'roi_align_backward',
    'roi_align_forward',
    'softnms',
]


def get_compiler_version() -> str:
    """Return what environment reports print as the compiler of mmcv's ops."""
    return 'n/a (mmdet_softpl stand-in)'


def get_compiling_cuda_version() -> str:
    """Return what environment reports print as the CUDA version of mmcv's ops."""
    return 'n/a (mmdet_softpl stand-in)'


def __getattr__(name: str) -> Callable[..., Any]:
    """Return a function that raises RuntimeError for an op the stand-in does not have.

    Raises:
        AttributeError: for names with leading underscores, which are never ops.
    """
    if name.startswith('_'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

    def not_compiled(*args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError(
            f"mmcv op '{name}' is not compiled: install mmcv (pip install mmcv==2.1.0 after pip "
            f'uninstall mmcv-lite; it needs a C++ compiler). mmdet_softpl stands in only for '
            f'{", ".join(op for op in __all__ if not op.startswith("get_"))}.'
        )

    not_compiled.__name__ = name
    return not_compiled
