"""A work directory is read as one training: partial, resumed, old, or none at all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from mmdet_softpl.reporting.report_page import as_json
from mmdet_softpl.reporting.work_dir import read_work_dir
from tests.support.tiny_report import GROUPS, NAMES, write_run


def test_a_whole_run(tmp_path: Path) -> None:
    run = read_work_dir(write_run(tmp_path / 'run'))
    assert run.classes == list(NAMES) and run.groups == list(GROUPS)
    assert [record['iter'] for record in run.losses] == [10, 20, 30, 40]
    assert [record['iter'] for record in run.validations] == [20, 40]
    assert [record['iter'] for record in run.refreshes] == [15, 25, 35]
    assert set(run.validations[-1]['parts']) == {'teacher', 'student'}
    assert run.audit is not None and run.checkpoint is None
    assert ('PyTorch', '2.x') in run.environment
    assert not any('MKL' in name for name, _ in run.environment)
    assert run.config is not None and run.config.name == 'config.py'


def test_a_resumed_run_is_one_training(tmp_path: Path) -> None:
    path = write_run(tmp_path / 'run')
    again = path / '20260102_000000'
    (again / 'vis_data').mkdir(parents=True)
    # Resumed at 30; the older start had gone to 40.
    (again / 'vis_data' / 'scalars.json').write_text('{"loss": 0.5, "iter": 31, "step": 31}\n')
    (again / 'pseudo_labels.jsonl').write_text(
        (path / '20260101_000000' / 'pseudo_labels.jsonl')
        .read_text()
        .replace('"iter":15', '"iter":38')
        .replace('"start_iter":0', '"start_iter":30')
        .split('{"iter":25')[0]
    )
    run = read_work_dir(path)
    assert [record['iter'] for record in run.losses] == [10, 20, 30, 31]
    assert [record['iter'] for record in run.refreshes] == [15, 25, 38]
    assert len(run.starts) == 2


def start_again(path: Path, first_iter: int) -> None:
    """A start that has logged an iteration, and nothing of ours yet."""
    vis = path / '20260102_000000' / 'vis_data'
    vis.mkdir(parents=True)
    record = dict(loss=0.5, iter=first_iter, step=first_iter)
    (vis / 'scalars.json').write_text(json.dumps(record) + '\n')


def stamp_audit(path: Path, timestamp: str) -> None:
    file = path / 'pseudo_label_audit.json'
    stamped = dict(json.loads(file.read_text()), timestamp=timestamp, iteration=43)
    file.write_text(json.dumps(stamped))


def test_a_new_training_in_the_same_folder_is_alone(tmp_path: Path) -> None:
    path = write_run(tmp_path / 'run')
    stamp_audit(path, '20260101_000000')
    start_again(path, first_iter=5)
    run = read_work_dir(path)
    assert [record['iter'] for record in run.losses] == [5]
    assert run.validations == [] and run.refreshes == [] and run.audit is None
    assert run.classes == [] and run.groups is None and run.expected is None
    assert as_json(run)['iteration'] == 5 and as_json(run)['finished'] is False


def test_an_extended_training_is_not_finished(tmp_path: Path) -> None:
    path = write_run(tmp_path / 'run')
    stamp_audit(path, '20260101_000000')
    assert as_json(read_work_dir(path))['finished'] is True
    assert as_json(read_work_dir(path))['iteration'] == 43, 'the log ends at 40'
    start_again(path, first_iter=45)
    run = read_work_dir(path)
    assert [record['iter'] for record in run.validations] == [20, 40]
    assert [record['iter'] for record in run.refreshes] == [15, 25, 35]
    assert as_json(run)['finished'] is False and run.classes == list(NAMES)
    stamp_audit(path, '20260102_000000')
    assert as_json(read_work_dir(path))['finished'] is True


def test_a_folder_of_a_test_undoes_nothing(tmp_path: Path) -> None:
    path = write_run(tmp_path / 'run')
    stamp_audit(path, '20260101_000000')
    vis = path / '20260103_000000' / 'vis_data'
    vis.mkdir(parents=True)
    (vis / 'scalars.json').write_text('{"teacher/longtail/segm_AP": 0.3, "step": 0}\n')
    run = read_work_dir(path)
    assert [record['iter'] for record in run.validations] == [20, 40]
    assert run.audit is not None


def test_an_audit_without_a_time_stamp_counts(tmp_path: Path) -> None:
    path = write_run(tmp_path / 'run')
    start_again(path, first_iter=45)
    assert read_work_dir(path).audit is not None


def test_without_our_hooks_validations_come_from_mmengines_log(tmp_path: Path) -> None:
    path = write_run(tmp_path / 'run')
    (path / '20260101_000000' / 'validations.jsonl').unlink()
    run = read_work_dir(path)
    # mmengine logs them at step 0, so the iteration is that of the line before.
    assert [record['iter'] for record in run.validations] == [20, 40]
    metrics = run.validations[0]['parts']['teacher']['metrics']
    assert metrics['longtail/segm_AP'] == pytest.approx(0.1)
    assert 'class_AP' not in run.validations[0]['parts']['teacher']


def test_validations_of_a_training_by_epochs(tmp_path: Path) -> None:
    """mmengine logs them at the number of the epoch."""
    folder = tmp_path / '20260101_000000' / 'vis_data'
    folder.mkdir(parents=True)
    records = []
    for epoch in (1, 2, 3):
        records += [
            dict(loss=1.0, epoch=epoch, iter=1000 * epoch, step=1000 * epoch),
            {'longtail/segm_AP': 0.1 * epoch, 'step': epoch},
        ]
    (folder / 'scalars.json').write_text('\n'.join(map(json.dumps, records)))
    assert [record['iter'] for record in read_work_dir(tmp_path).validations] == [1000, 2000, 3000]


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    (tmp_path / '20260101_000000' / 'vis_data').mkdir(parents=True)
    run = read_work_dir(tmp_path)
    assert not run.losses and not run.validations and not run.refreshes and not run.classes


def test_a_moved_checkpoint_is_found(tmp_path: Path) -> None:
    path = write_run(tmp_path / 'run')
    for name in ('iter_20.pth', 'iter_40.pth'):
        torch.save({}, path / name)
        # A coarse clock: written at the same time.
        os.utime(path / name, (1, 1))
    (path / 'last_checkpoint').write_text('/gone/work_dirs/run/iter_20.pth')
    assert read_work_dir(path).checkpoint == path / 'iter_20.pth'
    (path / 'last_checkpoint').unlink()
    assert read_work_dir(path).checkpoint == path / 'iter_40.pth'


def test_what_is_no_work_dir_is_refused(tmp_path: Path) -> None:
    path = write_run(tmp_path / 'work_dirs' / 'run')
    with pytest.raises(FileNotFoundError, match='no folder'):
        read_work_dir(tmp_path / 'nothing')
    with pytest.raises(ValueError, match='is a file'):
        read_work_dir(path / 'pseudo_label_audit.json')
    with pytest.raises(ValueError, match=r'Work directories in it: run\.'):
        read_work_dir(tmp_path / 'work_dirs')
    with pytest.raises(ValueError, match='give the folder above it'):
        read_work_dir(path / '20260101_000000')
    (path / 'pseudo_label_audit.json').write_text(json.dumps(dict(classes=[{}])))
    with pytest.raises(ValueError, match='is not an audit of RareBoost'):
        read_work_dir(path)


def test_a_test_after_the_training_is_no_part_of_it(tmp_path: Path) -> None:
    path = write_run(tmp_path / 'run')
    before = read_work_dir(path)
    later = path / '20260103_000000'
    (later / 'vis_data').mkdir(parents=True)
    (later / 'vis_data' / 'scalars.json').write_text('{"teacher/longtail/segm_AP": 0.3}\n')
    (later / 'vis_data' / 'config.py').write_text('other = True\n')
    log = path / '20260101_000000' / '20260101_000000.log'
    (later / '20260103_000000.log').write_text(log.read_text().replace('2.x', '9.x'))
    run = read_work_dir(path)
    assert run.starts == before.starts == ['20260101_000000']
    assert run.config == before.config and run.environment == before.environment
    # Where nothing has been trained, they are all there is.
    shutil.rmtree(path / '20260101_000000')
    run = read_work_dir(path)
    assert run.starts == ['20260103_000000'] and ('PyTorch', '9.x') in run.environment
