"""Atomic writing of json files."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def write_json(path: str | os.PathLike, data: Any) -> None:
    """Write beside ``path``, then rename: a reader sees the old file or the whole new one.

    Args:
        path: file to write; its folder must exist.
        data: what :func:`json.dump` takes.
    """
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        with os.fdopen(handle, 'w', encoding='utf-8') as file:
            json.dump(data, file)
        # mkstemp makes files that only the owner can read.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
