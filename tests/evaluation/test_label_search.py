"""The search over a made-up dump: halves, resuming, what it finds, the front."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest

from mmdet_softpl.evaluation import label_search
from mmdet_softpl.evaluation.label_replay import LabelSettings
from mmdet_softpl.evaluation.label_search import (
    FLOATS,
    LabelSearch,
    SearchResult,
    pareto_front,
    search_settings,
    settings_of,
    suggest_settings,
)
from mmdet_softpl.evaluation.labelling_proxy import labelling_proxy
from mmdet_softpl.models.teacher_labels import LabelingCfg
from tests.support import tiny_labelling

optuna = pytest.importorskip('optuna')
STATISTICS = tiny_labelling.statistics()
# Keeps nothing: nearly everything is better.
BAD = LabelSettings(threshold_mode='fixed', fixed_thr=0.94, label_mode='hard')


def make(num_images: int = 40, **options) -> LabelSearch:
    dump = tiny_labelling.made_up_dump(num_images, overconfident=1.5)
    return LabelSearch(dump, STATISTICS, LabelingCfg(), **options)


def test_halves_share_no_image_and_depend_on_the_seed() -> None:
    search = make()
    assert set(search.tune_half) | set(search.report_half) == set(range(40))
    assert not set(search.tune_half) & set(search.report_half)
    assert make().tune_half == search.tune_half
    assert make(seed=1).tune_half != search.tune_half
    with pytest.raises(ValueError, match='3 held-out images'):
        make(3)


def test_all_images_or_the_half_that_is_tuned_on() -> None:
    search = make()
    assert search.everywhere(BAD)['proxy'] != search.tune(BAD)['proxy']


def test_soft_labels_are_calibrated_only_where_training_does_it_on_held_out_images() -> None:
    search = make()
    own = LabelSettings(threshold_mode='fixed', fixed_thr=0.3)
    plain = dataclasses.replace(own, calibration='none')
    # On training images calibration finds next to nothing; here it would find a lot.
    assert search.everywhere(own)['proxy'] == search.everywhere(plain)['proxy']
    assert search.everywhere(own)['ece'] != search.everywhere(plain)['ece']
    held_out = dataclasses.replace(own, held_out=True)
    assert search.everywhere(held_out)['proxy'] != search.everywhere(plain)['proxy']


def test_finds_what_is_better_on_other_images_and_goes_on(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_search, 'IMPORTANCE_TRIALS', 12)
    search = make(60)
    reports: list[tuple[int, int]] = []

    def progress(done: int, total: int, best: float) -> None:
        reports.append((done, total))
        if done == 4 and total == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search_settings(search, BAD, tmp_path / 'study.db', 'a', 12, progress=progress)
    assert [done for done, _ in reports] == [1, 2, 3, 4]
    result = search_settings(search, BAD, tmp_path / 'study.db', 'a', 12)
    assert len(result.trials) == 12
    # The config's own settings are the first trial.
    assert result.trials[0]['settings'] == dataclasses.asdict(BAD)
    best = max(result.trials, key=lambda trial: trial['proxy'])
    assert dataclasses.asdict(result.best) == best['settings']
    assert best['proxy'] > result.trials[0]['proxy'] + 0.1
    assert sum(result.importances.values()) == pytest.approx(1, abs=1e-6)
    assert {'threshold_mode', 'thr_low', 'boost_gamma'} <= set(result.importances)
    # There are no prototypes.
    assert not any('prototype' in key or key == 'temperature' for key in result.importances)
    compared = search.compare(BAD, result.best)
    assert compared['verdict'] == 'better'
    assert 0 < compared['interval'][0] < compared['interval'][1]
    assert search.compare(result.best, BAD)['verdict'] == 'worse'
    assert search.compare(BAD, BAD)['verdict'] == 'cannot tell'
    # Enough trials are there: none is added. Another name starts anew.
    again = search_settings(search, BAD, tmp_path / 'study.db', 'a', 10)
    assert isinstance(again, SearchResult) and len(again.trials) == 12
    other = search_settings(search, BAD, tmp_path / 'study.db', 'b', 2)
    assert len(other.trials) == 2
    assert other.importances == {}


def test_an_interruption_in_a_trial_is_no_traceback(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[logging.LogRecord] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, 'emit', said.append)

    def stop(settings: LabelSettings) -> dict:
        raise KeyboardInterrupt

    search = make()
    with monkeypatch.context() as patch:
        patch.setattr(search, 'tune', stop)
        logging.getLogger('optuna').addHandler(handler)
        with pytest.raises(KeyboardInterrupt):
            search_settings(search, BAD, tmp_path / 'study.db', 'a', 3)
        logging.getLogger('optuna').removeHandler(handler)
    assert said == []
    result = search_settings(search, BAD, tmp_path / 'study.db', 'a', 3)
    assert len(result.trials) == 3
    assert result.trials[0]['settings'] == dataclasses.asdict(BAD)


def test_report_does_not_look_at_its_own_labels_for_calibration() -> None:
    search = make()
    settings = LabelSettings(threshold_mode='fixed', fixed_thr=0.3)
    values, statistics = search.report(settings)
    assert len(statistics.counts) == 20
    summed = [part.sum(0) for part in (
        statistics.counts, statistics.learned, statistics.reliability)]  # fmt: skip
    assert values == pytest.approx(labelling_proxy(*summed), rel=1e-5)


@pytest.mark.parametrize(
    'start',
    [
        LabelSettings(),
        LabelSettings(alpha=5.0, thr_range=(0.0, 1.0), boost_gamma=3.0, max_boost=40.0),
        LabelSettings(temperature=0.1, prototype_weight=(0.2, 0.1, 1.0)),
        LabelSettings(calibration='temperature', held_out=True),
        LabelSettings(alpha=0.3, label_mode='hard'),
    ],
)
def test_space_contains_the_start(start: LabelSettings) -> None:
    temperatures = (0.1, 0.05)
    own = label_search._parameters(start, temperatures)
    found = suggest_settings(optuna.trial.FixedTrial(own), start, temperatures)
    assert dataclasses.replace(found, temperature=start.temperature) == start
    study = optuna.create_study()
    study.enqueue_trial(own)
    trial = study.ask()
    suggest_settings(trial, start, temperatures)
    read = {'boost_gamma', 'max_boost', 'temperature'}
    read |= {key for key in FLOATS if key.startswith('prototype_weight')}
    # Soft labels are learned whatever the thresholds.
    if start.label_mode == 'hard':
        read |= {'threshold_mode', 'alpha', 'fixed_thr', 'thr_low', 'thr_high'}
    else:
        read.add('label_temperature')
    # Where it is fitted on training images, no replay can judge it.
    read |= {'calibration'} if start.held_out else set()
    assert trial.params == {key: own[key] for key in read}


def test_without_prototypes_their_settings_stay() -> None:
    start = LabelSettings(prototype_weight=(0.9, 0.8, 0.7))
    trial = optuna.create_study().ask()
    found = suggest_settings(trial, start, ())
    assert found.prototype_weight == (0.9, 0.8, 0.7)
    assert found.temperature is None
    assert not any('prototype' in key or key == 'temperature' for key in trial.params)
    crossed = settings_of(dict(thr_low=0.7, thr_high=0.6), start)
    assert crossed.thr_range == (0.7, 0.7)
    assert settings_of({}, start).thr_range == start.thr_range


def test_front_against_all_pairs() -> None:
    rng = np.random.default_rng(0)
    points = rng.integers(0, 6, (60, 2)).astype(float)
    expected = [not any((q >= p).all() and (q > p).any() for q in points) for p in points]
    np.testing.assert_array_equal(pareto_front(points), expected)
    assert pareto_front(np.zeros((0, 2))).shape == (0,)
