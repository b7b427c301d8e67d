"""A labelled file is read once, and again when it has changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmdet_softpl.datasets import annotation_cache
from mmdet_softpl.datasets.annotation_cache import cached_annotations
from mmdet_softpl.datasets.annotation_file import AnnotationError
from mmdet_softpl.datasets.class_statistics import class_statistics
from mmdet_softpl.engine.checked_annotations import checked_annotations
from mmdet_softpl.evaluation.ground_truth import frequency_letters


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list:
    """Classes that files were read for."""
    found: list = []
    real = annotation_cache.check_annotations
    monkeypatch.setattr(
        annotation_cache,
        'check_annotations',
        lambda ann_file, **kwargs: found.append(kwargs['classes']) or real(ann_file, **kwargs),
    )
    return found


def test_a_file_is_read_again_only_when_it_changes(good, write, reads: list) -> None:
    path = Path(write(good))
    first = cached_annotations(path)
    assert first.classes == ('cat', 'dog')
    assert cached_annotations(str(path), ('cat', 'dog')) is first
    assert cached_annotations(path, ['cat', 'dog']) is first
    assert cached_annotations(path, ('dog',)).classes == ('dog',)
    assert cached_annotations(path, ('dog',)).instance_counts.tolist() == [2]
    assert reads == [None, ('dog',)]
    good['annotations'].append({**good['annotations'][-1], 'id': 99})
    path.write_text(json.dumps(good))
    assert cached_annotations(path).instance_counts.sum() == first.instance_counts.sum() + 1
    assert len(reads) == 3
    path.unlink()
    with pytest.raises(AnnotationError, match='does not exist'):
        cached_annotations(path)


def test_what_reads_the_labelled_file_of_a_training_shares_it(good, write, reads: list) -> None:
    path = str(write(good))
    summary = checked_annotations(path)
    assert class_statistics(path).image_counts.tolist() == summary.image_counts.tolist()
    assert frequency_letters(path) == {'cat': 'r', 'dog': 'r'}
    assert reads == [None]
