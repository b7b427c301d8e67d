"""Soft labels of a replay against training's own functions; alignment against closed forms."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from mmengine.structures import InstanceData

from mmdet_softpl.engine.label_refresh import new_history, refresh_labels
from mmdet_softpl.evaluation.ground_truth import ImageTruth
from mmdet_softpl.evaluation.label_replay import (
    LabelSettings,
    candidates_of,
    initial_state,
    replay,
)
from mmdet_softpl.evaluation.soft_label_replay import (
    LEAST_SCORE,
    SoftLabels,
    settled_boosts,
    soft_labels_of,
    soft_sums,
)
from mmdet_softpl.functional import GROUP_NAMES, match_indices, soft_targets, wanted_mass
from mmdet_softpl.models.class_state import ClassState
from mmdet_softpl.models.teacher_labels import LabelingCfg, name_objects
from tests.support import tiny_labelling

STATISTICS = tiny_labelling.statistics()
RATE = torch.as_tensor(STATISTICS.instance_counts).float() / STATISTICS.num_images


def settings(**changes) -> LabelSettings:
    return dataclasses.replace(LabelSettings(threshold_mode='fixed', fixed_thr=0.3), **changes)


def objects_of(state: ClassState, tried: LabelSettings) -> list[InstanceData]:
    """Every image's surest detections that a student would learn from."""
    dump = tiny_labelling.made_up_dump()
    seen = [
        name_objects(candidates_of(dump, i, tried, state, LabelingCfg()), state, LabelingCfg())
        for i in dump.images
    ]
    return [found[found.is_object] for found in seen]


def vectors_of(found: InstanceData) -> torch.Tensor:
    """(K, C+1): the dump stores all classes."""
    return torch.cat([found.score_vectors[:, :-2], found.score_vectors[:, -1:]], 1)


@pytest.mark.parametrize('calibrated', [False, True])
def test_sums_against_a_loop_over_training_targets(calibrated: bool) -> None:
    tried = settings(align_rate=0.0)
    found = replay(tiny_labelling.made_up_dump(), tried, STATISTICS, LabelingCfg())
    state, groups = found.state, found.state.groups
    confidences = found.scores**2 if calibrated else found.scores
    actual = soft_sums(found.soft, found.labels, found.scores, confidences, groups)
    expected = torch.zeros(40, 4, len(GROUP_NAMES))
    for index, (image, seen) in enumerate(
        zip(tiny_labelling.made_up_dump().images, objects_of(state, tried), strict=True)
    ):
        own = seen.scores**2 if calibrated else seen.scores
        targets = soft_targets(vectors_of(seen), seen.labels, own)
        taken = match_indices(
            seen.bboxes.double(), seen.scores, None, image.truth.bboxes, None, ignore=None
        )
        for target, j in zip(targets, taken.tolist(), strict=True):
            for c in range(5):
                expected[index, 0, groups[c]] += target[c]
            if j >= 0:
                true_class = image.truth.labels[j]
                group = groups[true_class]
                expected[index, 1, group] += target[true_class]
                expected[index, 2, group] += 1
                expected[index, 3, group] += target[true_class].clamp(min=LEAST_SCORE).log()
    summed = torch.zeros_like(expected).index_add(0, found.image, actual)
    torch.testing.assert_close(summed, expected, atol=1e-5, rtol=1e-5)
    assert (expected[:, 1].sum(0) > 0.5).all()


