"""The crops bench in small: what it records, and that it keeps what it has."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.crops import learner, run
from benchmarks.crops.data import CROP_SIZE, Crops
from benchmarks.crops.learner import ARMS

CLASSES = 3


@pytest.fixture
def crops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every object is painted in the colour of its class."""

    def split(number: int) -> Crops:
        labels = torch.arange(number) % CLASSES
        shades = (labels * 100 + 20).to(torch.uint8)
        images = shades[:, None, None, None].expand(number, 3, CROP_SIZE, CROP_SIZE)
        return Crops(images.contiguous(), labels)

    sets = {'train': split(60), 'unlabeled': split(90), 'tune': split(30)}
    loaded = (sets, torch.arange(CLASSES))
    monkeypatch.setattr(run, 'load_crops', lambda root: loaded)


def test_every_arm_starts_from_the_same_burn_in(
    crops: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = []

    def train(*args: Any, start: nn.Module | None = None, **kwargs: Any) -> tuple:
        starts.append(None if start is None else copy.deepcopy(start.state_dict()))
        return learner.train(*args, start=start, **kwargs)

    monkeypatch.setattr(run, 'train', train)
    names = ['labelled alone', 'one-hot above 0.7', '+ balanced draws', 'true labels (bound)']
    records = run.measure(Path(), burn_in=60, seed=0, iters=3, arms=names)
    assert list(dict.fromkeys(r['arm'] for r in records)) == names
    assert {(r['burn_in'], r['seed'], r['iters']) for r in records} == {(60, 0, 3)}
    values = {(r['arm'], r['metric']): r['value'] for r in records}
    assert all(values[name, 'AP'] == pytest.approx(1.0) for name in names)
    # An arm leaves the start as it is for the next one.
    assert starts[0] is None
    assert len(starts) == 1 + len(names)
    for start in starts[2:]:
        torch.testing.assert_close(start, starts[1], rtol=0, atol=0)


def test_what_is_done_is_not_trained_again(
    crops: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(run, 'measure', lambda *_: pytest.fail('trained again'))
    records = [dict(burn_in=5, iters=7, arm=arm, seed=0, metric='AP', value=0.25) for arm in ARMS]
    path = tmp_path / 'results.json'
    path.write_text(json.dumps(records))
    before = path.read_bytes()
    argv = ['--seeds', '1', '--burn-ins', '5', '--iters', '7', '--out', str(tmp_path)]
    assert run.main(argv) == 0
    assert path.read_bytes() == before
    assert 'give another --out' in capsys.readouterr().out


def test_results_of_another_length_are_not_mixed_in(
    crops: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / 'results.json'
    record = dict(burn_in=5, arm='labelled alone', seed=0, metric='AP', value=0.25)
    # Records of before the length was written are of the default one.
    path.write_text(json.dumps([record]))
    with pytest.raises(SystemExit):
        run.main(['--iters', '7', '--out', str(tmp_path)])
    message = capsys.readouterr().err
    assert str(path) in message
    assert f'{run.ITERS} iterations, --iters is 7' in message
    assert json.loads(path.read_text()) == [record]
