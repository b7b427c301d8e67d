"""Annotation files, each of which a process reads once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from .annotation_checks import AnnotationSummary, check_annotations
from .annotation_file import load_annotation_file

_Classes = tuple[str, ...] | None
# Of each file what tells that it has changed, and its summaries by the classes that were asked for
# (None: all).
_checked: dict[str, tuple[tuple[int, ...], dict[_Classes, AnnotationSummary]]] = {}


def cached_annotations(
    ann_file: str | os.PathLike, classes: Sequence[str] | None = None
) -> AnnotationSummary:
    """:func:`.check_annotations` of a labelled file, which is read again only when it changes.

    For what holds on to the summary anyway: it is kept as long as the process lives.

    Args:
        ann_file: COCO or LVIS json.
        classes: ``metainfo['classes']`` of the data set; None: all of the file.

    Returns:
        The summary. All callers share its arrays: do not change them.

    Raises:
        AnnotationError: as :func:`.check_annotations`.
    """
    summary = known_annotations(ann_file, classes)
    if summary is None:
        wanted = None if classes is None else tuple(classes)
        summary = check_annotations(ann_file, classes=wanted)
        _summaries(ann_file)[wanted] = summary
    return summary


def known_annotations(
    ann_file: str | os.PathLike, classes: Sequence[str] | None = None
) -> AnnotationSummary | None:
    """What :func:`cached_annotations` would return, where that needs no reading; else None."""
    wanted = None if classes is None else tuple(classes)
    known = _summaries(ann_file)
    summary = known.get(wanted)
    if summary is None and None in known and known[None].classes == wanted:
        summary = known[None]
    # The path as this caller spells it, for its messages.
    return None if summary is None else replace(summary, ann_file=os.fspath(ann_file))


def cached_categories(ann_file: str | os.PathLike) -> list[dict[str, Any]]:
    """``categories`` of a file, which is read again only when it changes.

    Raises:
        AnnotationError: as :func:`.load_annotation_file`.
    """
    path = os.path.abspath(ann_file)
    return _categories(path, _state(path) if os.path.isfile(path) else ())


@lru_cache(maxsize=8)
def _categories(path: str, state: tuple[int, ...]) -> list[dict[str, Any]]:
    return load_annotation_file(path)['categories']


def _state(path: str) -> tuple[int, ...]:
    """What tells that a file has changed."""
    status = os.stat(path)
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)


def _summaries(ann_file: str | os.PathLike) -> dict[_Classes, AnnotationSummary]:
    """Those of the file as it is now."""
    path = os.path.abspath(ann_file)
    if not os.path.isfile(path):
        _checked.pop(path, None)
        return {}
    state = _state(path)
    if path not in _checked or _checked[path][0] != state:
        _checked[path] = (state, {})
    return _checked[path][1]
