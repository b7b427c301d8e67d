"""Labelled files of a run, whose doubts it hears."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet_softpl.datasets.annotation_cache import cached_annotations
from mmdet_softpl.datasets.annotation_checks import AnnotationSummary
from mmdet_softpl.engine.run_warnings import warn_once


def reported_annotations(ann_file: str, classes: Sequence[str] | None = None) -> AnnotationSummary:
    """:func:`.cached_annotations`; the warnings go to the current logger, each once a run.

    Args:
        ann_file: COCO or LVIS json.
        classes: ``metainfo['classes']`` of the data set; None: all of the file.

    Returns:
        The summary. All callers share it: do not change it.

    Raises:
        AnnotationError: as :func:`.check_annotations`.
    """
    summary = cached_annotations(ann_file, classes)
    for warning in summary.warnings:
        warn_once(f'{ann_file}: {warning}')
    return summary
