"""Relative paths that hold across symbolic links."""

from __future__ import annotations

import os
from pathlib import Path


def relative_path(path: str | os.PathLike, folder: str | os.PathLike) -> str:
    """``path`` as seen from ``folder``, with forward slashes.

    Where a link is between them, ``..`` leads to what the link points to lies in: the result is
    then that between the real places.

    Args:
        path: Of a file that exists, or may not yet.
        folder: Likewise.
    """
    text = os.path.relpath(path, folder)
    if os.path.exists(path) and not _same(os.path.join(folder, text), path):
        text = os.path.relpath(os.path.realpath(path), os.path.realpath(folder))
    return Path(text).as_posix()


def _same(one: str, other: str | os.PathLike) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