def test_settled_boosts_give_every_class_its_share() -> None:
    """A slow reference: relabel with the settled boosts and weigh what each class got."""
    tried = settings(boost_gamma=1.0, max_boost=4.0)
    state = replay(tiny_labelling.made_up_dump(), tried, STATISTICS, LabelingCfg()).state
    assert not torch.allclose(state.boosts, state.wanted_boosts)
    seen = InstanceData.cat(objects_of(state, tried))
    mass = soft_targets(vectors_of(seen), seen.labels, seen.scores)[:, :-1].sum(0)
    wanted = wanted_mass(mass, RATE, state.wanted_boosts)
    # Pseudo-counts hold back the classes of 2 and 8 instances a little.
    torch.testing.assert_close(mass, wanted, atol=1.5, rtol=0.05)
    vectors = seen.own_vectors
    own = torch.zeros(5).index_add(0, seen.classes.flatten(), vectors[:, :-2].flatten())
    torch.testing.assert_close(own, wanted_mass(own, RATE, torch.ones(5)), atol=1.5, rtol=0.05)
    before = replay(
        tiny_labelling.made_up_dump(), settings(align_rate=0.0), STATISTICS, LabelingCfg()
    ).state
    assert (before.own_boosts == 1).all()
    first = InstanceData.cat(objects_of(before, settings(align_rate=0.0)))
    unaligned = soft_targets(vectors_of(first), first.labels, first.scores)[:, :-1].sum(0)
    assert (unaligned - wanted).abs().max() > 10


def test_alignment_leaves_classes_of_unknown_share_alone() -> None:
    tried = settings()
    found = replay(
        tiny_labelling.made_up_dump(), settings(align_rate=0.0), STATISTICS, LabelingCfg()
    )
    state = found.state
    named = objects_of(state, tried)
    ones = [torch.ones(len(f)) for f in named]
    unknown = torch.tensor([False, False, False, False, True])
    settled = settled_boosts(named, ones, state, RATE, 0.5, unknown, len(named))
    for boosts, before in zip(settled, (state.boosts, state.own_boosts), strict=True):
        assert boosts[4] == before[4]
        assert not torch.allclose(boosts[:4], before[:4])


@pytest.mark.parametrize('federated', [False, True])
@pytest.mark.parametrize('partial', [False, True])
def test_boosts_settle_as_those_of_a_training_on_the_labelled_file(
    federated: bool, partial: bool
) -> None:
    """What the held-out images speak of does not matter: a training never sees them."""
    dump = tiny_labelling.made_up_dump()
    first = dump.images[0]
    judged = torch.ones_like(first.truth.judged)
    judged[4] = federated
    truth = dataclasses.replace(first.truth, judged=judged)
    images = (dataclasses.replace(first, truth=truth), *dump.images[1:])
    dump = dataclasses.replace(dump, images=images)
    tried = settings(boost_gamma=1.0)
    statistics = dataclasses.replace(STATISTICS, federated=federated, partial=partial)
    state = initial_state(tried, statistics)
    history = new_history(state.num_classes)
    for _ in range(60):
        seen = InstanceData.cat(objects_of(state, tried))
        state.mass += soft_targets(vectors_of(seen), seen.labels, seen.scores)[:, :-1].sum(0)
        state.num_images += len(dump.images)
        refresh_labels(
            state, history, tried, RATE, damp_factor=1e9, damp_patience=10**6,
            federated=federated, partial=partial,
        )  # fmt: skip
    found = replay(dump, tried, statistics, LabelingCfg())
    torch.testing.assert_close(found.state.boosts, state.boosts, rtol=0.02, atol=0.0)
    assert bool(found.state.boosts[4] == 1) == federated


def truth(**changes) -> ImageTruth:
    values = dict(
        bboxes=torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]]).double(),
        labels=torch.tensor([1, 0]),
        crowd=torch.tensor([False, False]),
        judged=torch.ones(3, dtype=torch.bool),
        not_exhaustive=torch.zeros(3, dtype=torch.bool),
    )
    return ImageTruth(**{**values, **changes})


def three() -> InstanceData:
    """On the first object, on the second, on nothing."""
    vectors = [[0.6, 0.3, 0.0, 0.0, 0.1], [0.5, 0.1, 0.2, 0.0, 0.2], [0.1, 0.1, 0.4, 0.0, 0.4]]
    return InstanceData(
        bboxes=torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60], [80, 80, 90, 90]]),
        scores=torch.tensor([0.6, 0.5, 0.4]),
        labels=torch.tensor([0, 0, 2]),
        is_object=torch.tensor([True, True, True]),
        classes=torch.arange(3).expand(3, -1),
        score_vectors=torch.tensor(vectors),
        own_vectors=torch.tensor(vectors),
    )


