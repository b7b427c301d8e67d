"""The proxy against closed forms, curves against the judge of pseudo-labels."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from mmdet_softpl.evaluation.label_replay import LabelSettings, candidates_of, replay
from mmdet_softpl.evaluation.labelling_proxy import (
    SMALLEST,
    bootstrap_difference,
    f_beta,
    group_statistics,
    labelling_proxy,
    threshold_curves,
    total,
)
from mmdet_softpl.evaluation.pseudo_label_quality import pseudo_label_quality
from mmdet_softpl.evaluation.soft_label_replay import soft_sums
from mmdet_softpl.models.teacher_labels import LabelingCfg, name_objects
from tests.support import tiny_labelling

STATISTICS = tiny_labelling.statistics()


def of_hard_labels(learned: torch.Tensor) -> torch.Tensor:
    """(2, G) mass and right mass -> (4, G), without objects of soft labels."""
    return torch.cat([learned, torch.zeros_like(learned)])


@pytest.fixture(scope='module')
def found():
    # The boosts would follow the threshold a little.
    settings = LabelSettings(threshold_mode='fixed', fixed_thr=0.3, align_rate=0.0)
    return replay(tiny_labelling.made_up_dump(), settings, STATISTICS, LabelingCfg())


def test_f_beta() -> None:
    assert f_beta(0.5, 0.5, 0.5) == pytest.approx(0.5)
    assert f_beta(0.0, 0.0, 0.5) == 0.0
    # Harmonic mean at 1, precision alone as beta goes to 0.
    assert f_beta(0.9, 0.3, 1.0) == pytest.approx(2 / (1 / 0.9 + 1 / 0.3))
    assert f_beta(0.9, 0.3, 1e-6) == pytest.approx(0.9)


def test_proxy_in_numbers() -> None:
    #                      rare  common  frequent
    counts = torch.tensor([[4.0, 0, 10], [4, 0, 8], [2, 0, 6], [8, 5, 12]])
    reliability = torch.zeros(3, 3, 2)
    # Rare: 4 detections at 0.75, 2 right. Frequent: 10 at 0.6, 6 right.
    reliability[:, 0, 1] = torch.tensor([4.0, 2, 3])
    reliability[:, 2, 1] = torch.tensor([10.0, 6, 6])
    # Learned: 8 of mass for rare classes, 2 of it right, of 8 objects; nothing for common ones.
    learned = torch.tensor([[8.0, 0, 10], [2, 0, 6]])
    values = labelling_proxy(counts, of_hard_labels(learned), reliability, beta=1.0)
    rare, frequent = 2 * 0.5 * 0.25 / 0.75, 2 * 0.75 * 0.5 / 1.25
    assert values['f_beta_rare'] == pytest.approx(rare)
    assert values['f_beta_frequent'] == pytest.approx(frequent)
    assert values['f_beta'] == pytest.approx((rare + 0 + frequent) / 3)
    assert math.isnan(values['precision_common']) and values['recall_common'] == 0
    # Common has no detection: its error is unknown and not 0.
    assert values['ece'] == pytest.approx((0.25 + 0.0) / 2)
    assert values['kept_rare'] == 4
    learned_rare, learned_frequent = 0.25, 2 * 0.6 * 0.5 / (0.6 + 0.5)
    assert values['learned_precision_rare'] == values['learned_recall_rare'] == 0.25
    assert math.isnan(values['learned_precision_common'])
    expected = (learned_rare * SMALLEST * learned_frequent) ** (1 / 3)
    assert values['proxy'] == values['learned_f1'] == pytest.approx(expected)
    assert values['learned_recall'] == pytest.approx((0.25 + 0 + 0.5) / 3)


def test_a_doubling_counts_alike_in_every_group() -> None:
    counts = torch.tensor([[0.0, 0, 0], [0, 0, 0], [0, 0, 0], [100, 100, 100]])
    base = torch.tensor([[50.0, 50, 50], [1, 10, 20]])
    proxies = []
    for group in range(3):
        learned = base.clone()
        learned[:, group] *= 2
        proxies.append(
            labelling_proxy(counts, of_hard_labels(learned), torch.zeros(3, 3, 2))['proxy']
        )
    # Mass and right mass doubled: the precision is the same, the recall twice what it was.
    plain = labelling_proxy(counts, of_hard_labels(base), torch.zeros(3, 3, 2))['proxy']
    gains = [proxy / plain for proxy in proxies]
    assert gains == pytest.approx([gains[0]] * 3, rel=1e-6) and gains[0] > 1.1


def test_proxy_of_soft_labels_is_that_of_f1_and_what_the_true_classes_get() -> None:
    counts = torch.tensor([[0.0, 0, 0], [0, 0, 0], [0, 0, 0], [9, 9, 9]])
    given = [[0.1, 0.4], [0.5, 0.5, 0.2], [0.9]]
    learned = torch.zeros(4, 3)
    for group, scores in enumerate(given):
        learned[2, group] = len(scores)
        learned[3, group] = torch.tensor(scores).log().sum()
    learned[0], learned[1] = torch.tensor([2.0, 3, 1]), torch.tensor([0.5, 1.2, 0.9])
    values = labelling_proxy(counts, learned, torch.zeros(3, 3, 2))
    expected = [math.prod(scores) ** (1 / len(scores)) for scores in given]
    # Of 9 objects each: 2 x precision x recall / (precision + recall) = 2 x right / (mass + 9).
    f1 = [2 * right / (mass + 9) for mass, right in ((2, 0.5), (3, 1.2), (1, 0.9))]
    for name, mean in zip(('rare', 'common', 'frequent'), expected, strict=True):
        assert values[f'likelihood_{name}'] == pytest.approx(mean)
    assert values['likelihood'] == pytest.approx(math.prod(expected) ** (1 / 3))
    assert values['learned_f1'] == pytest.approx(math.prod(f1) ** (1 / 3))
    assert values['proxy'] == pytest.approx(math.prod(expected + f1) ** (1 / 6))
    # A group that no object of was found in.
    learned[2:, 0] = 0
    none = labelling_proxy(counts, learned, torch.zeros(3, 3, 2))
    product = SMALLEST * math.prod(expected[1:] + f1)
    assert none['proxy'] == pytest.approx(product ** (1 / 6))


def test_labels_that_say_how_likely_a_class_is_are_the_likeliest() -> None:
    """Of all temperatures the one at which labels are as sure as they are right."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4000, 4, generator=generator)
    truth = torch.multinomial(logits.softmax(1), 1, generator=generator)
    counts = torch.zeros(4, 3)
    counts[3, 2] = len(truth)
    found = {}
    for temperature in (0.5, 0.8, 1.0, 1.25, 2.0):
        logs = (logits / temperature).log_softmax(1).gather(1, truth).sum()
        learned = torch.zeros(4, 3)
        learned[2, 2], learned[3, 2] = len(truth), logs
        values = labelling_proxy(counts, learned, torch.zeros(3, 3, 2))
        found[temperature] = values['likelihood']
    assert max(found, key=lambda temperature: found[temperature]) == 1.0
    assert found[0.5] < found[0.8] and found[2.0] < found[1.25]


