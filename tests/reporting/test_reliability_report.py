"""Points, counts and errors of the reliability diagrams."""

import numpy as np
import pytest
import torch
from netcal.metrics import ECE

from mmdet_softpl.functional.reliability import reliability_counts
from mmdet_softpl.reporting.figure import save_figure
from mmdet_softpl.reporting.reliability import draw_reliability

NUM_BINS = 10


def random_detections(num=3000, num_classes=6):
    gen = torch.Generator().manual_seed(0)
    labels = torch.randint(0, num_classes, (num,), generator=gen)
    scores = torch.rand(num, generator=gen)
    correct = torch.rand(num, generator=gen) < scores**2
    return scores, labels, correct


def counts_of(scores, labels, correct, num_classes=6):
    return reliability_counts(scores, labels, correct, num_classes, NUM_BINS)


def test_points_are_accuracy_at_mean_confidence(tmp_path):
    scores, labels, correct = random_detections()
    groups = torch.tensor([0, 0, 1, 2, 2, 2])
    figure = draw_reliability(counts_of(scores, labels, correct), groups)
    save_figure(figure, tmp_path / 'a.png')
    curves, histograms = figure.axes[:3], figure.axes[3:]
    for group, name in enumerate(('rare', 'common', 'frequent')):
        mine = groups[labels] == group
        s, hit = scores[mine].numpy(), correct[mine].numpy()
        bins = np.minimum((s * NUM_BINS).astype(int), NUM_BINS - 1)
        points = [[s[bins == b].mean(), hit[bins == b].mean()] for b in range(NUM_BINS)]
        diagonal, line = curves[group].lines
        assert np.allclose(line.get_xydata(), points, atol=1e-5)
        assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
        heights = histograms[group].patches[0].get_data().values
        assert heights.tolist() == [(bins == b).sum() for b in range(NUM_BINS)]
        error = ECE(bins=NUM_BINS).measure(s, hit.astype(int))
        assert curves[group].get_title() == (
            f'{name} ({int((groups == group).sum())} classes), ECE {error:.3f}'
        )
    assert figure.legends == []


def test_before_and_after(tmp_path):
    scores, labels, correct = random_detections()
    groups = torch.arange(6) % 3
    figure = draw_reliability(
        counts_of(scores, labels, correct), groups, after=counts_of(scores**2, labels, correct)
    )
    save_figure(figure, tmp_path / 'a.png')
    for axes in figure.axes[:3]:
        assert [line.get_label() for line in axes.lines[1:]] == [
            'score',
            'confidence',
        ]
        before, after = map(float, axes.get_title().split('ECE ')[1].split(' → '))
        assert after < before / 2
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ['score', 'confidence']


def test_empty_bins_are_left_out():
    scores = torch.tensor([0.05, 0.95])
    figure = draw_reliability(
        counts_of(scores, torch.zeros(2, dtype=torch.long), torch.tensor([False, True]), 1),
        torch.tensor([1]),
    )
    assert np.allclose(figure.axes[1].lines[1].get_xydata(), [[0.05, 0], [0.95, 1]])


@pytest.mark.parametrize('num_classes', [0, 1])
def test_no_detections(num_classes, tmp_path):
    figure = draw_reliability(
        torch.zeros(3, num_classes, NUM_BINS), torch.zeros(num_classes, dtype=torch.long)
    )
    for axes in figure.axes[:3]:
        assert axes.texts[0].get_text() == 'no detections'
        assert axes.get_title().endswith('ECE -')
    save_figure(figure, tmp_path / 'a.png')


def test_lengths_are_checked():
    with pytest.raises(ValueError, match='groups has 2 rows, expected 3'):
        draw_reliability(torch.zeros(3, 3, 5), [0, 1])


def test_rows_that_are_sums_over_classes_give_the_same_picture() -> None:
    counts = torch.rand(3, 5, 15, generator=torch.Generator().manual_seed(0))
    counts[1:] *= counts[:1]
    groups = torch.tensor([0, 2, 2, 1, 0])
    sums = torch.zeros(3, 3, 15).index_add(1, groups, counts)
    whole = draw_reliability(counts, groups)
    summed = draw_reliability(sums, range(3), class_counts=[2, 1, 2])
    for a, b in zip(whole.axes, summed.axes, strict=True):
        assert a.get_title() == b.get_title()
        for one, other in zip(a.lines, b.lines, strict=True):
            np.testing.assert_allclose(one.get_xydata(), other.get_xydata(), rtol=1e-5)
