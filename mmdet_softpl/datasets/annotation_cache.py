"""Labelled files, each of which a process reads and checks once."""

from __future__ import annotations

import os
from collections.abc import Sequence

from .annotation_checks import AnnotationSummary, check_annotations

# Of each file its time of change and size, and its summaries by the classes that were asked for
# (None: all). LVIS train takes half a minute, and hooks and metrics of a run ask for it.
_Summaries = dict[tuple[str, ...] | None, AnnotationSummary]
_checked: dict[str, tuple[tuple[int, int], _Summaries]] = {}


def cached_annotations(
    ann_file: str | os.PathLike, classes: Sequence[str] | None = None
) -> AnnotationSummary:
    """:func:`.check_annotations` of a labelled file, which is read again only when it changes.

    Args:
        ann_file: COCO or LVIS json.
        classes: ``metainfo['classes']`` of the data set; None: all of the file.

    Returns:
        The summary. All callers share it: do not change it.

    Raises:
        AnnotationError: as :func:`.check_annotations`.
    """
    wanted = None if classes is None else tuple(classes)
    known = _known_summaries(ann_file)
    summary = known.get(wanted)
    if summary is None and None in known and known[None].classes == wanted:
        summary = known[None]
    if summary is None:
        summary = known[wanted] = check_annotations(ann_file, classes=wanted)
    return summary


def _known_summaries(ann_file: str | os.PathLike) -> _Summaries:
    """Summaries of the file as it is now; one that does not exist has none."""
    path = os.path.abspath(ann_file)
    if not os.path.isfile(path):
        return {}
    status = os.stat(path)
    state = (status.st_mtime_ns, status.st_size)
    if path not in _checked or _checked[path][0] != state:
        _checked[path] = (state, {})
    return _checked[path][1]
