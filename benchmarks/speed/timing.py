"""Two or more things timed in turn, and the peak of memory that one of them takes.

Ratios, never seconds: what is compared runs interleaved in one process, each after one unmeasured
run, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

Run = Callable[[], object]


@dataclass(frozen=True)
class Times:
    """Milliseconds of each run, by round.

    Attributes:
        work: CPU time of the process (all threads), or on CUDA the time between two events. What
            other processes do on the machine hardly changes it.
        wall: By the clock.
    """

    work: dict[str, list[float]]
    wall: dict[str, list[float]]

    def ratios(self, name: str, reference: str, extra: float = 0.0) -> list[float]:
        """Work of one run (and ``extra`` milliseconds) over that of another, by round."""
        pairs = zip(self.work[name], self.work[reference], strict=True)
        return [(a + extra) / b for a, b in pairs]

    def wall_ratio(self, name: str, reference: str) -> float:
        """The same by the clock, median."""
        pairs = zip(self.wall[name], self.wall[reference], strict=True)
        return statistics.median(a / b for a, b in pairs)

    def median(self, name: str) -> float:
        """Milliseconds of work of one run."""
        return statistics.median(self.work[name])


def median_and_quartiles(values: list[float]) -> tuple[float, list[float]]:
    """Median, and [lower, upper] quartile; the extremes where there are fewer than four."""
    middle = statistics.median(values)
    if len(values) < 4:
        return middle, [min(values), max(values)]
    lower, _, upper = statistics.quantiles(values, n=4)
    return middle, [lower, upper]


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Let the C library keep large blocks when they are freed, where it is glibc.

    By default it returns them to the system, and the page faults of the next allocation take as
    long as a pass over the block. Which of two interleaved runs pays for them depends on what the
    process did before, and the ratio of the two changes from process to process. Afterwards the
    thresholds are glibc's first ones, but no longer follow what the process frees.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', lambda *_: 0)
    trim_threshold, mmap_max = -1, -4
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(mmap_max, 0)
    try:
        yield
    finally:
        # glibc's defaults.
        mallopt(trim_threshold, 128 * 1024)
        mallopt(mmap_max, 65536)


def interleave(runs: Mapping[str, Run], rounds: int, device: str = 'cpu', warmup: int = 1) -> Times:
    """Time the runs in turn, ``warmup`` rounds unmeasured, then ``rounds`` times.

    On CUDA by events, elsewhere by CPU time and by the clock. A GPU warms up three times as long.
    """
    warmup = 3 * warmup if device == 'cuda' else warmup
    work: dict[str, list[float]] = {name: [] for name in runs}
    wall: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(-warmup, rounds):
        for name, run in runs.items():
            seconds = _timed(run, device)
            if round_ >= 0:
                work[name].append(seconds[0] * 1e3)
                wall[name].append(seconds[1] * 1e3)
    return Times(work, wall)


def _timed(run: Run, device: str) -> tuple[float, float]:
    """Seconds of work, and by the clock."""
    if device == 'cuda':
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin = time.perf_counter()
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1e3, time.perf_counter() - begin
    begin, work = time.perf_counter(), time.process_time()
    run()
    return time.process_time() - work, time.perf_counter() - begin


def peak_bytes(run: Run, device: str = 'cpu') -> int:
    """Largest sum of what the run allocated and had not freed yet, in bytes, beyond its start."""
    run()
    gc.collect()
    if device == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        run()
    # torch has no public list of single allocations; the trace file has the same events.
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == '[memory]']
    events.sort(key=lambda event: event.start_ns())
    return max(itertools.accumulate((event.nbytes() for event in events), initial=0))
