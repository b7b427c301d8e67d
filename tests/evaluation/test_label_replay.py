"""The replay against the teacher's own labelling, and its parts against closed forms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope

from mmdet_softpl.evaluation.label_replay import (
    LabelSettings,
    Replay,
    candidates_of,
    cross_calibrated,
    initial_state,
    replay,
)
from mmdet_softpl.evaluation.teacher_dump import dump_teacher
from mmdet_softpl.functional import (
    FREQUENT,
    calibration_table,
    per_class_thresholds,
    score_histogram,
)
from mmdet_softpl.models.class_state import CONFIDENCE_BINS, SCORE_BINS
from mmdet_softpl.models.teacher_labels import (
    LabelingCfg,
    most_wanted,
    name_objects,
    teacher_detect,
)
from tests.support import tiny_labelling

HISTOGRAM = LabelSettings(threshold_mode='fixed', held_out=True)
SETTINGS = (
    LabelSettings(thr_range=(0.2, 0.9), min_count=3, alpha=1.0),
    LabelSettings(
        threshold_mode='fixed', fixed_thr=0.3, boost_gamma=0.0, prototype_weight=(0.0, 0.0, 0.0),
        align_rate=0.0,
    ),
    LabelSettings(
        threshold_mode='quantile', quantile=0.4, thr_range=(0.2, 0.9), min_count=3, boost_gamma=1.0,
        max_boost=8.0, prototype_weight=(0.3, 1.0, 0.2), temperature=0.05, label_temperature=0.5,
    ),
)  # fmt: skip
STATISTICS = tiny_labelling.statistics()


def table_of(settings: LabelSettings, found: Replay) -> torch.Tensor:
    return calibration_table(
        found.reliability(), found.state.groups, settings.calibration, settings.held_out
    )


@pytest.fixture(autouse=True)
def _scope() -> None:
    init_default_scope('mmdet')
    torch.manual_seed(0)


@pytest.mark.parametrize('name', ['mask-rcnn', 'cascade-mask-rcnn'])
def test_equals_labelling_in_training(tmp_path: Path, name: str) -> None:
    ann_file = tiny_labelling.write_images(tmp_path, count=3)
    dataset = tiny_labelling.build_dataset(ann_file)
    detector = tiny_labelling.build_teacher(name)
    plain = detector.labeling_cfg
    dump = dump_teacher(
        detector, dataset, tiny_labelling.ground_truth(ann_file), tmp_path / 'dumps', {}
    )
    data = detector.teacher.data_preprocessor(pseudo_collate([dataset[i] for i in range(3)]), False)
    heads = detector.teacher.roi_head.bbox_head
    head = heads[-1] if isinstance(heads, torch.nn.ModuleList) else heads
    own = head.temperature
    compared = kept = 0
    for settings in SETTINGS:
        cfg = replace(plain, label_temperature=settings.label_temperature)
        found = replay(dump, settings, STATISTICS, cfg)
        state = found.state
        table = torch.linspace(0, 1, state.calibration.shape[1]) ** 2
        state.calibration.copy_(table.expand_as(state.calibration))
        head.temperature = settings.temperature or own
        view = teacher_detect(detector.teacher, data['inputs'], data['data_samples'], state, cfg)
        head.temperature = own
        for index, (expected, image) in enumerate(zip(view.detections, dump.images, strict=True)):
            seen = candidates_of(dump, image, settings, state, cfg)
            seen = most_wanted(name_objects(seen, state, cfg), cfg.max_per_img)
            assert len(seen) == len(expected)
            for key in ('bboxes', 'objectness', 'scores', 'own_scores', 'target_scores'):
                torch.testing.assert_close(seen[key], expected[key], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(seen.confidences, expected.confidences, atol=1e-3, rtol=1e-3)
            for key in ('labels', 'surest', 'kept', 'is_object'):
                assert torch.equal(seen[key], expected[key]), key
            rows = found.image == index
            torch.testing.assert_close(
                found.scores[rows], expected.scores[expected.surest], atol=1e-4, rtol=1e-4
            )
            assert torch.equal(found.kept[rows], expected.kept[expected.surest])
            compared += len(seen)
            kept += int(seen.kept.sum())
    assert 0 < kept < compared


def test_thresholds_are_those_of_the_scores_they_led_to() -> None:
    dump = tiny_labelling.made_up_dump()
    settings = LabelSettings(thr_range=(0.1, 0.95), alpha=0.5)
    found = replay(dump, settings, STATISTICS, LabelingCfg())
    histogram = score_histogram(found.scores, found.labels, 5, SCORE_BINS)
    rate = torch.as_tensor(STATISTICS.instance_counts).float() / STATISTICS.num_images
    expected = per_class_thresholds(
        'prior', histogram, len(dump.images), rate, found.state.groups, alpha=0.5, lower=0.1,
        upper=0.95,
    )  # fmt: skip
    torch.testing.assert_close(found.state.thresholds, expected)
    assert torch.equal(found.kept, found.scores > found.state.thresholds[found.labels])


def test_settings_from_a_config() -> None:
    hook = dict(type='X', alpha=0.3, prototype_weight=1, thr_range=[0.2, 0.8], interval=7)
    settings = LabelSettings.from_configs(
        hook, dict(calibration='none', unsup_weight=1.0, label_temperature=0.5)
    )
    assert settings == LabelSettings(
        alpha=0.3,
        prototype_weight=(1.0, 1.0, 1.0),
        thr_range=(0.2, 0.8),
        calibration='none',
        label_temperature=0.5,
    )
    assert LabelSettings.from_configs({}, {}) == LabelSettings()
    assert LabelSettings.from_configs({}, {}, held_out=True).held_out


def test_start_is_that_of_the_labeller(tmp_path: Path) -> None:
    state = initial_state(LabelSettings(boost_gamma=1.0, max_boost=4.0), STATISTICS)
    # Median count 20: 20 / 2 is cut at 4, 20 / 8 is 2.5.
    torch.testing.assert_close(state.boosts, torch.tensor([4.0, 2.5, 1, 1, 1]))
    assert state.groups.tolist() == [0, 0, 1, 1, 2]
    assert state.prototype_weights.tolist() == [1.0, 1.0, 0.5, 0.5, 0.0]


def test_calibration_of_a_fold_knows_nothing_of_it() -> None:
    dump = tiny_labelling.made_up_dump(overconfident=3.0)
    found = replay(dump, LabelSettings(threshold_mode='fixed'), STATISTICS, LabelingCfg())
    folds = torch.arange(40) % 2 == 1
    base = cross_calibrated(found, HISTOGRAM, folds)
    # What is right in the first fold changes nothing there, but in the other one.
    turned = found.correct.clone()
    first = ~folds[found.image]
    turned[first] = ~turned[first]
    changed = cross_calibrated(
        type(found)(**{**found.__dict__, 'correct': turned}), HISTOGRAM, folds
    )
    torch.testing.assert_close(changed[first], base[first])
    assert not torch.allclose(changed[~first], base[~first])
    # No calibration is no change.
    none = LabelSettings(threshold_mode='fixed', calibration='none')
    torch.testing.assert_close(cross_calibrated(found, none, folds), found.scores)
    grouped = LabelSettings(threshold_mode='fixed', calibration='group_temperature', held_out=True)
    table = table_of(grouped, found)
    # Overconfident: the calibrated confidence of a high score is lower.
    assert (table[:, -2] < 0.9).all()


def test_calibration_raises_scores_only_where_training_does() -> None:
    """Without a held-out part the detector's own tables never raise; nor does the replay."""
    found = replay(
        tiny_labelling.made_up_dump(overconfident=0.4),
        LabelSettings(threshold_mode='fixed'),
        STATISTICS,
        LabelingCfg(),
    )
    centres = (torch.arange(CONFIDENCE_BINS) + 0.5) / CONFIDENCE_BINS
    both = table_of(HISTOGRAM, found)
    lower = table_of(LabelSettings(threshold_mode='fixed'), found)
    assert (both > centres + 0.01).any()
    torch.testing.assert_close(lower, torch.minimum(both, centres))


