"""mmengine 0.10 resumes its own checkpoints under torch >= 2.6."""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Callable
from typing import Any

from mmdet_softpl.installed_stack import release


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

    if release(torch.__version__) < (2, 6) or importlib.util.find_spec('mmengine') is None:
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


def _history_buffer_statistic(owner: Any, name: str) -> Callable:
    """``getattr`` for the statistic methods of ``HistoryBuffer`` and for nothing else."""
    from mmengine.logging.history_buffer import HistoryBuffer

    if owner is HistoryBuffer and not name.startswith('_'):
        return getattr(owner, name)
    raise pickle.UnpicklingError(
        f'the checkpoint asks for attribute {name!r} of {owner!r}; only the statistics of '
        'mmengine.logging.HistoryBuffer may be looked up while a checkpoint is loaded'
    )
