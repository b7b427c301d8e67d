"""Taxonomy and templates of the shapes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from mmdet_softpl.datasets.shape_classes import (
    EXTENT,
    MAX_CLASSES,
    TEMPLATE_SIDES,
    draw_template,
    shape_classes,
)


@pytest.mark.parametrize('num_classes', [2, 5, 24, 60, 96])
def test_names_are_unique_and_families_even(num_classes):
    classes = shape_classes(num_classes)
    assert len(classes) == num_classes
    assert len({shape.name for shape in classes}) == num_classes
    sizes = Counter(shape.outline for shape in classes).values()
    assert max(sizes) - min(sizes) <= 1


def test_members_of_a_family_share_factors():
    for a, b in zip(shape_classes(24)[::4], shape_classes(24)[1::4], strict=True):
        assert (a.outline, a.part) == (b.outline, b.part) and a.texture != b.texture


@pytest.mark.parametrize('num_classes', [0, 1, MAX_CLASSES + 1])
def test_number_out_of_range(num_classes):
    with pytest.raises(ValueError, match=str(num_classes)):
        shape_classes(num_classes)


def _area(template: np.ndarray) -> float:
    """Covered area in units of the squared radius."""
    return float((template[:, :, 0] > 127).mean() * (2 * EXTENT) ** 2)


def test_areas_equal_the_closed_forms():
    by_name = {shape.name: shape for shape in shape_classes(MAX_CLASSES)}

    def area(name: str) -> float:
        return _area(draw_template(by_name[name], np.random.default_rng(0))[0])

    # OpenCV's polygons include the pixels under their edge, hence the tolerance.
    assert area('disc_plain') == pytest.approx(np.pi * 0.95**2, rel=0.05)
    assert area('hexagon_plain') == pytest.approx(1.5 * np.sqrt(3), rel=0.05)
    assert area('triangle_plain') == pytest.approx(0.5 * 1.9 * 1.8, rel=0.05)


@pytest.mark.parametrize('index', range(MAX_CLASSES))
def test_every_template_shows_its_factors(index):
    shape = shape_classes(MAX_CLASSES)[index]
    plain = next(s for s in shape_classes(MAX_CLASSES) if s.outline == shape.outline)
    templates = draw_template(shape, np.random.default_rng(index))
    assert tuple(len(t) for t in templates) == TEMPLATE_SIDES
    coverage, tone, accent = np.moveaxis(templates[0], 2, 0) > 127
    assert 0.5 < _area(templates[0]) < 4.5
    # Nothing is cut off at the border of the template.
    assert not coverage[[0, -1]].any() and not coverage[:, [0, -1]].any()
    share = (tone & coverage).sum() / coverage.sum()
    expected = {'plain': (0, 0), 'striped': (0.3, 0.7), 'dotted': (0.1, 0.5)}[shape.texture]
    assert expected[0] <= share <= expected[1]
    assert bool((accent & coverage).sum() > 0.03 * coverage.sum()) == bool(shape.part)
    if shape.part == 'stem':
        bare = draw_template(plain, np.random.default_rng(index))[0]
        assert _area(templates[0]) > _area(bare)
