"""Runs of the benchmark: shared first parts, interruption and resume, refusals, scheduling."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.longtail import command, schedule
from benchmarks.longtail.arms import ARMS
from benchmarks.longtail.data import SPLITS, TINY, make_data
from benchmarks.longtail.hooks import Cost
from benchmarks.longtail.job import Job, claim, run_job
from benchmarks.longtail.presets import PRESETS
from benchmarks.longtail.proxy import proxies
from benchmarks.longtail.rebalance import METRICS, rebalanced
from benchmarks.longtail.results import Table, collect
from benchmarks.longtail.schedule import duration, jobs_of, run_jobs, seconds_left, work_of
from mmdet_softpl.engine.rebalancing import GAMMAS

# Few pictures, and labels from the first unlabelled image on.
TINY_PRESET = replace(
    PRESETS['tiny'],
    data=replace(TINY, num_train=40, num_unlabeled=8, extra_splits=(('tune', 4), ('test', 4))),
    curve_images=2,
    pseudo_images=2,
)


@pytest.fixture(scope='module')
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data')
    make_data(root, TINY_PRESET.data, workers=1)
    return root


@pytest.fixture(autouse=True)
def _eager_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of eight iterations is sure of nothing: take every label it makes."""
    from benchmarks.longtail import arms

    original = arms.arm_config

    def eager(*args: Any) -> Any:
        cfg = original(*args)
        cfg.model.semi_train_cfg.update(score_thr=0.0, score_floor=0.01, objectness_thr=0.0)
        cfg.custom_hooks[2].update(fixed_thr=0.0, thr_range=(0.0, 0.9))
        return cfg

    monkeypatch.setattr(arms, 'arm_config', eager)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / 'final.pth', weights_only=True)['state_dict']


