"""Which checkpoint of a work directory a training goes on from."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from zipfile import is_zipfile

# Of damaged files, and of those that hold other things.
_UNREADABLE = (
    OSError,
    RuntimeError,
    ValueError,
    EOFError,
    pickle.UnpicklingError,
    LookupError,
    TypeError,
)


def last_checkpoint(work_dir: str | os.PathLike) -> Path | None:
    """The newest whole checkpoint of a training; None where there is none.

    That is what mmengine's file ``last_checkpoint`` names, in this folder if it was moved since.
    Stopped while it wrote a checkpoint, mmengine has removed an older one already: if that was
    the named one, the newest other whose file is whole is taken.

    Args:
        work_dir: Folder of the training; may be missing.
    """
    folder = Path(work_dir)
    pointer = folder / 'last_checkpoint'
    if pointer.is_file():
        named = Path(pointer.read_text(encoding='utf-8').strip())
        for candidate in (folder / named.name, named):
            if candidate.is_file():
                return candidate
    # PyTorch's files are zip archives, whose end tells a whole one. mmengine's best_*.pth are
    # weights alone.
    files = (path for path in folder.glob('*.pth') if not path.name.startswith('best_'))
    whole = [path for path in files if is_zipfile(path)]
    return max(whole, key=_age, default=None)


def written_by(checkpoint: str | os.PathLike) -> str | None:
    """Time stamp of the start that wrote a checkpoint, ``20260131_235959``.

    None where the file does not say so, or cannot be read.
    """
    import torch

    try:
        # Memory-mapped: of the whole file only a few words are wanted.
        content = torch.load(os.fspath(checkpoint), map_location='cpu', mmap=True)
        name = str(content['meta']['experiment_name'])
    except _UNREADABLE:
        return None
    found = re.search(r'\d{8}_\d{6}$', name)
    return found.group() if found else None


def _age(path: Path) -> tuple[int, int]:
    """Time of writing; of those that a coarse clock gives the same, iter_40.pth is after iter_5."""
    numbers = re.findall(r'\d+', path.stem)
    return path.stat().st_mtime_ns, int(numbers[-1]) if numbers else 0
