"""The inspect command: its table, its json, its files, its exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from mmdet_softpl.__main__ import main
from mmdet_softpl.cli import inspect
from tests.support.tiny_data import write_data

CLASSES = ('a', 'b', 'c', '[red]d')

CONFIG = """
def coco(split):
    return dict(
        type='CocoDataset',
        data_root='{root}/',
        ann_file=f'annotations/instances_{{split}}2017.json',
        data_prefix=dict(img=f'{{split}}2017/'),
        metainfo=dict(classes={classes!r}),
    )
train_cfg = dict(type='IterBasedTrainLoop', max_iters=100)
train_dataloader = dict(
    batch_size=4,
    sampler=dict(type='MultiSourceSampler', batch_size=4, source_ratio=[1, 1]),
    dataset=dict(type='ConcatDataset', datasets=[
        dict(type='ClassBalancedDataset', oversample_thr=0.9, dataset=coco('train')),
        dict(type='mmdet_softpl.UnlabeledImageDataset', data_root='{root}/unlabeled2017'),
    ]),
)
val_dataloader = dict(dataset=coco('val'))
custom_hooks = [dict(
    type='mmdet_softpl.RareBoostPseudoLabeler',
    labeled_ann_file='{root}/annotations/instances_train2017.json',
)]
del coco
"""


@pytest.fixture()
def root(tmp_path: Path) -> Path:
    return write_data(tmp_path / 'data', CLASSES, num_train=4)


@pytest.fixture()
def config(root: Path, tmp_path: Path) -> str:
    path = tmp_path / 'config.py'
    path.write_text(CONFIG.format(root=root, classes=CLASSES))
    return str(path)


def test_table(config: str, capsys: pytest.CaptureFixture) -> None:
    assert main(['inspect', config]) == 0
    out = capsys.readouterr().out
    # Square brackets are no markup, and nothing is cut off where there is no terminal.
    assert '[red]d' in out
    assert 'ready to train: 0 errors, 0 warnings' in out
    assert 'threshold_mode=prior, alpha=0.2' in out
    assert 'a GPU takes 2 labelled and 2 unlabelled images' in out
    assert max(map(len, out.splitlines())) <= inspect.LOG_WIDTH


def test_json_and_files(config: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / 'new' / 'report'
    assert main(['inspect', config, '--json', '--out', str(out)]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert report == json.loads((out / 'inspect.json').read_text())
    assert report['trains'] and report['findings'] == []
    assert [one['images'] for one in report['sets']] == [4, 4, 2]
    for name in (inspect.CLASS_CURVE, inspect.IMAGE_SIZES):
        assert cv2.imread(str(out / name)).std() > 5
        assert str(out / name) in captured.err


def test_json_stays_json_when_the_file_is_doubted(config: str, root: Path) -> None:
    path = root / 'annotations/instances_train2017.json'
    data = json.loads(path.read_text())
    data['annotations'] = [a for a in data['annotations'] if a['category_id'] != 1]
    path.write_text(json.dumps(data))
    # In a process of its own: the host's logger keeps the stream that it was made with.
    command = [sys.executable, '-m', 'mmdet_softpl', 'inspect', config, '--json', '--no-images']
    done = subprocess.run(command, capture_output=True, text=True)
    report = json.loads(done.stdout)
    assert any(finding['severity'] == 'warning' for finding in report['findings'])
    assert 'no labelled image' in done.stderr


def test_faults(config: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    broken, gone = sorted((root / 'train2017').iterdir())[:2]
    broken.write_bytes(b'no image')
    gone.unlink()
    assert main(['inspect', config, '--out', str(tmp_path / 'out')]) == 1
    out = capsys.readouterr().out
    assert str(broken) in out and str(gone) in out and 'not ready to train: 2 errors' in out
    assert (tmp_path / 'out' / 'inspect.json').is_file()
    assert main(['inspect', config, '--no-images', '--json']) == 1
    report = json.loads(capsys.readouterr().out)
    assert [f['kind'] for f in report['findings']] == ['missing image']
    assert not report['images_read']


def test_a_data_error_hides_no_bad_setting(
    config: str, root: Path, capsys: pytest.CaptureFixture
) -> None:
    path = root / 'annotations' / 'instances_train2017.json'
    data = json.loads(path.read_text())
    data['annotations'][0]['bbox'] = [1, 1, 0, 0]
    path.write_text(json.dumps(data))
    text = Path(config).read_text()
    Path(config).write_text(
        text.replace('custom_hooks = [dict(', "custom_hooks = [dict(threshold_mode='priors', ")
    )
    assert main(['inspect', config, '--json']) == 1
    found = {f['kind']: f for f in json.loads(capsys.readouterr().out)['findings']}
    assert "threshold_mode='priors'" in str(found['refused setting'])
    assert len(found) > 1 and any('bbox' in str(f) for f in found.values())


def test_nothing_is_there(config: str, root: Path, capsys: pytest.CaptureFixture) -> None:
    root.rename(root.with_name('elsewhere'))
    assert main(['inspect', config, '--out', str(root.parent / 'out')]) == 1
    out = capsys.readouterr().out
    assert out.count('does not exist') >= 4 and 'Traceback' not in out


def test_warnings_keep_zero(config: str, root: Path, capsys: pytest.CaptureFixture) -> None:
    copy = (root / 'train2017/000000000001.jpg').read_bytes()
    (root / 'unlabeled2017/copy.jpg').write_bytes(copy)
    assert main(['inspect', config]) == 0
    assert 'labelled, unlabelled: images in both sets' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        (None, 'there is no such config'),
        ('_base_ = "nowhere.py"', 'nowhere.py'),
        ('x = 1\ny = (', "cannot be read: '(' was never closed, line 2"),
        ('custom_imports = dict(imports=["no_such_module"])', 'no_such_module'),
    ],
)
def test_no_config(text, said, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / 'config.py'
    if text is not None:
        path.write_text(text)
    assert main(['inspect', str(path)]) == 2
    error = capsys.readouterr().err
    assert str(path) in error and said in error


def test_out_is_a_file(config: str, capsys: pytest.CaptureFixture) -> None:
    assert main(['inspect', config, '--out', config]) == 2
    assert 'give a folder' in capsys.readouterr().err


def test_interrupt_writes_nothing(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def interrupt(path: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr('mmdet_softpl.datasets.image_scan.scan_image', interrupt)
    assert main(['inspect', config, '--out', str(tmp_path / 'out')]) == 130
    assert not (tmp_path / 'out').exists()


def test_a_setting_that_training_refuses(config: str, capsys: pytest.CaptureFixture) -> None:
    text = Path(config).read_text()
    Path(config).write_text(
        text.replace('    labeled_ann', '    thr_range=(0.9, 0.2), labeled_ann')
    )
    assert main(['inspect', config]) == 1
    out = capsys.readouterr().out
    assert 'thr_range[1] must lie in [0.9, 1], got 0.2' in out
    assert 'not derived before the errors are gone' in out
    assert 'no RareBoostPseudoLabeler' not in out and 'not ready to train: 1 errors' in out
