"""Operations of an iteration. On a GPU each is a kernel to launch, and a small one costs no more.

Counted on the CPU. Views and allocations launch nothing and are left out, and so are RoIAlign and
NMS, which are one kernel on a GPU and many steps of our stand-ins here; what RoIAlign's stand-in
does in the backward pass is counted.
"""

from __future__ import annotations

import sys
from collections import Counter

from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.speed.bare import BareNetwork
from benchmarks.speed.iteration import describe, step
from benchmarks.speed.planted import (
    Case,
    batch_of,
    calibrated_soft_teacher,
    copied,
    soft_teacher,
)
from benchmarks.speed.records import Record, of_number


class Launches(TorchDispatchMode):
    """Counts operations.

    Attributes:
        count: By whose code asked for them: ``'ours'``, ``'host'`` or ``'backward'``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        owner = _owner()
        if owner and _launches(func):
            self.count[owner] += 1
        return func(*args, **(kwargs or {}))


def _launches(func) -> bool:
    """Neither a view, nor an allocation alone, nor a question about types."""
    names = ('aten::empty', 'aten::new_empty', 'aten::_unsafe_view', 'aten::promote_types')
    if func.name().startswith(names):
        return False
    aliases = [value.alias_info for value in func._schema.returns]
    return not any(alias is not None and not alias.is_write for alias in aliases)


def _owner() -> str | None:
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if '/mmdet_softpl/ops/' in name:
            return None
        if '/mmdet_softpl/' in name:
            return 'host' if name.endswith('/host_shortcuts.py') else 'ours'
        if any(f'/{package}/' in name for package in ('mmdet', 'mmcv', 'mmengine')):
            return 'host'
        frame = frame.f_back
    return 'backward'


def count_launches(case: Case) -> dict[str, Counter[str]]:
    """Operations of our iteration, of the bare network and (boxes only) of mmdet's SoftTeacher."""
    model = calibrated_soft_teacher(case)
    # At 0 the pass over labelled images would be due.
    model._iter = 1
    inputs, samples = batch_of(case)
    runs = dict(ours=step(model, inputs, samples), bare=BareNetwork(model, inputs, copied(samples)))
    if case.detector == 'faster-rcnn':
        runs['host'] = step(soft_teacher(case, 0.05), inputs, samples)
    counts = {}
    for name, run in runs.items():
        run()
        launches = Launches()
        with launches:
            run()
        counts[name] = launches.count
    return counts


def launch_rows(case: Case) -> list[Record]:
    """Operations in our own code, and all of them against mmdet's SoftTeacher."""
    found = count_launches(case)
    ours, bare, host = (sum(found[name].values()) for name in ('ours', 'bare', 'host'))
    # The layers of our box head are the network's.
    own = found['ours']['ours'] - found['bare']['ours']
    common = dict(case=describe(case), device='any')
    return [
        of_number(
            own / bare,
            what='operations in our own code, boxes only',
            against='bare network',
            target=0.15,
            note=f'an iteration has {ours:,}, the bare network {bare:,}; '
            f'{own:,} are ours, the rest proposals, assignment, sampling and targets of mmdet',
            **common,
        ),
        of_number(
            ours / host,
            what='operations of an iteration, boxes only',
            against="mmdet's SoftTeacher",
            target=0.85,
            note=f'{ours:,} against {host:,}',
            **common,
        ),
    ]
