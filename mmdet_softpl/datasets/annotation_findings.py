"""What is wrong with the categories and annotations of a set's json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from mmdet_softpl.messages import some_of

from .annotation_checks import AnnotationSummary, check_annotations
from .annotation_entries import Faults, check_ids
from .annotation_file import AnnotationError
from .config_sets import LABELLED, UNLABELLED, VALIDATION, ConfiguredSet
from .findings import ERROR, WARNING, Finding
from .usable_part import usable_part

NO_VALIDATION_IMAGE = 'class without a validation image'


def summarise(
    configured: ConfiguredSet, data: dict[str, Any], findings: list[Finding]
) -> AnnotationSummary | None:
    """The summary of the file, or of its usable part, after noting what is wrong with it.

    Args:
        configured: the set.
        data: its json.
        findings: what is wrong is added here.

    Returns:
        None where the file has no usable categories.
    """
    path, name, role = configured.ann_file, configured.name, configured.role
    labelled = role == LABELLED
    # Nothing reads the categories and annotations of unlabelled images.
    severity = WARNING if role == UNLABELLED else ERROR
    classes = None if role == UNLABELLED else configured.classes
    if role not in (LABELLED, UNLABELLED) and not data.get('annotations'):
        detail = f'{path}: there is nothing to evaluate against'
        remedy = 'give a json with annotations'
        if role != VALIDATION:
            remedy += '; where nobody has any (test-dev), CocoMetric with format_only=True'
        # The images of a test come after the training.
        stops = ERROR if role == VALIDATION else WARNING
        findings.append(Finding(stops, name, 'no annotation', detail, remedy))
    if role != UNLABELLED:
        ids = Faults()
        check_ids(data, ids)
        # Training takes them, but not evaluation and `review import`.
        stops = WARNING if labelled else ERROR
        for kind in ids.counts:
            findings.append(finding_of_message(stops, name, kind, f'{path}: {ids.describe(kind)}'))
    if role == UNLABELLED and not data['categories']:
        if not data['images']:
            detail = f'{path}: key `images` is an empty list'
            findings.append(Finding(ERROR, name, 'no image', detail, 'list the images there'))
        return None
    try:
        summary = check_annotations(path, classes=classes, require_annotations=labelled, data=data)
    except AnnotationError as error:
        for problem in error.problems:
            several = problem != str(error)
            kind = problem.partition(' (')[0] if several else 'unusable file'
            text = f'{path}: {problem}' if several else problem
            findings.append(finding_of_message(severity, name, kind, text))
        part, kept = usable_part(data, classes)
        try:
            return check_annotations(path, classes=kept, require_annotations=False, data=part)
        except AnnotationError:
            return None
    for warning in summary.warnings:
        findings.append(finding_of_message(WARNING, name, 'doubtful file', f'{path}: {warning}'))
    if labelled and classes is not None:
        findings += _left_out_classes(configured, data, classes)
    empty = [c for c, n in zip(summary.classes, summary.image_counts, strict=True) if n == 0]
    if role == VALIDATION and data.get('annotations') and empty:
        findings.append(
            Finding(
                WARNING,
                name,
                NO_VALIDATION_IMAGE,
                f'{path}: {len(empty)} of {len(summary.classes)} classes: {some_of(empty)}',
                'add images of them: they have no AP (-1), and the mean leaves them out',
                len(empty),
            )
        )
    return summary


def _left_out_classes(
    configured: ConfiguredSet, data: dict[str, Any], classes: Sequence[str]
) -> list[Finding]:
    """Categories of a labelled file that ``metainfo.classes`` does not name."""
    wanted = set(classes)
    others = {c['id']: c['name'] for c in data['categories'] if c['name'] not in wanted}
    counts = Counter(a['category_id'] for a in data['annotations'])
    shown = [f'{name} ({counts[i]} annotations)' for i, name in others.items() if counts[i]]
    if others and configured.kind.startswith('lvis'):
        return [
            Finding(
                ERROR,
                configured.name,
                'classes of a part of an LVIS file',
                f'{configured.ann_file}: {len(others)} of {len(data["categories"])} categories are '
                f'not in `metainfo.classes`: {some_of(list(others.values()))}',
                'take them out of the json, or read it as a CocoDataset: the LVIS data sets number '
                'all categories of the file, so objects would get the labels of other classes',
                len(others),
            )
        ]
    if not shown:
        return []
    return [
        Finding(
            WARNING,
            configured.name,
            'class that is not trained',
            f'{configured.ann_file}: {len(shown)} of {len(data["categories"])} categories are not '
            f'in `metainfo.classes`: {some_of(shown)}',
            'add them to `classes`, and to num_classes of the heads; otherwise their objects are '
            'taught as background',
            len(shown),
        )
    ]


def finding_of_message(severity: str, name: str, kind: str, text: str) -> Finding:
    """A finding from a message of the annotation checks, whose last sentence is the remedy."""
    detail, _, remedy = text.rstrip('.').rpartition('. ')
    return Finding(severity, name, kind, detail or text, remedy if detail else 'correct the file')
