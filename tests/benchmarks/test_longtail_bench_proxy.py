"""The table of proxy against training, without a detector."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.longtail import proxy
from benchmarks.longtail.arms import ARMS, arm_config
from benchmarks.longtail.presets import PRESETS


@pytest.mark.parametrize('family', ['7', '7-shipped'])
def test_only_arms_that_a_replay_can_tell_apart(family: str) -> None:
    arms = proxy.ARMS_TO_RANK[family]
    assert family in arms and set(arms) <= set(ARMS) and len(set(arms)) == len(arms)
    for arm in arms:
        assert ARMS[arm].burn_in == ARMS[family].burn_in
        cfg = arm_config(arm, PRESETS['cpu'], 0)
        assert cfg.model.semi_train_cfg.label_mode == 'soft'
        assert not cfg.model.semi_train_cfg.get('student_correction', False)


def test_table_and_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    arguments = ['--seed', '1', '--out', str(tmp_path), '--results', str(tmp_path)]
    assert proxy.main(arguments) == 2
    assert 'burn-in-similarity-seed1' in capsys.readouterr().err
    burn_in = tmp_path / 'runs' / 'burn-in-similarity-seed1'
    burn_in.mkdir(parents=True)
    (burn_in / 'final.pth').touch()
    (tmp_path / 'results.json').write_text('[]')
    assert proxy.main(arguments) == 2
    assert 'no arm' in capsys.readouterr().err

    arms = ['5', '5v', '6a', '6', '7']
    records = [
        dict(preset='cpu', arm=arm, seed=1, split=split, metric=metric, value=0.2 + sign * i / 100)
        for i, arm in enumerate(arms)
        for split, sign in (('tune', 1), ('test', -1))
        for metric in ('segm_AP', 'segm_APr')
    ]
    # Of another seed, one of which half is missing, and one that has not seen `test`.
    records += [dict(records[0], arm='7-tuned-kept', seed=0), dict(records[0], arm='7-defaults')]
    records += [dict(record, arm='7-boost_gamma-2', value=0.1) for record in records[:2]]
    (tmp_path / 'results.json').write_text(json.dumps(records))
    monkeypatch.setattr(
        proxy,
        'proxies',
        lambda names, *args: {
            name: dict(
                proxy=0.1 * arms.index(name) if name in arms else -0.1,
                likelihood=0.5,
                learned_f1=0.3 - 0.1 * arms.index(name) if name in arms else 0.5,
            )
            for name in names
        },
    )
    assert proxy.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == '| 7-boost_gamma-2 | -0.100 | 0.500 | 0.500 | 10.0 | 10.0 | - | - |'
    assert lines[3] == '| 5 | 0.000 | 0.500 | 0.300 | 20.0 | 20.0 | 20.0 | 20.0 |'
    assert lines[7] == '| 7 | 0.400 | 0.500 | -0.100 | 24.0 | 24.0 | 16.0 | 16.0 |'
    assert lines[8:] == [
        'rank correlation with AP, tune: proxy +1.00, likelihood too few arms, F1 -1.00',
        'rank correlation with APr, tune: proxy +1.00, likelihood too few arms, F1 -1.00',
        'rank correlation with AP, test: proxy -1.00, likelihood too few arms, F1 +1.00',
        'rank correlation with APr, test: proxy -1.00, likelihood too few arms, F1 +1.00',
    ]
