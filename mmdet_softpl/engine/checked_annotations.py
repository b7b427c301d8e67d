"""Labelled files of a run, each of which is read and checked once."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mmdet_softpl.datasets.annotation_checks import AnnotationSummary, check_annotations
from mmdet_softpl.engine.run_warnings import warn_once

# Of each file its time of change and size, and its summaries by the classes that were asked for
# (None: all). LVIS train takes 10 s to check, and more than one hook of a run asks for it.
_Summaries = dict[tuple[str, ...] | None, AnnotationSummary]
_checked: dict[str, tuple[tuple[int, int], _Summaries]] = {}


def checked_annotations(ann_file: str, classes: Sequence[str] | None = None) -> AnnotationSummary:
    """:func:`.check_annotations` of a labelled file, which is read again only when it changes.

    The warnings go to the current logger, each once a run.

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
    for warning in summary.warnings:
        warn_once(f'{ann_file}: {warning}')
    return summary


def _known_summaries(ann_file: str) -> _Summaries:
    """Summaries of the file as it is now; one that does not exist has none."""
    path = os.path.abspath(ann_file)
    if not os.path.isfile(path):
        return {}
    status = os.stat(path)
    state = (status.st_mtime_ns, status.st_size)
    if path not in _checked or _checked[path][0] != state:
        _checked[path] = (state, {})
    return _checked[path][1]
