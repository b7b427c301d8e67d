"""A labelled file is read once, and again when it has changed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mmdet_softpl.datasets import annotation_cache
from mmdet_softpl.datasets.annotation_cache import (
    cached_annotations,
    cached_categories,
    known_annotations,
)
from mmdet_softpl.datasets.annotation_file import AnnotationError
from mmdet_softpl.datasets.class_statistics import class_statistics
from mmdet_softpl.engine.reported_annotations import reported_annotations
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


def test_categories_are_read_again_only_when_the_file_changes(
    good, write, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list = []
    real = annotation_cache.load_annotation_file
    monkeypatch.setattr(
        annotation_cache, 'load_annotation_file', lambda path: reads.append(path) or real(path)
    )
    path = Path(write(good))
    for _ in range(2):
        assert [c['name'] for c in cached_categories(path)] == ['cat', 'dog']
    assert len(reads) == 1
    good['categories'][0]['name'] = 'cow'
    path.write_text(json.dumps(good))
    assert [c['name'] for c in cached_categories(path)] == ['cow', 'dog']
    path.unlink()
    with pytest.raises(AnnotationError, match='does not exist'):
        cached_categories(path)


def test_a_file_is_read_again_only_when_it_changes(good, write, reads: list) -> None:
    path = Path(write(good))
    first = cached_annotations(path)
    assert first.classes == ('cat', 'dog')
    for again in (
        cached_annotations(path, ('cat', 'dog')),
        known_annotations(path, ['cat', 'dog']),
    ):
        assert again is not None and again.image_counts is first.image_counts
    assert cached_annotations(path, ('dog',)).classes == ('dog',)
    assert cached_annotations(path, ('dog',)).instance_counts.tolist() == [2]
    assert reads == [None, ('dog',)]
    good['annotations'].append({**good['annotations'][-1], 'id': 99})
    path.write_text(json.dumps(good))
    assert cached_annotations(path).instance_counts.sum() == first.instance_counts.sum() + 1
    assert len(reads) == 3
    # Another file of the same size and time.
    status = path.stat()
    other = path.with_name('other.json')
    other.write_text(path.read_text().replace('"cat"', '"cow"'))
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)
    assert path.stat().st_size == status.st_size
    assert known_annotations(path) is None and cached_annotations(path).classes == ('cow', 'dog')
    path.unlink()
    assert known_annotations(path) is None
    with pytest.raises(AnnotationError, match='does not exist'):
        cached_annotations(path)


def test_a_caller_finds_its_own_spelling_of_the_path(
    good, write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(write(good))
    cached_annotations(path)
    monkeypatch.chdir(path.parent)
    assert cached_annotations(path.name).ann_file == path.name
    assert cached_annotations(path).ann_file == str(path)


def test_what_only_counts_keeps_nothing(good, write, reads: list) -> None:
    path = write(good)
    statistics = class_statistics(path)
    assert known_annotations(path) is None
    summary = cached_annotations(path)
    counted = class_statistics(path)
    counted.image_counts[:] = 99
    assert summary.image_counts.tolist() == statistics.image_counts.tolist()
    assert reads == [None]


def test_what_reads_the_labelled_file_of_a_training_shares_it(good, write, reads: list) -> None:
    path = str(write(good))
    summary = reported_annotations(path)
    assert class_statistics(path).image_counts.tolist() == summary.image_counts.tolist()
    assert frequency_letters(path) == {'cat': 'r', 'dog': 'r'}
    assert reads == [None]
