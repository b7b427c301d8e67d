"""Atomic writing of files: json, text, and several that belong together."""

from __future__ import annotations

import errno
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
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

    Raises:
        OSError: It cannot be written; names ``path``.
    """
    write_text(path, json_text(data, indent))


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write UTF-8 text as :func:`write_json` writes json."""
    write_texts({path: text})


def write_texts(texts: Mapping[str | os.PathLike, str]) -> None:
    """Write several files that belong together as :func:`write_text` writes one."""
    with replaced_together(*texts) as temporaries:
        for temporary, text in zip(temporaries, texts.values(), strict=True):
            temporary.write_text(text, encoding='utf-8')


def json_text(data: Any, indent: int | None = None) -> str:
    """What :func:`write_json` writes."""
    return json.dumps(finite(data), indent=indent, allow_nan=False)


@contextmanager
def replaced_together(*paths: str | os.PathLike) -> Iterator[tuple[Path, ...]]:
    """Files to write, which take the places of ``paths`` when the block has ended well.

    Args:
        paths: Files to replace; their folders must exist.

    Yields:
        An empty file beside each, with the same suffix, for the block to write and for nothing
        else. None of them is left, and nothing is replaced, where the block raises.

    Raises:
        OSError: They cannot be written; names ``paths`` instead of what they are made from.
    """
    # A link stays one: what it points to is replaced.
    targets = [Path(os.path.realpath(path)) for path in paths]
    made: list[Path] = []
    try:
        for target in targets:
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, 'a folder has that name')
            # No dot in the middle: mmengine reads no such config.
            handle, name = tempfile.mkstemp(
                dir=target.parent, prefix=f'.{target.stem}_', suffix=target.suffix
            )
            os.close(handle)
            made.append(Path(name))
        yield tuple(made)
        for temporary, target in zip(made, targets, strict=True):
            # mkstemp makes files that only the owner can read, whatever the umask and the old file.
            mode = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_UMASK
            # Some network drives have no modes, and refuse to change them.
            with suppress(OSError):
                os.chmod(temporary, mode)
            os.replace(temporary, target)
    except OSError as error:
        names = ' and '.join(os.fspath(path) for path in paths)
        reason = error.strerror or str(error)
        raise type(error)(error.errno or 0, f'{names} cannot be written: {reason}') from error
    finally:
        for temporary in made:
            temporary.unlink(missing_ok=True)


def finite(value: Any) -> Any:
    """``value`` with None for NaN and infinity, through dicts, lists and tuples."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
