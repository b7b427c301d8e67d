"""Inline SVG: well-formed, without fixed size or outside references, ids its own."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
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
from mmdet_softpl.reporting.report_charts import pseudo_label_charts
from mmdet_softpl.reporting.work_dir import read_work_dir
from tests.support.tiny_report import write_run


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


def curves(svg: str) -> dict[str, list[tuple[float, float]]]:
    """Points of the lines by colour, in the units of the picture (y goes down)."""
    found = {}
    for path, style in re.findall(r'<path d="(M [^"]+?)" clip-path="[^"]+" style="([^"]+)"', svg):
        color = re.search(r'stroke: (#\w+)', style)
        if color and 'fill: none' in style:
            numbers = [float(v) for v in re.findall(r'-?[\d.]+', path)]
            found[color[1]] = list(zip(numbers[::2], numbers[1::2], strict=True))
    return found


def test_zeros_lie_at_the_floor_of_a_logarithmic_axis() -> None:
    series = [
        Series('rare', [1, 2, 3], [0.02, 0.03, 0], '#aa0000'),
        Series('common', [1, 2, 3], [0, 0, 0], '#00aa00'),
        Series('frequent', [1, 2, 3], [1, None, 20], '#0000aa'),
    ]
    svg = line_chart(series, 'kept', name='k', log=True, if_zero='nothing kept')
    text = check(svg, 'k')
    assert all(line.name in text for line in series) and 'nothing kept' not in text
    found = curves(svg)
    floor = found['#00aa00'][0][1]
    assert {y for _, y in found['#00aa00']} == {floor}
    assert found['#aa0000'][2][1] == floor > found['#aa0000'][0][1] > found['#0000aa'][0][1]
    # From 0.02 to 20: a 0 in the place of 0.01, and no other name of it.
    labels = re.findall(r'<text[^>]*>([\d.]+)</text>', svg)
    assert {'0', '0.1', '1', '10', '100'} <= set(labels) and '0.01' not in labels


@pytest.mark.parametrize('expected', [[0.5, 0.5], [0, 0], None])
def test_all_zero_is_not_nothing_recorded(expected: list[float] | None) -> None:
    series = [Series('rare', [1, 2], [0, 0], '#aa0000')]
    if expected is not None:
        series.append(Series(UNNAMED, [1, 2], expected, '#aa0000', ':'))
    text = check(line_chart(series, 'kept', name='k', log=True, if_zero='nothing kept'), 'k')
    assert 'nothing kept' in text and 'rare' in text and 'nothing recorded' not in text


def test_a_group_that_never_kept_anything_is_shown(tmp_path: Path) -> None:
    run = read_work_dir(write_run(tmp_path / 'run'))
    for refresh in run.refreshes:
        refresh['kept_per_image'][:2] = [0.0, 0.0]
    svg = pseudo_label_charts(run)[0]['svg']
    assert 'rare' in check(svg, 'kept') and 'nothing kept' not in svg
    for refresh in run.refreshes:
        refresh['kept_per_image'] = [0.0] * 4
    assert 'nothing kept' in check(pseudo_label_charts(run)[0]['svg'], 'kept')


def test_text_that_stays_text_needs_no_font_here() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        text = check(line_chart([Series('\U000f0000', [1, 2], [1, 2], 'C0')], 'y', name='a'), 'a')
    assert '\U000f0000' in text
