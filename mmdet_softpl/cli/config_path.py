"""``config-path``: where the shipped configs are, in a checkout or in an installed wheel."""

from __future__ import annotations

import argparse
import json

from mmdet_softpl.shipped_configs import config_names, config_path

NAME = 'config-path'
HELP = 'print the path of a shipped config'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = 'example: python -m mmdet_softpl config-path --list'
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument('name', nargs='?', metavar='NAME', help='file name of a config')
    what.add_argument('--list', action='store_true', help='list the names of all configs')
    parser.add_argument('--json', action='store_true', help='with --list: print a JSON array')


def run(args: argparse.Namespace) -> int:
    """Print one path, or all names."""
    if not args.list:
        print(config_path(args.name))
    elif args.json:
        print(json.dumps(config_names(), indent=2))
    else:
        print(*config_names(), sep='\n')
    return 0
