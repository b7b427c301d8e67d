"""pilot: the documented commands, interrupted halfway, and wrong input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import pytest

from mmdet_softpl.__main__ import BAD_INPUT, INTERRUPTED, main
from mmdet_softpl.engine import short_training
from tests.support.tiny_pilot import documented_command, make_folder

# The documented command in miniature: argparse takes the last of two.
SMALL = ['--shares', '60', '100', '--seeds', '1', '--iters', '2', '--bootstrap', '20']
PICTURES = ('returns.png', 'thresholds.png', 'reliability.png', 'sensitivity.png')


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp('pilot'))


@pytest.fixture(autouse=True)
def _inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.mark.slow
def test_documented_commands(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """One after the other: the second one uses the trainings of the first."""
    arguments = [*documented_command('pilot.md', 'pilot'), *SMALL]
    plain, trained = short_training.Runner.train, []

    def train(runner):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(runner.work_dir)
        return plain(runner)

    with monkeypatch.context() as patch:
        patch.setattr(short_training.Runner, 'train', train)
        assert main(arguments) == INTERRUPTED
    out = folder / 'work_dirs' / 'pilot'
    assert not (out / 'pilot.json').exists()
    first = list(trained)
    trained.clear()
    with monkeypatch.context() as patch:
        patch.setattr(
            short_training.Runner, 'train', lambda r: trained.append(r.work_dir) or plain(r)
        )
        assert main(arguments) == 0
    assert len(first) == len(trained) == 2 and not set(first) & set(trained)

    result = json.loads((out / 'pilot.json').read_text())
    assert [run['name'] for run in result['runs']] == [
        '60-labelled-0',
        '60-semi-0',
        '100-labelled-0',
        '100-semi-0',
    ]
    sizes = {run['labelled_images'] for run in result['runs']}
    assert sizes == {17, 28}
    assert set(result['returns']) == {'segm_AP', 'segm_APr'}
    assert all(len(records) == 2 for records in result['returns'].values())
    assert result['sensitivity']['alpha'] and result['thresholds']
    assert result['held_out_images'] == 8
    assert '100-semi-0' in result['checkpoint']
    for name in PICTURES:
        picture = cv2.imread(str(out / name))
        assert picture is not None and picture.std() > 5, name
    page = (out / 'pilot.md').read_text()
    for name in PICTURES:
        assert f']({name})' in page
    assert 'One training of each' in page and '100-semi-0' in page
    printed = capsys.readouterr()
    assert 'mask AP' in printed.out and str(Path('work_dirs/pilot/pilot.md')) in printed.out

    # Labelled alone is just that: the same steps, and no pseudo-label was ever looked at.
    audits = {
        name: json.loads((out / 'runs' / name / 'pseudo_label_audit.json').read_text())
        for name in ('100-labelled-0', '100-semi-0')
    }
    assert audits['100-labelled-0']['unlabelled_images_seen'] == 0
    assert audits['100-semi-0']['unlabelled_images_seen'] > 0

    # Another pilot in the same folder would take these trainings for its own.
    assert main([*arguments, '--iters', '3']) == BAD_INPUT
    assert 'with other --iters' in capsys.readouterr().err

    for name, kind in (('a', '60-labelled-0'), ('b', '100-labelled-0'), ('c', '60-semi-0')):
        shutil.copytree(out / 'runs' / kind, folder / 'work_dirs' / name)
        path = folder / 'work_dirs' / name / 'last_checkpoint'
        path.write_text(str(folder / 'work_dirs' / name / 'iter_2.pth'))
    arguments = [*documented_command('pilot.md', 'runs'), '--bootstrap', '0', '--json']
    assert main(arguments) == 0
    given = json.loads(capsys.readouterr().out)
    assert [run['metrics'] for run in given['runs']] == [
        next(run['metrics'] for run in result['runs'] if run['name'] == name)
        for name in ('60-labelled-0', '100-labelled-0', '60-semi-0')
    ]
    (found,) = given['returns']['segm_AP']
    assert (found['low'], found['high'], found['verdict']) == (None, None, 'cannot tell')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['my_config.py', '--shares', '0'], '--shares'),
        (['my_config.py', '--shares', '1'], 'too few'),
        (['my_config.py', '--seeds', '0'], '--seeds'),
        (['my_config.py', '--seconds-per-instance', '0'], '--seconds-per-instance'),
        (['my_config.py', '--runs', 'work_dirs/parts'], 'KIND:WORK_DIR'),
        (['my_config.py', '--runs', 'semi:none'], 'no folder'),
        (['my_config.py', '--runs', 'semi:none', '--iters', '9'], 'leave one of the two out'),
        (['my_config.py', '--runs', 'semi:work_dirs/parts'], '0 configs'),
        (['none.py'], 'no such config'),
        (['data/annotations/val.json'], 'annotation json'),
        (['broken.py'], 'broken.py: the config cannot be read'),
        (['my_config.py', '--runs', 'semi:other_classes'], 'other_train.json'),
        (['my_config.py', '--runs', 'labelled:known'], 'call it semi:known'),
        (['my_config.py', '--runs', 'semi:known', 'semi:./known/'], 'same folder as semi:known'),
        (['no_burn_in.py'], 'BurnInMeanTeacherHook'),
        (['other_labels.py'], 'no training set reads'),
        (['no_images.py'], 'give the folder of its images'),
        (['my_config.py', '--held-out', 'none.json', '--held-out-images', 'data/val'], 'none.json'),
        (
            ['my_config.py', '--held-out', 'boxes.json', '--held-out-images', 'data/val'],
            'polygon or RLE',
        ),
        (['my_config.py', '--held-out', 'turned.json', '--held-out-images', 'data/val'], 'order'),
    ],
)
def test_mistakes(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    text = (folder / 'my_config.py').read_text()
    (folder / 'no_burn_in.py').write_text(text + '\ncustom_hooks = custom_hooks[1:]\n')
    (folder / 'no_images.py').write_text(
        text + '\nval_dataloader["dataset"]["data_prefix"] = dict(img="data/train/")\n'
    )
    (folder / 'broken.py').write_text('model = dict(')
    data = json.loads((folder / 'data/annotations/train.json').read_text())
    data['categories'][0]['name'] = 'zebra'
    (folder / 'other_train.json').write_text(json.dumps(data))
    data = json.loads((folder / 'data/annotations/val.json').read_text())
    turned = dict(data, categories=data['categories'][::-1])
    (folder / 'turned.json').write_text(json.dumps(turned))
    for annotation in data['annotations']:
        del annotation['segmentation']
    (folder / 'boxes.json').write_text(json.dumps(data))
    (folder / 'other_classes').mkdir(exist_ok=True)
    (folder / 'other_classes' / 'config.py').write_text(
        text + '\ncustom_hooks[1]["labeled_ann_file"] = "other_train.json"\n'
    )
    (folder / 'known').mkdir(exist_ok=True)
    (folder / 'known' / 'config.py').write_text(text)
    shutil.copy(folder / 'work_dirs/parts/iter_20000.pth', folder / 'known')
    other = '\ncustom_hooks[1]["labeled_ann_file"] = "data/annotations/val.json"\n'
    (folder / 'other_labels.py').write_text(text + other)
    assert main(['pilot', *arguments, '--out', 'wrong']) == BAD_INPUT
    error = capsys.readouterr().err
    assert message in error and 'Traceback' not in error
    assert not list((folder / 'wrong').rglob('*.pth')), 'trained before it complained'
    assert not list((folder / 'wrong').rglob('pilot.*'))
    shutil.rmtree(folder / 'wrong', ignore_errors=True)
