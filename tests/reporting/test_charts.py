"""Inline SVG: well-formed, without fixed size or outside references, ids its own."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from mmdet_softpl.reporting.charts import (
    UNNAMED,
    Series,
    line_chart,
    ratio_map,
    reliability_chart,
)


def check(svg: str, name: str) -> str:
    root = ElementTree.fromstring(svg)
    assert root.get('viewBox') and root.get('width') is None
    ids = re.findall(r'\bid="([^"]+)"', svg)
    assert all(i.startswith(f'{name}-') for i in ids) and len(set(ids)) == len(ids)
    for target in re.findall(r'(?:href="#|url\(#)([^")]+)', svg):
        assert target in ids
    assert not re.search(r'(?:href|src)="(?!#|data:)', svg)
    assert 'currentColor' in svg and '#010203' not in svg
    return ' '.join(root.itertext())


def test_lines() -> None:
    series = [
        Series('teacher', [1, 2, 3], [0.1, None, float('nan')], 'C0'),
        Series('student', [1, 2, 3], [0.1, 0.3, 0.2], 'C1', '--'),
        Series('empty', [], [], 'C2'),
        Series(UNNAMED, [1, 3], [0.2, 0.2], 'C0', ':'),
    ]
    text = check(line_chart(series, 'AP', name='ap'), 'ap')
    assert 'teacher' in text and 'student' in text and 'AP' in text
    assert 'empty' not in text


@pytest.mark.parametrize('log', [False, True])
def test_no_lines(log: bool) -> None:
    assert 'nothing recorded' in check(line_chart([], 'AP', name='a', log=log), 'a')


def test_reliability() -> None:
    part = np.zeros((3, 15))
    assert 'no detections' in check(reliability_chart([('score', part)], name='r'), 'r')
    part[:, 3] = (4, 1, 0.9)
    assert 'score (4)' in check(reliability_chart([('score', part)], name='r'), 'r')


@pytest.mark.parametrize('count', [1, 12, 1203])
def test_map(count: int) -> None:
    ratios = np.random.default_rng(0).uniform(0, 5, (count, 4))
    ratios[0] = (0, np.nan, 1, 4)
    names = [f'class {i}' for i in range(count)]
    svg = ratio_map(ratios, [5, 10, 15, 20], names, name='m')
    text = check(svg, 'm')
    assert ('class 0' in text) == (count < 100)
    assert len(svg) < 200_000


def test_the_same_figure_gives_the_same_text() -> None:
    series = [Series('a', [1, 2], [1, 2], 'C0')]
    assert line_chart(series, 'y', name='a') == line_chart(series, 'y', name='a')
