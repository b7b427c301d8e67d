"""The new-config command: what it writes trains as it is; what it refuses leaves nothing."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from mmdet_softpl.__main__ import main
from mmdet_softpl.cli.new_config import QUESTIONS, REQUIRED
from tests.support.tiny_data import write_data
from tests.support.tiny_runs import assert_trained, make_tiny, train

# A quote, another script, and braces that no template may take for its own.
CLASSES = ("rider's bag", 'дерево', '{c}', 'd')


@pytest.fixture()
def paths(tmp_path: Path) -> dict[str, str]:
    root = write_data(tmp_path / 'data', CLASSES, num_train=8)
    for split in ('train', 'val'):
        path = root / f'annotations/instances_{split}2017.json'
        data = json.loads(path.read_text())
        for item in data['categories']:
            item['id'] = 100 - 3 * item['id']
        for item in data['annotations']:
            item['category_id'] = 100 - 3 * item['category_id']
        path.write_text(json.dumps(data))
    return dict(
        labeled_json=str(root / 'annotations/instances_train2017.json'),
        labeled_images=str(root / 'train2017'),
        unlabeled_images=str(root / 'unlabeled2017'),
        val_json=str(root / 'annotations/instances_val2017.json'),
        val_images=str(root / 'val2017'),
    )


def _arguments(paths: dict[str, str], out: Path, *more: str) -> list[str]:
    given = [a for name in paths for a in (f'--{name.replace("_", "-")}', paths[name])]
    return ['new-config', *given, '--out', str(out), *more]


@pytest.mark.parametrize(
    'arch', ['mask-rcnn_r50', pytest.param('cascade-mask-rcnn_r50', marks=pytest.mark.slow)]
)
def test_trains_as_it_is(
    arch: str, paths: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / 'own.py'
    assert main(_arguments(paths, out, '--arch', arch)) == 0
    said = capsys.readouterr().out
    assert f'{out}: {arch}, 4 classes, 8 labelled and 4 unlabelled images' in said
    assert f'inspect {out}' in said and f'mim train mmdet {out}' in said

    assert main(['inspect', str(out), '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    assert [f for f in report['findings'] if f['severity'] == 'error'] == []
    assert [c['name'] for c in report['classes']] == list(CLASSES)

    # The override of a tiny training: a narrow network, a few iterations.
    cfg = make_tiny(Config.fromfile(out), tmp_path / 'data', tmp_path / 'work')
    runner, losses, metrics = train(cfg)
    assert_trained(losses, metrics)
    audit = json.loads((tmp_path / 'work/pseudo_label_audit.json').read_text())
    assert [c['name'] for c in audit['classes']] == list(CLASSES)
    assert audit['unlabelled_images_seen'] == len(losses) - 1
    assert runner.train_dataloader.dataset.datasets[0].metainfo['classes'] == CLASSES


def test_json(paths: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / 'own.py'
    arguments = _arguments(paths, out, '--json', '--gpus', '2', '--gpu-memory', '3')
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['config'] == str(out) and report['classes'] == list(CLASSES)
    assert report['plan']['batch'] == Config.fromfile(out).train_dataloader.batch_size * 2


def test_several_gpus_and_warnings(
    paths: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    paths['unlabeled_images'] = paths['val_images']
    paths['unlabeled_json'] = paths['val_json']
    assert main(_arguments(paths, tmp_path / 'own.py', '--gpus', '4', '--gpu-memory', '1')) == 0
    captured = capsys.readouterr()
    assert '--gpus 4 --launcher pytorch' in captured.out
    assert 'unlabelled, validation: images in both sets' in captured.err
    assert '--gpu-memory 1' in captured.err


def test_one_folder_of_everything(
    paths: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    together = tmp_path / 'all'
    for split in ('labeled', 'unlabeled', 'val'):
        shutil.copytree(paths[f'{split}_images'], together, dirs_exist_ok=True)
        paths[f'{split}_images'] = str(together)
    out = tmp_path / 'own.py'
    assert main(_arguments(paths, out)) == 0
    assert 'own-unlabeled.json: the 4 images' in capsys.readouterr().out
    assert main(['inspect', str(out), '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    assert [f for f in report['findings'] if f['severity'] == 'error'] == []
    assert not any('both sets' in f['kind'] for f in report['findings'])
    assert {one['role']: one['used_images'] for one in report['sets']}['unlabelled'] == 4
    # The list is kept unless one says so, as the config is.
    out.unlink()
    assert main(_arguments(paths, out)) == 2
    assert 'own-unlabeled.json: exists already' in capsys.readouterr().err
    assert not out.exists()
    assert main(_arguments(paths, out, '--force')) == 0


def test_calibrates_on_held_out_images(
    paths: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    labelled = Path(paths['labeled_json'])
    options = ['--percent', '60', '--held-out', '--out', str(tmp_path)]
    assert main(['split', str(labelled), *options]) == 0
    fit, held_out = sorted(tmp_path.glob('*60*.json'), key=lambda path: 'heldout' in path.name)
    given = dict(paths, labeled_json=str(fit), held_out_json=str(held_out))
    out = tmp_path / 'own.py'
    assert main(_arguments(given, out)) == 0
    cfg = make_tiny(Config.fromfile(out), tmp_path / 'data', tmp_path / 'work')
    runner, losses, metrics = train(cfg)
    assert_trained(losses, metrics)
    assert runner.model.held_out
    seen = runner.model.class_state.reliability.sum()
    assert seen > 0
    capsys.readouterr()

    # The labelled images themselves are none.
    out.unlink()
    assert main(_arguments(dict(given, held_out_json=str(fit)), out)) == 2
    assert 'labelled, held-out: images in both sets' in capsys.readouterr().err
    given['held_out_json'] = paths['labeled_images']
    assert main(_arguments(given, tmp_path / 'other.py')) == 2
    assert 'swapped with --labeled-images' in capsys.readouterr().err


def test_asks_on_a_terminal(
    paths: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    given = {name: paths.pop(name) for name in ('labeled_json', 'labeled_images')}
    # An empty answer and the wrong one are asked for again.
    answers = ['', given['labeled_images'], given['labeled_json'], given['labeled_images']]
    # So is an unknown detector, and what is no number. An empty answer is the usual one.
    answers += ['yolo', 'cascade-mask-rcnn_r101', 'two', '2', '']
    terminal = io.StringIO('\n'.join(answers) + '\n')
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, 'stdin', terminal)
    out = tmp_path / 'own.py'
    assert main(_arguments(paths, out)) == 0
    captured = capsys.readouterr()
    assert captured.out.count(QUESTIONS['labeled_json']) == 3
    assert 'swapped with --labeled-images' in captured.err
    assert captured.out.count('number of GPUs, 0 for the CPU [1]') == 2
    assert (
        'GB of memory of one GPU [24]' in captured.out and 'name of the config' not in captured.out
    )
    assert "'yolo' is none of" in captured.err and "'two' is no number" in captured.err
    assert '2 GPUs of 24 GB' in captured.out
    cfg = Config.fromfile(out)
    assert cfg.labeled_ann_file == given['labeled_json']
    assert len(cfg.model.detector.roi_head.bbox_head) == 3
    assert cfg.model.detector.backbone.depth == 101

    # Nobody answers any more.
    assert main(_arguments(paths, tmp_path / 'other.py')) == 2
    assert 'nothing was written' in capsys.readouterr().err
    assert not (tmp_path / 'other.py').exists()


def test_names_what_is_missing_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, 'stdin', io.StringIO())
    assert main(['new-config', '--out', str(tmp_path / 'own.py')]) == 2
    error = capsys.readouterr().err
    assert all(f'--{name.replace("_", "-")} PATH' in error for name in REQUIRED)


@pytest.mark.parametrize(
    ('name', 'said'),
    [
        ('exists.py', '--force'),
        ('config.json', 'ends in .py'),
        ('nowhere/own.py', 'make it'),
        ('folder.py', 'a folder'),
    ],
)
def test_out(
    name: str, said: str, paths: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / 'exists.py').write_text('x = 1')
    (tmp_path / 'folder.py').mkdir()
    assert main(_arguments(paths, tmp_path / name)) == 2
    assert said in capsys.readouterr().err
    assert (tmp_path / 'exists.py').read_text() == 'x = 1'


def test_a_folder_that_cannot_be_written_to(
    paths: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch
) -> None:
    def refused(**kwargs: object) -> None:
        raise PermissionError(13, 'Permission denied', '.temporary.py')

    monkeypatch.setattr('tempfile.mkstemp', refused)
    out = tmp_path / 'x.py'
    assert main(_arguments(paths, out)) == 2
    assert f'{out} cannot be written: Permission denied' in capsys.readouterr().err


def test_force_replaces(paths: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / 'own.py'
    out.write_text('x = 1')
    assert main(_arguments(paths, out, '--force')) == 0
    assert 'labeled_ann_file' in out.read_text()


def test_bad_data_leaves_nothing(
    paths: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    before = sorted(tmp_path.iterdir())
    swapped = dict(paths, labeled_json=paths['labeled_images'])
    assert main(_arguments(swapped, tmp_path / 'own.py')) == 2
    assert 'swapped' in capsys.readouterr().err
    Path(paths['labeled_images'], '000000000002.jpg').write_bytes(b'no image')
    assert main(_arguments(paths, tmp_path / 'own.py')) == 2
    assert '000000000002.jpg (not an image)' in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_a_class_that_a_config_cannot_hold(
    paths: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """mmengine puts values of its own in the place of some names in braces."""
    for key in ('labeled_json', 'val_json'):
        data = json.loads(Path(paths[key]).read_text())
        data['categories'][1]['name'] = 'in {{ fileDirname }}'
        Path(paths[key]).write_text(json.dumps(data))
    before = sorted(tmp_path.iterdir())
    assert main(_arguments(paths, tmp_path / 'own.py')) == 2
    message = capsys.readouterr().err
    assert paths['labeled_json'] in message and "'in {{ fileDirname }}' would be" in message
    assert sorted(tmp_path.iterdir()) == before


def test_a_config_that_cannot_be_read_is_not_left_behind(
    paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        'mmdet_softpl.datasets.config_text.config_text', lambda *args, **kwargs: "_base_ = 'none'"
    )
    before = sorted(tmp_path.iterdir())
    assert main(_arguments(paths, tmp_path / 'own.py')) == 2
    assert sorted(tmp_path.iterdir()) == before
