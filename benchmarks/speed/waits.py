"""Waits for the device: how often an iteration stops the host until the GPU has caught up.

On a GPU torch reports them itself. On a CPU operations are counted that would wait on a GPU because
the host asks for a size or a value; copies between host and device do not exist there.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.speed.iteration import describe, step
from benchmarks.speed.planted import Case, batch_of, calibrated_soft_teacher
from benchmarks.speed.records import Record, of_number

# On a GPU the host waits for the size or the value of what these return.
WAITING = {
    'aten::_local_scalar_dense',
    'aten::nonzero',
    'aten::masked_select',
    'aten::equal',
    'aten::_unique2',
    'aten::unique_dim',
    'aten::repeat_interleave.Tensor',
}
LOSS_PATH = ('roi_losses', 'loss')
SYNCHRONIZES = 'synchronizing CUDA operation'


class Waits:
    """Waits, by who asked for them.

    Attributes:
        by_place: (file, line, whether inside the losses of student or box head) -> times, for those
            of our own code. What stands in for mmcv's ops or mmdet's assigner counts as the host's.
        by_host: Of everybody else.
    """

    def __init__(self) -> None:
        self.by_place: Counter[tuple[str, int, bool]] = Counter()
        self.by_host = 0

    def note(self, frame: FrameType | None) -> None:
        """One wait, asked for by this frame."""
        place, in_loss = None, False
        while frame is not None:
            name = frame.f_code.co_filename
            if place is None and any(f'/{p}/' in name for p in ('mmdet', 'mmcv', 'mmengine')):
                place = ('', 0)
            if '/mmdet_softpl/' in name:
                if place is None:
                    own = '/ops/' not in name and not name.endswith('/host_shortcuts.py')
                    place = (Path(name).name, frame.f_lineno) if own else ('', 0)
                in_loss = in_loss or (
                    frame.f_code.co_name in LOSS_PATH
                    and Path(name).name in ('student_losses.py', 'smoothed_ce_head.py')
                )
            frame = frame.f_back
        if place is None or not place[0]:
            self.by_host += 1
        else:
            self.by_place[(*place, in_loss)] += 1


class WouldWait(TorchDispatchMode):
    """Notes operations that would wait on a GPU."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.name() in WAITING or _indexes_by_mask(func.name(), args):
            self.waits.note(sys._getframe(1))
        return func(*args, **(kwargs or {}))


def _indexes_by_mask(name: str, args: tuple) -> bool:
    if not name.startswith(('aten::index.Tensor', 'aten::index_put', 'aten::_index_put')):
        return False
    masks = [i for i in args[1] if isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8)]
    # Assigning one number through a mask has a known size.
    return bool(masks) and not (name.startswith('aten::index_put') and args[2].numel() == 1)


@contextmanager
def does_wait(waits: Waits) -> Iterator[None]:
    """Notes what waits on the GPU of this process."""

    def show(message: Any, *args: Any, **kwargs: Any) -> None:
        if SYNCHRONIZES in str(message):
            waits.note(sys._getframe(1))

    with warnings.catch_warnings(), mock.patch.object(warnings, 'showwarning', show):
        warnings.simplefilter('always')
        torch.cuda.set_sync_debug_mode('warn')
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode('default')


def watched(waits: Waits, device: str) -> AbstractContextManager:
    """Notes the waits of what runs inside."""
    return does_wait(waits) if device == 'cuda' else WouldWait(waits)


def count_waits(case: Case) -> Waits:
    """Waits of one iteration."""
    model = calibrated_soft_teacher(case)
    inputs, samples = batch_of(case)
    run = step(model, inputs, samples)
    run()
    waits = Waits()
    with watched(waits, case.device):
        run()
    return waits


def wait_rows(case: Case, name: str) -> list[Record]:
    """Host-device synchronisations of an iteration that we cause."""
    waits = count_waits(case)
    loss, other = _places(waits, True), _places(waits, False)
    how = (
        'reported by torch'
        if case.device == 'cuda'
        else 'counted on the CPU by the operations that would wait on a GPU'
    )
    note = f'{how}; elsewhere ours are {_listed(other)}, the host has {waits.by_host}'
    return [
        of_number(
            sum(loss.values()),
            what='waits for the device that we cause in the loss path',
            against='',
            case=describe(case),
            device=name,
            target=0,
            note=f'{_listed(loss)}; {note}' if loss else note,
        )
    ]


def _places(waits: Waits, in_loss: bool) -> dict[str, int]:
    """``file:line`` -> times."""
    found = {
        f'{f}:{line}': n for (f, line, inside), n in waits.by_place.items() if inside == in_loss
    }
    return dict(sorted(found.items()))


def _listed(places: dict[str, int]) -> str:
    listed = ', '.join(f'{place} ({n})' for place, n in places.items())
    return f'{sum(places.values())} ({listed})' if places else '0'
