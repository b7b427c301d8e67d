"""The decision bench in small: the claims that the README makes hold, seed by seed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks.decision import run
from benchmarks.decision.claims import (
    calibration,
    correction,
    overconfidence,
    rare_pseudo_labels,
    sibling_mass,
)
from benchmarks.decision.run import REGIMES, measure, table
from benchmarks.decision.world import WorldConfig

SMALL = WorldConfig(families=6, siblings=4, largest=200)


@pytest.mark.parametrize('seed', [0, 1])
def test_smoothing_lowers_overconfidence(seed: int) -> None:
    gaps = overconfidence(REGIMES['look-alike, over-fitted'], seed)
    assert gaps['none']['gap_frequent'] > 0
    assert gaps['similarity']['gap_frequent'] < gaps['none']['gap_frequent']


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_similarity_finds_siblings(seed: int) -> None:
    share = sibling_mass(SMALL, seed)
    assert share['uniform']['siblings_rare'] == pytest.approx(3 / 23)
    assert all(value > 0.8 for value in share['similarity'].values() if not math.isnan(value))


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_thresholds_and_prototypes_find_rare_objects(seed: int) -> None:
    arms = rare_pseudo_labels(REGIMES['clear'], seed)
    one, full = arms['one threshold'], arms['boost, prototypes, thresholds']
    assert full['recall_rare'] > 1.3 * one['recall_rare']
    assert full['precision_rare'] > one['precision_rare'] - 0.1


@pytest.mark.parametrize('seed', [0, 1])
def test_calibration_lowers_both_errors(seed: int) -> None:
    arms = calibration(SMALL, seed)
    for metric in ('ece', 'cc_ece'):
        assert arms['on held-out samples'][metric] < 0.7 * arms['none'][metric]


def test_repeated_steps_remove_most_of_a_planted_shift() -> None:
    arms = correction(SMALL, 0)
    assert arms['repeated steps']['shift'] < 0.6 * arms['none']['shift']
    assert arms['repeated steps']['accuracy'] > arms['none']['accuracy']


def test_the_table_has_every_claim() -> None:
    tiny = WorldConfig(families=3, siblings=3, largest=80, dim=8)
    records = measure(1, {'tiny': tiny})
    text = table(records)
    for record in records:
        assert f'**{record["claim"]}**' in text
        assert f'| {record["arm"]} |' in text
    assert 'nan' not in text


def test_the_folder_of_the_results_is_made_before_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / 'not' / 'there'
    record = dict(regime='r', claim='c', arm='a', seed=0, metric='m', value=0.5)

    def measured(seeds: int) -> list[dict]:
        assert out.is_dir()
        return [record]

    monkeypatch.setattr(run, 'measure', measured)
    monkeypatch.setattr('sys.argv', ['run', '--seeds', '1', '--out', str(out)])
    assert run.main() == 0
    assert json.loads((out / 'results.json').read_text()) == [record]
    assert '| a | 0.500' in (out / 'RESULTS.md').read_text()
