"""Frequencies are those of the annotations, groups the file's where the file fits itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmdet_softpl.datasets.annotation_checks import check_annotations
from mmdet_softpl.datasets.class_statistics import class_statistics, frequency_letter


def test_counted(good, write):
    statistics = class_statistics(write(good))
    assert statistics.source == 'counted'
    assert statistics.classes == ('cat', 'dog')
    assert statistics.image_counts.tolist() == [1, 1]
    assert statistics.instance_counts.tolist() == [1, 2]
    assert statistics.groups == ('r', 'r')
    # The third image has no annotation.
    assert (statistics.num_images, statistics.num_labelled_images) == (3, 2)
    assert statistics.labelled_rate().tolist() == [1 / 2, 2 / 2]
    assert replace(statistics, keeps_empty=True).labelled_rate().tolist() == [1 / 3, 2 / 3]


def test_letters_of_the_file_come_first(good, write):
    for category, letter in zip(good['categories'], 'fc', strict=True):
        category.update(frequency=letter)
    mixed = class_statistics(write(good))
    assert mixed.source == 'mixed' and mixed.groups == ('f', 'c')
    for category, instances in zip(good['categories'], (1, 2), strict=True):
        category.update(image_count=1, instance_count=instances)
    given = class_statistics(check_annotations(write(good)))
    assert given.source == 'file' and given.groups == ('f', 'c')
    assert class_statistics(write(good), classes=('dog',)).groups == ('c',)


def test_a_part_with_the_categories_of_the_whole_is_counted(good, write):
    for category, count in zip(good['categories'], (1, 500), strict=True):
        category.update(image_count=count, instance_count=2 * count, frequency='f')
    statistics = class_statistics(write(good))
    assert statistics.source == 'counted'
    assert statistics.image_counts.tolist() == [1, 1]
    assert statistics.instance_counts.tolist() == [1, 2]
    assert statistics.groups == ('r', 'r')


def test_instance_counts_are_counted_even_where_the_images_agree(good, write):
    for category in good['categories']:
        category.update(image_count=1, instance_count=7, frequency='c')
    statistics = class_statistics(write(good))
    assert statistics.source == 'mixed'
    assert statistics.instance_counts.tolist() == [1, 2]
    assert statistics.groups == ('c', 'c')


@pytest.mark.parametrize(
    ('count', 'letter'), [(0, 'r'), (10, 'r'), (11, 'c'), (100, 'c'), (101, 'f')]
)
def test_frequency_letter(count, letter):
    assert frequency_letter(count) == letter
