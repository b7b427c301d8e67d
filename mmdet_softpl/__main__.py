"""Entry point of ``python -m mmdet_softpl`` and of the ``softpl`` script."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence

from mmdet_softpl._version import __version__
from mmdet_softpl.cli import commands
from mmdet_softpl.installed_stack import stack

BAD_INPUT = 2
INTERRUPTED = 130
# What mmdet would print on its import, these commands do not provoke, or must see themselves.
WITHOUT_MMDET = ('config-path', 'doctor', 'split')
# What `doctor` looks at.
STACK = ('torch', 'numpy', 'cv2', 'mmengine', 'mmcv', 'mmdet', 'pkg_resources')


def build_parser() -> argparse.ArgumentParser:
    """The parser with one sub-command for each file in :mod:`mmdet_softpl.cli`."""
    parser = argparse.ArgumentParser(
        prog='softpl',
        description='Tools around mmdet_softpl; training is `mim train mmdet CONFIG`.',
    )
    parser.add_argument('--version', action='version', version=__version__)
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    subparsers = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for command in commands():
        subparser = subparsers.add_parser(command.NAME, help=command.HELP, description=command.HELP)
        # SUPPRESS: without it the sub-command's default would undo a --debug given before it.
        subparser.add_argument(
            '--debug', action='store_true', default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
        subparser.set_defaults(run=command.run, resumes=False)
        command.add_arguments(subparser)
    return parser


def _say_once() -> Callable[..., None]:
    """A ``warnings.showwarning`` that says each sentence once, without lines of source."""
    said: set[str] = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        if str(message) not in said:
            said.add(str(message))
            print(f'warning: {message}', file=sys.stderr)

    return show


def _import_what_prints() -> None:
    """Import onedl's mmdet, which prints while it is imported, so that nothing precedes a json."""
    if stack()['mmdet']['origin'] != 'onedl':
        return
    with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(Exception):
        importlib.import_module('mmdet.datasets')


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments; ``sys.argv[1:]`` when None.

    Returns:
        The exit status: the command's own, 2 for bad input (``ValueError`` or ``OSError``,
        printed as one message) and for a package that is missing or of a version that mmdet
        refuses, 1 where the reader of a pipe has gone, 130 after Ctrl-C.
    """
    _never_fail_to_print()
    try:
        return _run(build_parser().parse_args(argv))
    except BrokenPipeError:
        # The reader (`| head`) has gone; without this Python complains once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _never_fail_to_print() -> None:
    """A class name that the locale's encoding lacks must not end a run."""
    reconfigure = getattr(sys.stdout, 'reconfigure', None)
    if reconfigure is not None and sys.stdout.encoding.lower().replace('-', '') != 'utf8':
        reconfigure(errors='backslashreplace')


def _run(args: argparse.Namespace) -> int:
    try:
        with warnings.catch_warnings():
            # mmengine's doing, and `doctor` says what there is to do about it.
            warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
            if not args.debug:
                warnings.showwarning = _say_once()
            if getattr(args, 'json', False) and args.command not in WITHOUT_MMDET:
                _import_what_prints()
            return args.run(args)
    except KeyboardInterrupt:
        goes_on = '; the same command goes on from here' if args.resumes else ''
        print(f'interrupted{goes_on}', file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # An OSError, but not one of bad input.
        raise
    except (ImportError, ValueError, OSError, AssertionError, RuntimeError) as error:
        wrong_stack = _is_of_the_stack(error)
        unexpected = isinstance(error, (AssertionError, RuntimeError))
        if args.debug or (unexpected and not wrong_stack):
            raise
        hint = ''
        if wrong_stack:
            hint = '`python -m mmdet_softpl doctor` says what is wrong and how to install it '
        print(
            f'softpl {args.command}: {error}\n{hint}(--debug shows the traceback)', file=sys.stderr
        )
        return BAD_INPUT


def _is_of_the_stack(error: Exception) -> bool:
    """Whether a package is missing, of a version that mmdet refuses, or torchvision of no torch."""
    if isinstance(error, ImportError):
        # A library of the system that a package needs (libGL of OpenCV) has no name here.
        return error.name is None or error.name.split('.')[0] in STACK
    if isinstance(error, RuntimeError):
        return 'torchvision::' in str(error)
    return isinstance(error, AssertionError) and str(error).startswith(('MMCV==', 'MMEngine=='))


if __name__ == '__main__':
    sys.exit(main())
