"""Whether two paths lead to one file."""

from __future__ import annotations

import os


def same_path(a: str, b: str) -> bool:
    """Through symbolic links too; neither needs to exist."""
    return os.path.realpath(a) == os.path.realpath(b)
