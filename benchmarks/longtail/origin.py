"""Where a result comes from: commit, day, hardware, versions."""

from __future__ import annotations

import platform
import subprocess
from datetime import date
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent


def origin() -> dict[str, str]:
    """``commit``, ``date``, ``hardware``, ``torch`` and ``python`` of this process."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ''
    return dict(
        commit=commit(),
        date=str(date.today()),
        hardware=gpu or f'one core of {processor()}',
        torch=torch.__version__,
        python=platform.python_version(),
    )


def commit() -> str:
    """Short name of the checked-out commit, ``+changes`` if files differ from it."""

    def git(*arguments: str) -> str:
        found = subprocess.run(
            ['git', *arguments], cwd=HERE, capture_output=True, text=True, check=True
        )
        return found.stdout.strip()

    try:
        changed = git('status', '--porcelain', '--untracked-files=no', '--', '.', '../../configs')
        changed += git('status', '--porcelain', '--untracked-files=no', '--', '../../mmdet_softpl')
        return git('rev-parse', '--short', 'HEAD') + ('+changes' if changed else '')
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'


def processor() -> str:
    """Name of the CPU."""
    info = Path('/proc/cpuinfo')
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith('model name'):
                return line.split(':', 1)[1].strip()
    return platform.processor() or platform.machine()