def test_groups_without_objects_do_not_count() -> None:
    counts = torch.tensor([[1.0, 7, 0], [1, 7, 0], [1, 0, 0], [1, 0, 0]])
    values = labelling_proxy(counts, of_hard_labels(counts[1:3]), torch.zeros(3, 3, 2))
    assert values['proxy'] == pytest.approx(1.0)
    assert 'f_beta_common' not in values
    nothing = labelling_proxy(torch.zeros(4, 3), torch.zeros(4, 3), torch.zeros(3, 3, 2))
    assert nothing['proxy'] == 0


def test_statistics_are_sums_over_images(found) -> None:
    statistics = group_statistics(found, found.scores, found.scores)
    counts, learned, reliability = total(statistics)
    groups = found.state.groups[found.labels]
    for group in range(3):
        rows = groups == group
        assert counts[0, group] == (found.kept & rows).sum()
        assert counts[2, group] == (found.kept & found.correct & rows).sum()
        assert counts[3, group] == found.objects[:, found.state.groups == group].sum()
        assert reliability[0, group].sum() == rows.sum()
    sums = soft_sums(found.soft, found.labels, found.scores, found.scores, found.state.groups)
    torch.testing.assert_close(learned, sums.sum(0))
    # Every image twice is twice as much, no image is nothing.
    twice = total(statistics, torch.full((40,), 2))
    torch.testing.assert_close(twice[0], counts * 2)
    torch.testing.assert_close(twice[1], learned * 2)
    assert total(statistics, torch.zeros(40))[2].sum() == 0


