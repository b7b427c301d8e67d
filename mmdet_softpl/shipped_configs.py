"""Where the shipped configs are, in a checkout or in an installed wheel."""

from __future__ import annotations

import difflib
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


class UnknownConfigError(ValueError):
    """No shipped config has that name."""


def config_root() -> Path:
    """The folder that holds the shipped configs.

    Raises:
        FileNotFoundError: neither a wheel's copy nor a checkout's ``configs/`` is there.
    """
    candidates = (_PACKAGE / '.mim' / 'configs', _PACKAGE.parent / 'configs')
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(
        f'no configs at {" or ".join(map(str, candidates))}: the installation is incomplete; '
        'install mmdet_softpl again from a wheel, or use a checkout'
    )


def config_names() -> list[str]:
    """Names of the shipped configs to train with, relative to :func:`config_root`.

    Base files (below ``_base_/``) are left out: none of them is a whole config.
    """
    root = config_root()
    names = (path.relative_to(root).as_posix() for path in root.rglob('*.py'))
    return sorted(name for name in names if not name.startswith('_base_/'))


def config_path(name: str) -> Path:
    """The path of a shipped config.

    Args:
        name: file name or path below ``configs/`` (``_base_/`` included), with ``.py`` or
            without.

    Raises:
        UnknownConfigError: none has that name; the message has the nearest ones.
    """
    root = config_root()
    wanted = name if name.endswith('.py') else name + '.py'
    direct = root / wanted
    if direct.is_file() and direct.resolve().is_relative_to(root.resolve()):
        return direct
    for candidate in sorted(root.rglob('*.py')):
        if candidate.name == wanted:
            return candidate
    known = config_names()
    by_file_name = {Path(known_name).name: known_name for known_name in known}
    near = difflib.get_close_matches(Path(wanted).name, by_file_name, n=3, cutoff=0.4)
    hint = (
        'nearest: ' + ', '.join(by_file_name[match] for match in near)
        if near
        else '`config-path --list` shows all'
    )
    raise UnknownConfigError(f'no shipped config is called {name!r}; {hint}')


def given_or_shipped(config: str) -> str:
    """``config`` if there is such a file, or none of that name is shipped; else the shipped one."""
    if Path(config).is_file():
        return config
    try:
        return str(config_path(config))
    except UnknownConfigError:
        return config