def test_weights_reach_objects_and_detections() -> None:
    dump = tiny_labelling.made_up_dump()
    settings = LabelSettings(threshold_mode='fixed', fixed_thr=0.2)
    plain = replay(dump, settings, STATISTICS, LabelingCfg())
    assert plain.weights.eq(1).all()
    weights = torch.tensor([0.1, 1.0, 2.0, 3.0, 4.0])
    found = replay(dump, settings, STATISTICS, LabelingCfg(), object_weights=weights)
    torch.testing.assert_close(found.objects, plain.objects * weights)
    torch.testing.assert_close(found.weights[found.correct], weights[found.labels[found.correct]])
    count = found.reliability()[0].sum()
    assert float(count) == pytest.approx(float((found.weights * found.judged).sum()), rel=1e-5)


def test_a_part_of_the_images_and_unknown_temperatures() -> None:
    dump = tiny_labelling.made_up_dump()
    # Thresholds and boosts that do not depend on the other images.
    alone = LabelSettings(threshold_mode='fixed', align_rate=0.0)
    found = replay(dump, alone, STATISTICS, LabelingCfg(), indices=[3, 5])
    assert found.objects.shape == (2, 5)
    assert set(found.image.tolist()) <= {0, 1}
    whole = replay(dump, alone, STATISTICS, LabelingCfg())
    np.testing.assert_allclose(found.scores[found.image == 1], whole.scores[whole.image == 5])
    prototypes = type(dump)(dump.class_names, (0.1,), dump.images)
    with pytest.raises(ValueError, match=r'temperature=0\.3'):
        replay(prototypes, LabelSettings(temperature=0.3), STATISTICS, LabelingCfg())


