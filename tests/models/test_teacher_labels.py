"""The teacher's labels: what they are of, their scores and confidences."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from mmengine.structures import InstanceData

from mmdet_softpl.functional import ClassSimilarity, smoothing_table
from mmdet_softpl.models.class_state import ClassState
from mmdet_softpl.models.teacher_labels import (
    TeacherView,
    add_masks,
    confidences_of,
    evidence_of,
    own_scores_of,
    teacher_detect,
)
from tests.support.tiny import (
    NUM_CLASSES,
    multi_batch,
)
from tests.support.tiny_teacher import tiny_teacher


def test_teacher_labels_live_above_their_thresholds_and_have_masks() -> None:
    model = tiny_teacher()
    state = model.class_state
    state.thresholds[:] = torch.tensor([0.1, 0.2, 1.0, 0.2, 0.2])
    inputs, samples = multi_batch()
    view = model.label(inputs['unsup_teacher'], samples['unsup_teacher'])
    for seen in view.detections:
        # What the student learns boxes from.
        sure = seen.objectness > model.labeling_cfg.objectness_thr
        assert len(seen) and (seen.kept | sure).all()
    kept = [seen[seen.kept] for seen in view.detections]
    assert sum(map(len, kept)) > 0
    for seen in kept:
        assert (seen.scores > state.thresholds[seen.labels]).all()
        assert (seen.labels != 2).all()
        assert seen.mask_probs.shape[1:] == (28, 28)
        assert ((seen.mask_probs >= 0) & (seen.mask_probs <= 1)).all()
        torch.testing.assert_close(seen.score_vectors.sum(1), torch.ones(len(seen)))
        picked = seen.score_vectors[torch.arange(len(seen)), seen.labels]
        torch.testing.assert_close(picked, seen.scores)
    assert state.kept.sum() == sum(map(len, kept))


@pytest.mark.parametrize('name', ['mask-rcnn', 'cascade-mask-rcnn'])
def test_detections_are_the_hosts_own(name: str) -> None:
    """Prefilter, then NMS: the same boxes, classes, scores and masks as host's predict()."""
    model = tiny_teacher(name, score_floor=0.05, max_per_img=100)
    inputs, samples = multi_batch()
    model.eval()
    for cfg in (model.teacher.roi_head.test_cfg, model.teacher.test_cfg.rcnn):
        cfg.update(score_thr=0.05, max_per_img=100)
    view = teacher_detect(
        model.teacher, inputs['sup'], samples['sup'], model.class_state, model.labeling_cfg
    )
    host = model.teacher.predict(inputs['sup'], copy.deepcopy(samples['sup']), rescale=False)
    for seen, sample in zip(view.detections, host, strict=True):
        expected = sample.pred_instances
        order = expected.scores.argsort(descending=True, stable=True)
        expected = expected[order]
        large = ((expected.bboxes[:, 2:] - expected.bboxes[:, :2]) > 1).all(1)
        expected = expected[large]
        seen = seen[seen.scores.argsort(descending=True, stable=True)][: len(expected)]
        torch.testing.assert_close(seen.scores, expected.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(seen.bboxes, expected.bboxes, rtol=1e-3, atol=1e-2)
        assert (seen.labels == expected.labels).float().mean() > 0.98
    add_masks(model.teacher, TeacherView(view.feats, view.detections))
    assert view.detections[0].mask_probs.shape[0] == len(view.detections[0])


def test_a_boost_changes_the_class_not_the_objectness() -> None:
    model = tiny_teacher(score_floor=0.0)
    inputs, samples = multi_batch()
    plain = model.label(inputs['unsup_teacher'], samples['unsup_teacher'], record=False)
    model.class_state.boosts[3] = 4.0
    boosted = model.label(inputs['unsup_teacher'], samples['unsup_teacher'], record=False)
    share = [
        torch.cat([seen.score_vectors[:, 3] for seen in view.detections]).mean()
        for view in (plain, boosted)
    ]
    assert share[1] > 1.5 * share[0]


def test_a_label_temperature_sharpens_the_class_not_the_objectness() -> None:
    model = tiny_teacher(score_floor=0.0)
    boosts = torch.tensor([2.0, 1, 0.5, 1, 1])
    model.class_state.boosts.copy_(boosts)
    inputs, samples = multi_batch()
    seen = []
    for temperature in (1.0, 0.5):
        model.labeling_cfg = replace(model.labeling_cfg, label_temperature=temperature)
        view = model.label(inputs['unsup_teacher'], samples['unsup_teacher'], record=False)
        seen.append(InstanceData.cat(view.detections))
    plain, sharp = seen
    compared = 0
    for vector, objectness, label, own in zip(
        sharp.score_vectors, sharp.objectness, sharp.labels, sharp.own_scores, strict=True
    ):
        # The RoI of the plain teacher with the same objectness.
        (rows,) = torch.where((plain.objectness - objectness).abs() < 1e-7)
        if not len(rows):
            continue
        shares = (plain.score_vectors[rows[0], :-1] / boosts).square()
        shares = shares / shares.sum()
        torch.testing.assert_close(own, objectness * shares[label], rtol=1e-3, atol=1e-6)
        expected = shares * boosts / (shares * boosts).sum() * objectness
        torch.testing.assert_close(vector[:-1], expected, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(vector[-1], 1 - objectness)
        compared += 1
    assert compared > 3


@pytest.mark.parametrize('gain', [1.0, 1.25])
def test_confidences_are_calibrated_and_not_boosted(gain: float) -> None:
    """What the network says is put right by boosts of its own."""
    model = tiny_teacher(score_floor=0.0)
    state = model.class_state
    boosts = torch.tensor([8.0, 1, 0.5, 4, 1])
    own_boosts = torch.tensor([2.0, 1, 0.5, 1, 1])
    state.boosts.copy_(boosts)
    state.own_boosts.copy_(own_boosts)
    state.confidence_gain.fill_(gain)
    # Calibrated: nine tenths of every score.
    state.calibration.mul_(0.9)
    inputs, samples = multi_batch()
    view = model.label(inputs['unsup_teacher'], samples['unsup_teacher'], record=False)
    seen = InstanceData.cat(view.detections)
    assert len(seen)
    for i in range(len(seen)):
        foreground = seen.score_vectors[i, :-1]
        own = foreground / boosts * own_boosts
        own = gain * own / own.sum() * foreground.sum()
        own = own.clamp(max=foreground.sum())
        label = int(seen.labels[i])
        torch.testing.assert_close(seen.own_scores[i], own[label], rtol=1e-4, atol=1e-6)
        ratio = seen.target_scores[i] / seen.scores[i]
        torch.testing.assert_close(seen.confidences[i], own[label] * ratio, rtol=1e-4, atol=1e-6)
    middle = (seen.scores > 1 / 15) & (seen.scores < 14 / 15)
    assert middle.any()
    torch.testing.assert_close(seen.target_scores[middle], 0.9 * seen.scores[middle])
    if gain == 1:
        assert (seen.confidences[seen.labels == 0] < seen.target_scores[seen.labels == 0]).all()


def test_what_the_network_says_of_objects_is_counted() -> None:
    model = tiny_teacher(score_floor=0.0, objectness_thr=0.3)
    state = model.class_state
    boosts, own_boosts = torch.tensor([4.0, 1, 0.5, 4, 1]), torch.tensor([0.5, 1, 2, 1, 1])
    state.boosts.copy_(boosts)
    state.own_boosts.copy_(own_boosts)
    inputs, samples = multi_batch()
    view = model.label(inputs['unsup_teacher'], samples['unsup_teacher'])
    objects = InstanceData.cat(view.detections)
    assert len(objects) > 1
    vectors = objects.score_vectors[:, :-1] / boosts * own_boosts
    vectors = vectors / vectors.sum(1, keepdim=True) * objects.objectness[:, None]
    torch.testing.assert_close(state.own_mass, vectors.sum(0), rtol=1e-4, atol=1e-6)
    model.label(inputs['unsup_teacher'], samples['unsup_teacher'], record=False)
    torch.testing.assert_close(state.own_mass, vectors.sum(0), rtol=1e-4, atol=1e-6)


def test_no_confidence_is_above_objectness() -> None:
    state = ClassState(2, 0.5)
    state.confidence_gain.fill_(1.25)
    scores, objectness = torch.tensor([0.0, 0.4, 0.8, 0.9]), torch.tensor([0.3, 0.9, 0.9, 0.9])
    expected = torch.tensor([0.0, 0.5, 0.9, 0.9])
    torch.testing.assert_close(own_scores_of(scores, objectness, state), expected)
    assert own_scores_of(scores[:0], objectness[:0], state).shape == (0,)


def test_the_gain_is_what_smoothing_takes() -> None:
    """A network that has learnt the targets to the last says what they say, and it undoes that."""
    similarity = ClassSimilarity(torch.tensor([[1], [2], [0]]), torch.ones(3, 1))
    table = smoothing_table(torch.full((3,), 0.2), similarity)
    learnt = torch.zeros(4, 4).scatter_add(1, table.entries, table.coefficients)[:3, :3]
    state = ClassState(3, 0.5)
    state.confidence_gain.fill_(1 / (1 - 0.2))
    own = own_scores_of(learnt.diagonal(), torch.ones(3), state)
    torch.testing.assert_close(own, torch.ones(3))


@pytest.mark.parametrize('count', [0, 1, 3])
def test_confidences_without_a_boost_are_the_calibrated_scores(count: int) -> None:
    scores = torch.tensor([0.2, 0.7, 1.0])[:count]
    calibrated = torch.tensor([0.1, 0.9, 1.0])[:count]
    torch.testing.assert_close(confidences_of(scores, scores, calibrated), calibrated)
    # Never more than certain, and nothing of what the network does not see at all.
    raised = confidences_of(scores, scores / 2, calibrated)
    assert (raised <= 1).all()
    assert not confidences_of(torch.zeros(count), scores, calibrated).any()


def test_prototype_evidence_moves_labels() -> None:
    model = tiny_teacher(score_floor=0.0)
    head = model.teacher.roi_head.bbox_head
    inputs, samples = multi_batch()
    model.label(inputs['unsup_teacher'], samples['unsup_teacher'], record=False)
    head.prototype_counts.fill_(10)
    features = head.penultimate_features
    # Class 2 looks like everything in these images, the others like its opposite.
    centre = features.mean(0)
    head.prototypes.copy_(-centre.expand(NUM_CLASSES, -1))
    head.prototypes[2] = centre

    def share(weight: float) -> float:
        model.class_state.prototype_weights.fill_(weight)
        view = model.label(inputs['unsup_teacher'], samples['unsup_teacher'], record=False)
        return float(torch.cat([d.score_vectors[:, 2] for d in view.detections]).mean())

    assert share(1.0) > 2 * share(0.0)


def test_soft_labels_alone_have_a_mass() -> None:
    inputs, samples = multi_batch()
    for mode in ('soft', 'hard'):
        model = tiny_teacher(label_mode=mode, student_correction=False)
        model.class_state.calibration.mul_(0.8)
        view = model.label(inputs['unsup_teacher'], samples['unsup_teacher'])
        objects = [d for d in view.detections if len(d)]
        assert objects
        mass = torch.zeros(NUM_CLASSES)
        for found in objects:
            for vector, label, confidence in zip(
                found.score_vectors, found.labels, found.target_scores, strict=True
            ):
                rest = 1 - vector[label]
                soft = vector[:-1] * (1 - confidence) / rest
                soft[label] = confidence
                mass += soft
        if mode == 'hard':
            mass.zero_()
        torch.testing.assert_close(model.class_state.mass, mass)


def test_only_the_surest_label_of_an_object_is_counted() -> None:
    model = tiny_teacher(score_floor=0.0)
    inputs, samples = multi_batch()
    view = teacher_detect(
        model.teacher,
        inputs['unsup_teacher'],
        samples['unsup_teacher'],
        model.class_state,
        model.labeling_cfg,
    )
    model.label(inputs['unsup_teacher'], samples['unsup_teacher'])
    surest = sum(int(seen.surest.sum()) for seen in view.detections)
    assert model.class_state.score_histogram.sum() == surest
    assert surest < sum(len(seen) for seen in view.detections)


def test_evidence_is_relative_to_a_uniform_guess() -> None:
    """Prototypes that are all alike say nothing: 0 for every class that has one."""
    model = tiny_teacher(score_floor=0.0)
    inputs, samples = multi_batch()
    model.label(inputs['unsup_teacher'], samples['unsup_teacher'], record=False)
    roi_head = model.teacher.roi_head
    head = roi_head.bbox_head
    head.prototypes.fill_(1.0)
    head.prototype_counts.copy_(torch.tensor([3.0, 5, 0, 7, 9]))
    number = len(head.penultimate_features)
    weights = torch.arange(1.0, 1 + NUM_CLASSES)
    evidence = evidence_of(roi_head, weights, number)
    assert evidence is not None and evidence.shape == (number, NUM_CLASSES)
    torch.testing.assert_close(evidence, torch.zeros_like(evidence), rtol=0, atol=1e-5)
    # Features of another forward pass are none of these RoIs'.
    assert evidence_of(roi_head, weights, number + 1) is None


def test_a_detection_just_above_the_floor_is_found() -> None:
    """RoIs are dropped by their whole foreground, which is hardly more than its best class."""
    model = tiny_teacher(score_floor=0.0)
    model.class_state.boosts[3] = 100.0
    inputs, samples = multi_batch()

    def detections() -> InstanceData:
        return InstanceData.cat(
            teacher_detect(
                model.teacher,
                inputs['sup'],
                samples['sup'],
                model.class_state,
                model.labeling_cfg,
            ).detections
        )

    everything = detections()
    share = everything.scores / everything.objectness
    one = int(share.argmax())
    assert share[one] > 0.9
    floor = 0.999 * float(everything.scores[one])
    model.labeling_cfg = replace(model.labeling_cfg, score_floor=floor)
    found = detections()
    assert len(found) < len(everything)
    assert (found.bboxes - everything.bboxes[one]).abs().sum(1).min() < 1e-2
