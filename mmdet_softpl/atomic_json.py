"""Atomic writing of json and text files."""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

# There is no way to ask for it but to set it, which threads would see.
_UMASK = os.umask(0)
os.umask(_UMASK)


def write_json(path: str | os.PathLike, data: Any, indent: int | None = None) -> None:
    """Write beside ``path``, then rename: a reader sees the old file or the whole new one.

    Args:
        path: file to write; its folder must exist.
        data: what :func:`json.dump` takes; NaN and infinity, which JSON has not, become null.
        indent: of the text, None for one line.
    """
    write_text(path, json.dumps(finite(data), indent=indent, allow_nan=False))


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write UTF-8 text as :func:`write_json` writes json."""
    # A link stays one: what it points to is replaced.
    path = Path(os.path.realpath(path))
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        with os.fdopen(handle, 'w', encoding='utf-8') as file:
            file.write(text)
        # mkstemp makes files that only the owner can read, whatever the umask.
        os.chmod(temporary, 0o666 & ~_UMASK)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def finite(value: Any) -> Any:
    """``value`` with None for NaN and infinity, through dicts, lists and tuples."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