def test_hard_labels_are_learned_where_they_are_kept() -> None:
    settings = LabelSettings(threshold_mode='fixed', fixed_thr=0.3, label_mode='hard')
    hard = replay(tiny_labelling.made_up_dump(), settings, STATISTICS, LabelingCfg())
    counts, learned, _ = total(group_statistics(hard, hard.scores, hard.scores))
    assert hard.soft is None
    torch.testing.assert_close(learned, of_hard_labels(counts[1:3]))
    assert 'likelihood_rare' not in labelling_proxy(counts, learned, torch.zeros(3, 3, 2))


def test_difference_with_itself_and_with_something_better(found) -> None:
    own = group_statistics(found, found.scores, found.scores)
    assert bootstrap_difference(own, own, repeats=20) == (0.0, 0.0)
    # As sure of the truth as it can be.
    soft = dataclasses.replace(found.soft, true_score=torch.ones_like(found.scores))
    better = group_statistics(dataclasses.replace(found, soft=soft), found.scores, found.scores)
    low, high = bootstrap_difference(own, better, repeats=50)
    assert 0 < low < high


def test_curves_against_the_judge_of_pseudo_labels(found, tmp_path) -> None:
    """One replay for all thresholds is what labelling at each threshold gives."""
    dump = tiny_labelling.made_up_dump()
    images, annotations = [], []
    for image in dump.images:
        images.append(dict(id=image.img_id, file_name='x', height=500, width=500))
        for box, label in zip(image.truth.bboxes, image.truth.labels, strict=True):
            x1, y1, x2, y2 = box.tolist()
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image.img_id,
                    category_id=int(label) + 1,
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    area=(x2 - x1) * (y2 - y1),
                    iscrowd=0,
                )
            )
    categories = [
        dict(id=i + 1, name=name, frequency=letter)
        for i, (name, letter) in enumerate(
            zip(tiny_labelling.CLASSES, STATISTICS.groups, strict=True)
        )
    ]
    path = tmp_path / 'hidden.json'
    path.write_text(json.dumps(dict(images=images, categories=categories, annotations=annotations)))
    thresholds = torch.tensor([0.1, 0.3, 0.5])
    curves = threshold_curves(found, thresholds)
    for place, threshold in enumerate(thresholds.tolist()):
        settings = LabelSettings(threshold_mode='fixed', fixed_thr=threshold, align_rate=0.0)
        state = replay(dump, settings, STATISTICS, LabelingCfg()).state
        labels = []
        for image in dump.images:
            seen = candidates_of(dump, image, settings, state, LabelingCfg())
            seen = name_objects(seen, state, LabelingCfg())
            kept = seen[seen.kept]
            labels.append(
                dict(
                    img_id=image.img_id,
                    bboxes=kept.bboxes,
                    labels=kept.labels,
                    scores=kept.scores,
                )
            )
        expected = pseudo_label_quality(labels, str(path), tiny_labelling.CLASSES)
        for name, curve in curves.items():
            for key in ('precision', 'recall'):
                np.testing.assert_allclose(
                    curve[key][place], expected[f'{name}_pseudo_{key}'], rtol=1e-6
                )
            per_image = expected[f'{name}_pseudo_count'] / 40
            assert curve['kept_per_image'][place] == pytest.approx(per_image)


def test_curves_leave_out_groups_without_objects(found) -> None:
    objects = found.objects.clone()
    objects[:, found.state.groups == 0] = 0
    curves = threshold_curves(dataclasses.replace(found, objects=objects), torch.tensor([0.5]))
    assert set(curves) == {'common', 'frequent'}


def test_soft_labels_count_as_much_as_their_objects(found) -> None:
    weights = 0.5 + torch.rand(len(found.scores), generator=torch.Generator().manual_seed(0))
    weighted = dataclasses.replace(found, weights=weights)
    _, learned, _ = total(group_statistics(weighted, found.scores, found.scores))
    sums = soft_sums(found.soft, found.labels, found.scores, found.scores, found.state.groups)
    expected = sum(float(w) * part for w, part in zip(weights, sums, strict=True))
    torch.testing.assert_close(learned, expected, rtol=1e-4, atol=1e-4)
