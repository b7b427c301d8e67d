"""Two gloo processes, a core each, against one process on one core.

As a script this file is one process: `python -m benchmarks.speed.scaling RANK RANKS PORT ROUNDS
JOINED CASE` prints the milliseconds of its iterations as json.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.registry import init_default_scope
from torch.nn.parallel import DistributedDataParallel

import mmdet_softpl  # noqa: F401  isort: skip
from benchmarks.speed.iteration import describe
from benchmarks.speed.planted import Case, batch_of, calibrated_soft_teacher, copied
from benchmarks.speed.records import Record, of_rounds

ROOT = Path(__file__).resolve().parents[2]
RANKS = 2
# Throughput of two ranks over that of one.
WANTED = 1.7


def measure(rank: int, ranks: int, port: int, rounds: int, joined: bool, case: Case) -> list[float]:
    """Milliseconds of each iteration, by the clock, after two that are not measured.

    Args:
        rank: Of this process; it gets the core of that number among those it may use.
        ranks: Processes.
        port: Where rank 0 listens.
        rounds: Iterations.
        joined: Whether the ranks train one model, or each its own.
        case: Batch of each rank.
    """
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[rank % len(cores)]})
    torch.set_num_threads(1)
    init_default_scope('mmdet')
    dist.init_process_group(
        'gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=ranks
    )
    model = calibrated_soft_teacher(case)
    inputs, samples = batch_of(case, seed=rank)
    network = DistributedDataParallel(model) if joined and ranks > 1 else model
    times = []
    for _ in range(rounds + 2):
        dist.barrier()
        begin = time.perf_counter()
        model.zero_grad()
        losses = network(inputs, copied(samples), mode='loss')
        model.parse_losses(losses)[0].backward()
        dist.barrier()
        times.append(1e3 * (time.perf_counter() - begin))
    dist.destroy_process_group()
    return times[2:]


def launch(ranks: int, rounds: int, joined: bool, case: Case) -> list[float]:
    """Milliseconds of the iterations of rank 0."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    command = [sys.executable, '-W', 'ignore', '-m', 'benchmarks.speed.scaling']
    settings = json.dumps(dataclasses.asdict(case))
    processes = [
        subprocess.Popen(
            [*command, str(rank), *map(str, (ranks, port, rounds, int(joined))), settings],
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ, OMP_NUM_THREADS='1'),
            cwd=ROOT,
        )
        for rank in range(ranks)
    ]
    try:
        while any(process.poll() is None for process in processes):
            # One that failed leaves the others waiting for it.
            if any(process.poll() for process in processes):
                break
            time.sleep(0.1)
    finally:
        for process in processes:
            process.kill()
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError(f'{case}: a rank of {ranks} failed, see above.')
    return json.loads(outputs[0].splitlines()[-1])


def rows(case: Case, rounds: int) -> list[Record]:
    """Time of an iteration of two ranks over that of one: twice the images in it."""
    one, two, apart = (
        launch(ranks, rounds, joined, case)
        for ranks, joined in ((1, False), (RANKS, True), (RANKS, False))
    )
    base = statistics.median(one)
    alone = statistics.median(apart) / base
    ratios = [t / base for t in two]
    median = statistics.median(ratios)
    return [
        of_rounds(
            ratios,
            what=f'iteration of {RANKS} gloo processes, a core each',
            against='one process on one core, half the images',
            case=describe(case),
            device='cpu',
            target=round(RANKS / WANTED, 2),
            note=f'by the clock; throughput {RANKS / median:.2f} times that of one process '
            f'(wanted {WANTED}); {RANKS} processes that share nothing come to {RANKS / alone:.2f}',
        )
    ]


def _main() -> None:
    rank, ranks, port, rounds, joined = map(int, sys.argv[1:6])
    settings = json.loads(sys.argv[6])
    case = Case(**{**settings, 'size': tuple(settings['size'])})
    print(json.dumps(measure(rank, ranks, port, rounds, bool(joined), case)))


if __name__ == '__main__':
    _main()
