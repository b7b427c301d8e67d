"""Pictures of pseudo-labels: what is drawn, where, and how."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from mmdet_softpl.reporting.figure import PALETTE, save_figure
from mmdet_softpl.reporting.pseudo_labels import draw_pseudo_labels, draw_view_pair

NAMES = ('bolt', 'rivet', 'nut')
IMAGE = np.full((40, 60, 3), 200, dtype=np.uint8)


def instances(**changes):
    masks = np.zeros((2, 40, 60), dtype=bool)
    masks[0, 5:15, 5:25] = True
    masks[1, 20:35, 10:20] = True
    return {
        'bboxes': torch.tensor([[5.0, 5, 25, 15], [10, 20, 20, 35]]),
        'labels': torch.tensor([1, 2]),
        'confidences': torch.tensor([0.876, 0.2]),
        'kept': torch.tensor([True, False]),
        'masks': masks,
    } | changes


def frames(axes):
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def by_style(axes):
    return {frame.get_linestyle(): frame for frame in frames(axes)}


def test_kept_is_solid_in_the_class_colour_and_dropped_dashed_grey():
    axes = draw_pseudo_labels([IMAGE], [instances()], NAMES).axes[0]
    assert sorted(text.get_text() for text in axes.texts) == ['nut 0.20', 'rivet 0.88']
    styles = by_style(axes)
    assert set(styles) == {'-', '--'}
    kept, dropped = styles['-'], styles['--']
    assert to_hex(kept.get_edgecolor()) == PALETTE[1].lower()
    red, green, blue, _ = dropped.get_edgecolor()
    assert red == green == blue
    assert kept.get_bbox().bounds == (4.5, 4.5, 20, 10)
    assert dropped.get_bbox().bounds == (9.5, 19.5, 10, 15)


def test_masks_are_filled_where_they_are():
    axes = draw_pseudo_labels([IMAGE], [instances()], NAMES).axes[0]
    photo, overlay = (image.get_array() for image in axes.images)
    assert np.array_equal(photo, IMAGE)
    masks = instances()['masks']
    assert np.array_equal(overlay[..., 3] > 0, masks.any(axis=0))
    assert (overlay[masks[0]][:, 3] > overlay[masks[1]][:, 3].max()).all(), 'kept stands out'
    assert to_hex(overlay[10, 10, :3]) == PALETTE[1].lower()
    (outline,) = axes.collections
    assert outline.get_paths()[0].get_extents().bounds == (4.5, 4.5, 20, 10), 'of the kept one'


def test_the_surest_kept_instance_lies_on_top():
    masks = np.ones((3, 40, 60), dtype=bool)
    found = {
        'bboxes': np.tile([0.0, 0, 60, 40], (3, 1)),
        'labels': [0, 1, 2],
        'confidences': [0.5, 0.7, 0.9],
        'kept': [True, True, False],
        'masks': masks,
    }
    axes = draw_pseudo_labels([IMAGE], [found], NAMES).axes[0]
    assert to_hex(axes.images[1].get_array()[0, 0, :3]) == PALETTE[1].lower()


def test_roi_probabilities_are_pasted_into_their_boxes():
    roi = torch.zeros(2, 28, 28)
    roi[0] = 0.9
    roi[1, :, :14] = 0.9
    axes = draw_pseudo_labels([IMAGE], [instances(masks=roi)], NAMES).axes[0]
    alpha = axes.images[1].get_array()[..., 3] > 0
    expected = np.zeros((40, 60), dtype=bool)
    expected[5:15, 5:25] = True
    expected[20:35, 10:15] = True
    assert np.array_equal(alpha, expected)


@pytest.mark.parametrize('masks', [None, 'absent'])
def test_a_detector_without_masks(masks):
    found = instances(masks=None)
    if masks == 'absent':
        del found['masks']
    axes = draw_pseudo_labels([IMAGE], [found], NAMES).axes[0]
    assert len(frames(axes)) == 2
    assert not axes.images[1].get_array().any()


def test_legend_and_grid(tmp_path):
    figure = draw_pseudo_labels([IMAGE] * 4, [instances()] * 4, NAMES, columns=3)
    assert len(figure.axes) == 6
    assert [len(frames(axes)) for axes in figure.axes] == [2, 2, 2, 2, 0, 0]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ['kept (colour: class)', 'dropped', 'number: confidence']
    assert save_figure(figure, tmp_path / 'a.png').stat().st_size > 1000


def test_what_is_meant_has_a_border():
    plain = draw_pseudo_labels([IMAGE], [instances()], NAMES)
    meant = draw_pseudo_labels([IMAGE], [dict(instances(), meant=np.array([True, False]))], NAMES)
    effects = [[f.get_path_effects() for f in frames(fig.axes[0])] for fig in (plain, meant)]
    borders = [[len(found) == 3 for found in figure] for figure in effects]
    assert [sum(figure) for figure in borders] == [0, 1]


def test_names_are_no_mathematics(tmp_path):
    figure = draw_pseudo_labels([IMAGE], [instances()], ['$1_$2' for _ in NAMES])
    assert save_figure(figure, tmp_path / 'a.png').stat().st_size > 1000


def test_nothing_to_draw(tmp_path):
    empty = {
        'bboxes': np.zeros((0, 4)),
        'labels': np.zeros(0, int),
        'confidences': np.zeros(0),
        'kept': np.zeros(0, bool),
        'masks': np.zeros((0, 28, 28)),
    }
    figure = draw_pseudo_labels([IMAGE], [empty], NAMES)
    assert frames(figure.axes[0]) == []
    figure = draw_pseudo_labels([], [], NAMES)
    assert figure.axes[0].texts[0].get_text() == 'no images'
    save_figure(figure, tmp_path / 'a.png')


def test_texts_at_the_right_stay_inside():
    right = instances(bboxes=torch.tensor([[50.0, 5, 60, 15], [0, 20, 20, 35]]))
    figure = draw_pseudo_labels([IMAGE], [right], NAMES, columns=1)
    figure.canvas.draw()
    axes = figure.axes[0]
    assert len(axes.texts) == 2
    for text in axes.texts:
        extent = text.get_window_extent()
        assert axes.bbox.x0 - 5 <= extent.x0
        assert extent.x1 <= axes.bbox.x1 + 5


def test_lengths_are_checked():
    with pytest.raises(ValueError, match='instances has 1 rows, expected 2'):
        draw_pseudo_labels([IMAGE, IMAGE], [instances()], NAMES)
    with pytest.raises(ValueError, match='kept has 1 rows, expected 2'):
        draw_pseudo_labels([IMAGE], [instances(kept=[True])], NAMES)


def test_view_pair_gives_an_instance_one_colour_in_both_views():
    same_class = instances(labels=torch.tensor([0, 0]), kept=torch.tensor([True, True]))
    flipped = same_class | {
        'bboxes': torch.tensor([[35.0, 5, 55, 15], [40, 20, 50, 35]]),
        'masks': same_class['masks'][:, :, ::-1],
    }
    figure = draw_view_pair(IMAGE, IMAGE[:, ::-1], same_class, flipped, NAMES)
    weak, strong = figure.axes
    assert (weak.get_title(), strong.get_title()) == (
        'weak view (teacher)',
        'strong view (student)',
    )
    overlays = [axes.images[1].get_array() for axes in (weak, strong)]
    assert np.array_equal(overlays[0][:, ::-1], overlays[1])
    assert len(np.unique(overlays[0][overlays[0][..., 3] > 0], axis=0)) == 2
    colors = [[to_hex(f.get_edgecolor()) for f in frames(axes)] for axes in (weak, strong)]
    assert colors[0] == colors[1]
    assert len(set(colors[0])) == 2, 'two instances of one class are told apart'
    assert figure.legends[0].get_texts()[0].get_text() == 'kept (colour: instance)'
