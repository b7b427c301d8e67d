"""The commands of ``python -m mmdet_softpl``: one file a command.

Each file defines ``NAME`` (the word on the command line), ``HELP`` (one line),
``add_arguments(parser)`` and ``run(args) -> int`` (the exit status). One that goes on where it was
interrupted sets the parser's default ``resumes`` to True. Files import torch,
mmengine and the like inside ``run`` only: parsing and ``--help`` stay fast.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from typing import Protocol


class Command(Protocol):
    """What a file of this folder offers."""

    NAME: str
    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add what the command takes."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it; the exit status. Bad input raises ``ValueError`` or ``OSError``."""


def commands() -> list[Command]:
    """All commands of this folder, sorted by name."""
    modules = (
        importlib.import_module(f'{__name__}.{m.name}') for m in pkgutil.iter_modules(__path__)
    )
    return sorted((m for m in modules if hasattr(m, 'NAME')), key=lambda m: m.NAME)  # type: ignore