def test_images_without_anything() -> None:
    dump = tiny_labelling.made_up_dump(2)
    empty = [
        type(image)(
            image.img_id, image.classes[:0], image.scores[:0], image.bboxes[:0], None, None,
            image.truth,
        )
        for image in dump.images
    ]  # fmt: skip
    found = replay(
        type(dump)(dump.class_names, (), tuple(empty)), LabelSettings(), STATISTICS, LabelingCfg()
    )
    assert len(found.scores) == 0
    assert found.objects.sum() > 0
    assert found.state.thresholds.tolist() == pytest.approx([0.7] * 5)


def test_sets_that_do_not_name_all_objects_align_otherwise() -> None:
    """Of federated sets nothing says how many frequent labels there should be."""
    dump = tiny_labelling.made_up_dump()

    def boosts(**changes: bool) -> torch.Tensor:
        found = replay(dump, LabelSettings(), replace(STATISTICS, **changes), LabelingCfg())
        return found.state.boosts

    plain, federated = boosts(), boosts(federated=True)
    start = initial_state(LabelSettings(), STATISTICS)
    frequent = start.groups == FREQUENT
    assert 0 < int(frequent.sum()) < len(frequent)
    assert torch.equal(federated[frequent], start.boosts[frequent])
    assert not torch.allclose(plain[frequent], start.boosts[frequent], rtol=1e-3)
    assert not torch.allclose(federated[~frequent], start.boosts[~frequent], rtol=1e-3)
    # Where images say nothing of some classes, what is wanted also goes by the images.
    partial = boosts(federated=True, partial=True)
    assert not torch.allclose(partial[~frequent], federated[~frequent], rtol=1e-3)


def test_crowds_are_no_objects_and_judge_nothing() -> None:
    dump = tiny_labelling.made_up_dump(20)
    settings = LabelSettings(threshold_mode='fixed')
    plain = replay(dump, settings, STATISTICS, LabelingCfg())
    images = list(dump.images)
    one = int(plain.image[plain.correct][0])
    crowd = torch.ones_like(images[one].truth.crowd)
    images[one] = replace(images[one], truth=replace(images[one].truth, crowd=crowd))
    found = replay(replace(dump, images=tuple(images)), settings, STATISTICS, LabelingCfg())
    assert plain.objects[one].sum() > 0 and found.objects[one].sum() == 0
    assert found.objects.sum() == plain.objects.sum() - plain.objects[one].sum()
    rows = (plain.image == one) & plain.correct
    assert not found.judged[rows].any() and plain.judged.all()
    counted = found.reliability()[0].sum()
    assert float(counted) == float(found.judged.sum()) < float(plain.reliability()[0].sum())


def test_the_limit_of_an_image_holds_in_a_replay() -> None:
    dump = tiny_labelling.made_up_dump(20)
    settings = LabelSettings(threshold_mode='fixed', fixed_thr=0.3, align_rate=0.0)
    plain, found = (
        replay(dump, settings, STATISTICS, LabelingCfg(max_per_img=limit)) for limit in (100, 2)
    )
    counts = torch.bincount(found.image, minlength=20)
    assert counts.max() == 2 < torch.bincount(plain.image).max()
    # Kept labels go first.
    kept = torch.bincount(plain.image[plain.kept], minlength=20).clamp(max=2)
    assert torch.equal(torch.bincount(found.image[found.kept], minlength=20), kept)


def test_thresholds_go_by_weighted_detections() -> None:
    dump = tiny_labelling.made_up_dump()
    settings = LabelSettings(thr_range=(0.0, 1.0), alpha=0.5, align_rate=0.0)
    weights = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.01])
    plain = replay(dump, settings, STATISTICS, LabelingCfg()).state.thresholds
    found = replay(
        dump, settings, STATISTICS, LabelingCfg(), object_weights=weights
    ).state.thresholds
    # Of the last class there are hardly any detections left: too few for a threshold of its own.
    assert abs(found[4] - plain[4]) > 0.05


def test_calibration_of_a_fold_may_raise_what_is_held_out() -> None:
    dump = tiny_labelling.made_up_dump(overconfident=0.4)
    found = replay(dump, HISTOGRAM, STATISTICS, LabelingCfg())
    folds = torch.arange(40) % 2 == 1
    raised = cross_calibrated(found, HISTOGRAM, folds) > found.scores + 0.05
    without = cross_calibrated(found, replace(HISTOGRAM, held_out=False), folds)
    assert raised.any() and (without <= found.scores + 1e-6).all()