GROUPS = torch.tensor([0, 1, 2])


def test_one_image_by_hand() -> None:
    soft = soft_labels_of(three(), truth(), GROUPS)
    assert soft.true_class.tolist() == [1, 0, -1]
    torch.testing.assert_close(soft.true_score, torch.tensor([0.3, 0.5, 0.0]))
    torch.testing.assert_close(soft.group_mass[0], torch.tensor([0.6, 0.3, 0.0]))
    # Half as sure of its label: 0.3 for it, and 0.7 for what had 0.4.
    sums = soft_sums(soft, three().labels, three().scores, three().scores / 2, GROUPS)
    torch.testing.assert_close(sums[0, 0], torch.tensor([0.3, 0.3 * 0.7 / 0.4, 0.0]))
    torch.testing.assert_close(sums[0, 1], torch.tensor([0.0, 0.3 * 0.7 / 0.4, 0.0]))
    torch.testing.assert_close(sums[1, 1], torch.tensor([0.25, 0.0, 0.0]))
    assert sums[:, 2].tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    torch.testing.assert_close(sums[0, 3, 1].exp(), sums[0, 1, 1])
    torch.testing.assert_close(sums[1, 3, 0].exp(), torch.tensor(0.25))
    assert sums[2, 1:].abs().sum() == 0


def test_a_class_that_gets_nothing_gets_the_least() -> None:
    found = three()
    found.score_vectors[0, 1] = 0.0
    soft = soft_labels_of(found, truth(), GROUPS)
    sums = soft_sums(soft, found.labels, found.scores, found.scores, GROUPS)
    assert sums[0, 1].sum() == 0
    assert sums[0, 3, 1].exp() == pytest.approx(LEAST_SCORE)


def test_only_what_an_image_speaks_of_is_mass() -> None:
    unnamed = truth(judged=torch.tensor([True, False, True]))
    soft = soft_labels_of(three(), unnamed, GROUPS)
    torch.testing.assert_close(soft.group_mass[0], torch.tensor([0.6, 0.0, 0.0]))
    loose = truth(not_exhaustive=torch.tensor([False, False, True]))
    soft = soft_labels_of(three(), loose, GROUPS)
    # On an object it is wrong; on nothing it may be one that was not annotated.
    assert soft.group_mass[1, 2] == pytest.approx(0.2)
    assert soft.group_mass[2, 2] == 0 and not soft.own_judged[2]
    sums = soft_sums(soft, three().labels, three().scores, three().scores / 2, GROUPS)
    assert sums[2, 0, 2] == 0


def test_crowds_teach_nothing() -> None:
    soft = soft_labels_of(three(), truth(crowd=torch.tensor([False, True])), GROUPS)
    assert soft.is_object.tolist() == [True, False, True]
    assert soft.true_class.tolist() == [1, -1, -1]


@pytest.mark.parametrize('num_objects', [0, 2])
def test_nothing_seen_or_nothing_there(num_objects: int) -> None:
    some = truth()
    there = dataclasses.replace(
        some,
        bboxes=some.bboxes[:num_objects],
        labels=some.labels[:num_objects],
        crowd=some.crowd[:num_objects],
    )
    none = three()[torch.zeros(3, dtype=torch.bool)]
    assert len(soft_labels_of(none, there, GROUPS).true_class) == 0
    seen = soft_labels_of(three(), there, GROUPS)
    assert (seen.true_class >= 0).sum() == num_objects
    joined = SoftLabels.join([soft_labels_of(none, there, GROUPS), seen])
    assert len(joined.group_mass) == 3
    state = ClassState(3, 0.5)
    settled = settled_boosts(
        [none], [torch.ones(0)], state, torch.ones(3), 0.5, torch.zeros(3, dtype=torch.bool), None
    )
    assert all(torch.equal(boosts, torch.ones(3)) for boosts in settled)