def run(job: Job, out: Path, data_root: Path) -> dict[str, torch.Tensor]:
    run_job(job, TINY_PRESET, out, data_root, SPLITS)
    return weights(job.folder(out))


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.slow
def test_end_to_end(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arm 8 on a shared burn-in, stopped and resumed, equals arm 8 on the stem in one piece."""
    job = Job('8', 0)
    burn_in = job.needs
    assert burn_in is not None and burn_in == Job('2', 0, 'burn-in')
    stem = burn_in.needs
    assert stem is not None and stem == Job('0', 0, 'stem') and stem.needs is None
    shared, whole = tmp_path / 'shared', tmp_path / 'whole'
    run(stem, shared, data_root)
    run(burn_in, shared, data_root)
    assert burn_in.is_done(shared, SPLITS)

    after_train_iter = Cost.after_train_iter

    def stop(self: Cost, runner: Any, *args: Any, **kwargs: Any) -> None:
        if runner.iter == 6:
            raise KeyboardInterrupt
        after_train_iter(self, runner, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Cost, 'after_train_iter', stop)
        with pytest.raises(KeyboardInterrupt):
            run_job(job, TINY_PRESET, shared, data_root, SPLITS)
    assert (job.folder(shared) / 'iter_6.pth').is_file()
    # mmengine's `last_checkpoint` names the old place.
    shared = shared.rename(tmp_path / 'moved')
    assert not Path((job.folder(shared) / 'last_checkpoint').read_text()).exists()
    starts = []

    def started(self: Cost, runner: Any) -> None:
        starts.append(runner.iter)

    with monkeypatch.context() as patch:
        patch.setattr(Cost, 'before_train', started)
        resumed = run(job, shared, data_root)
    assert starts == [6]
    assert not list(job.folder(shared).glob('iter_*.pth'))

    shutil.copytree(stem.folder(shared), stem.folder(whole))
    with monkeypatch.context() as patch:
        patch.setattr(Job, 'needs', stem)
        expected = run(job, whole, data_root)
    assert_same(resumed, expected)
    # Otherwise equal weights would say little.
    state = weights(burn_in.folder(shared)), resumed
    name = 'student.roi_head.bbox_head.fc_cls.weight'
    assert not torch.allclose(state[0][name], state[1][name], atol=1e-3)
    assert resumed['class_state.reliability'].sum() > 0

    curves = json.loads((job.folder(shared) / 'curves.json').read_text())
    assert sorted(curves, key=int) == ['4', '6', '8']
    table = Table(collect('tiny', shared), 'tiny')
    for split, metric in (
        ('test', 'segm_AP'),
        ('test', 'segm_APr_fixed'),
        ('tune', 'bbox_AP50'),
        ('unlabeled', 'rare_pseudo_count'),
        ('train', 'semi_seconds'),
    ):
        assert table.by_seed('8', split, metric).keys() == {0}, metric
    cost = json.loads((job.folder(shared) / 'cost.json').read_text())
    assert 0 < cost['semi_seconds'] < cost['seconds']

    # Finished: nothing is done again, but a lost result is.
    before = (job.folder(shared) / 'final.pth').stat().st_mtime_ns
    (job.folder(shared) / 'test.json').unlink()
    run_job(job, TINY_PRESET, shared, data_root, SPLITS)
    assert (job.folder(shared) / 'test.json').is_file()
    assert (job.folder(shared) / 'final.pth').stat().st_mtime_ns == before

    # What tune's proxy says of arms that start from this burn-in: 5 looks at one view, 7 at two.
    checkpoint = burn_in.folder(shared) / 'final.pth'
    found = proxies(['5', '7'], TINY_PRESET, 0, checkpoint, data_root, tmp_path / 'dumps')
    assert found.keys() == {'5', '7'}
    assert all(0 <= values['proxy'] <= 1 for values in found.values())
    assert len(list((tmp_path / 'dumps').iterdir())) == 2

    # A network that finds nothing is left as it is, and so are its results.
    rebalance = rebalanced(job, TINY_PRESET, shared, data_root)
    assert len(rebalance['curve']) == len(GAMMAS) and rebalance['gamma'] == 0
    for split, changed in rebalance['metrics'].items():
        plain = json.loads((job.folder(shared) / f'{split}.json').read_text())['metrics']
        assert changed == {key: plain[key] for key in METRICS}

    note = burn_in.folder(shared) / 'settings.json'
    settings = json.loads(note.read_text())
    settings['optim_wrapper']['optimizer']['lr'] = 0.5
    note.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r'burn-in.*optimizer\.lr: 0\.5, now 0\.001'):
        run_job(job, TINY_PRESET, shared, data_root, SPLITS)
    with pytest.raises(ValueError, match='max_iters'):
        run_job(job, replace(TINY_PRESET, max_iters=9), shared, data_root, SPLITS)


@pytest.mark.slow
@pytest.mark.parametrize('arm', ['0', '3', '7-heldout', '7-seesaw'])
def test_other_arms_run(arm: str, data_root: Path, tmp_path: Path) -> None:
    job = Job(arm, 0)
    assert job.needs is not None and job.needs.needs is not None
    run(job.needs.needs, tmp_path, data_root)
    run(job.needs, tmp_path, data_root)
    final = run(job, tmp_path, data_root)
    assert all(torch.isfinite(value.float()).all() for value in final.values())
    table = Table(collect('tiny', tmp_path), 'tiny')
    assert table.by_seed(arm, 'test', 'segm_AP').keys() == {0}
    audit = job.folder(tmp_path) / 'pseudo_label_audit.json'
    assert (json.loads(audit.read_text())['unlabelled_images_seen'] > 0) == (arm != '0')


def test_other_settings_are_named(tmp_path: Path) -> None:
    claim(tmp_path, dict(a=dict(b=1)))
    claim(tmp_path, dict(a=dict(b=1)))
    with pytest.raises(ValueError, match=r'a\.b: 1, now 2.*Remove that folder'):
        claim(tmp_path, dict(a=dict(b=2)))


def test_a_folder_has_one_preset_and_one_owner(tmp_path: Path) -> None:
    with (
        command.claimed(tmp_path, PRESETS['tiny']),
        pytest.raises(BlockingIOError, match='another benchmark'),
        command.claimed(tmp_path, PRESETS['tiny']),
    ):
        pass
    with (
        pytest.raises(ValueError, match=rf'preset\.max_iters: 8, now {PRESETS["cpu"].max_iters}'),
        command.claimed(tmp_path, PRESETS['cpu']),
    ):
        pass
    # How many arms, seeds and processes does not matter.
    with command.claimed(tmp_path, replace(PRESETS['tiny'], seeds=5, processes=1)):
        pass


@pytest.mark.slow
def test_a_plain_run_in_three_parts_is_one_supervised_run(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job('0', 0)
    parts, whole = tmp_path / 'parts', tmp_path / 'whole'
    assert job.needs is not None and job.needs.needs is not None
    run(job.needs.needs, parts, data_root)
    run(job.needs, parts, data_root)
    found = run(job, parts, data_root)
    with monkeypatch.context() as patch:
        patch.setattr(Job, 'needs', None)
        expected = run(job, whole, data_root)
    assert_same(found, expected)


def test_jobs_share_first_parts_and_go_seed_by_seed() -> None:
    jobs = jobs_of(['0', '3', '8'], [0, 1])
    names = [job.name for job in jobs]
    one = ['stem-uniform-draws-seed0', 'burn-in-plain-seed0', 'burn-in-similarity-seed0']
    one += ['arm-0-seed0', 'arm-3-seed0', 'arm-8-seed0']
    assert names == one + [name.replace('seed0', 'seed1') for name in one]
    everything = jobs_of(list(ARMS), [0])
    shared = {arm.burn_in for arm in ARMS.values()}, {arm.stem for arm in ARMS.values()}
    assert len({job.name for job in everything}) == len(everything)
    assert len(everything) == len(ARMS) + sum(map(len, shared))


def finish(job: Job, out: Path) -> None:
    folder = job.folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ('final.pth', 'tune.json', 'test.json', 'pseudo.json'):
        (folder / name).write_text('{}')


def test_jobs_wait_for_their_burn_in_and_a_failure_stops_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    def start(job: Job, preset: Any, out: Path, *rest: Any) -> subprocess.Popen:
        if job.needs is not None:
            assert job.needs.is_done(out, SPLITS)
        started.append(job.name)
        fails = job.name == 'burn-in-similarity-seed0'
        job.folder(out).mkdir(parents=True, exist_ok=True)
        schedule.log_file(job, out).write_text('first\nlast words\n')
        if not fails:
            finish(job, out)
        return subprocess.Popen([sys.executable, '-c', f'raise SystemExit({int(fails)})'])

    monkeypatch.setattr(schedule, 'start', start)
    monkeypatch.setattr(schedule, 'POLL_SECONDS', 0.01)
    lines: list[str] = []
    jobs = jobs_of(['0', '3', '8'], [0])
    finish(Job('0', 0, 'stem'), tmp_path)
    finish(Job('3', 0), tmp_path)

    def go() -> list[Job]:
        return run_jobs(
            jobs, TINY_PRESET, tmp_path, tmp_path, SPLITS, 2, 'cpu', lines.append, lambda: 60.0
        )

    assert go() == [Job('2', 0, 'burn-in'), Job('8', 0)]
    # Arm 3 was finished before, arm 8 never began.
    assert sorted(started) == ['arm-0-seed0', 'burn-in-plain-seed0', 'burn-in-similarity-seed0']
    assert any('failed' in line and 'last words' in line for line in lines)
    started.clear()
    go()
    assert started == ['burn-in-similarity-seed0']


def test_the_estimate_is_work_times_measured_seconds(tmp_path: Path) -> None:
    preset = replace(
        PRESETS['cpu'], stem_iters=500, supervised_iters=2000, max_iters=5000, curve_interval=700
    )
    defaults = dict(supervised=1.0, semi=3.0, image=0.5)
    burn_in, job = Job('2', 0, 'burn-in'), Job('8', 0)
    semi = 3000
    # At 2000, 2100, 2800, 3500, 4200, 4900 and the end.
    points = 7
    images = 1600 + preset.data.num_unlabeled
    images += points * (preset.curve_images + preset.pseudo_images)
    assert work_of(burn_in, preset, tmp_path, SPLITS).left == {'supervised': 1500}
    assert work_of(Job('0', 0, 'stem'), preset, tmp_path, SPLITS).left == {'supervised': 500}
    assert work_of(job, preset, tmp_path, SPLITS).left == {'semi': semi, 'image': images}
    assert work_of(Job('0', 0), preset, tmp_path, SPLITS).left == {
        'supervised': semi,
        'image': images,
    }
    both = 1500 + 3.0 * semi + 0.5 * images + 2 * schedule.START_SECONDS

    def left(processes: int = 1) -> float:
        jobs = [burn_in, job]
        return seconds_left(jobs, preset, tmp_path, SPLITS, processes, defaults)

    assert left() == pytest.approx(both)
    # One run cannot be split over two processes.
    assert left(2) == pytest.approx(3.0 * semi + 0.5 * images + schedule.START_SECONDS)
    finish(burn_in, tmp_path)
    state = dict(stage='train', done=2000, total=2000, seconds=dict(supervised=2.0))
    (burn_in.folder(tmp_path) / 'progress.json').write_text(json.dumps(state))
    # Twice as slow as thought, so the other kind is taken to be too.
    assert left() == pytest.approx(6.0 * semi + 0.5 * images + schedule.START_SECONDS)
    finish(job, tmp_path)
    assert left() == 0


def test_durations() -> None:
    assert [duration(s) for s in (0, 59, 125, 3600, 7500)] == [
        '1 min',
        '1 min',
        '2 min',
        '1 h 00 min',
        '2 h 05 min',
    ]


def test_the_command_line(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(['--help'])
    assert stopped.value.code == 0
    assert 'example' in capsys.readouterr().out


def test_the_commands_of_the_readme_parse(repository: Path) -> None:
    text = (repository / 'benchmarks/longtail/README.md').read_text()
    prefix = 'python benchmarks/longtail/run.py '
    lines = [line for line in text.splitlines() if line.startswith(prefix)]
    assert len(lines) == 2
    for line in lines:
        args = command.parser().parse_args(line.removeprefix(prefix).split())
        assert args.out == Path('work_dirs/my_runs')
    for arm in ARMS:
        assert arm in text


def test_a_wrong_number_of_processes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert command.main(['--preset', 'tiny', '--out', str(tmp_path), '--processes', '-1']) == 2
    assert '--processes -1' in capsys.readouterr().err


def test_no_report_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A mistyped folder, or a preset that never ran, would give a page of empty tables."""
    assert command.main(['--preset', 'gpu', '--report-only', '--out', str(tmp_path / 'typo')]) == 2
    assert 'there is no run in' in capsys.readouterr().err
    assert not (tmp_path / 'typo').exists()
