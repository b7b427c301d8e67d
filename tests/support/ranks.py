"""Processes of one distributed run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def run_ranks(world_size: int, script: str, arguments: Sequence[str], timeout_s: float) -> None:
    """Run a script once a rank, with torchrun's names in the environment.

    Every process is killed when one of them takes too long. Failures are assertion errors with the
    ends of what the ranks printed.
    """
    root = Path(__file__).resolve().parents[2]
    environment = dict(os.environ, PYTHONPATH=str(root), OMP_NUM_THREADS='1')
    environment['WORLD_SIZE'] = str(world_size)
    processes = [
        subprocess.Popen(
            [sys.executable, script, *arguments],
            env=dict(environment, RANK=str(rank), LOCAL_RANK=str(rank)),
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world_size)
    ]
    try:
        outputs = [process.communicate(timeout=timeout_s)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    failed = [f'rank {i}: {outputs[i][-3000:]}' for i, p in enumerate(processes) if p.returncode]
    assert not failed, '\n'.join(failed)
