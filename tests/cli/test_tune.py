"""tune: the documented command, that it goes on, what it says of wrong input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import pytest
from mmengine.config import Config

from mmdet_softpl.__main__ import BAD_INPUT, INTERRUPTED, main
from mmdet_softpl.engine.config_parts import labeller_of
from mmdet_softpl.engine.short_training import VALIDATIONS, read_validations, train_or_resume
from mmdet_softpl.evaluation import label_search
from tests.support.tiny_pilot import documented_command, make_folder

pytest.importorskip('optuna')
FEW = ['--trials', '3']
CHECKPOINT = ['--checkpoint', 'work_dirs/parts/iter_20000.pth']
IMAGES = ['--held-out-images', 'data/val']


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp('tune'))


@pytest.fixture(autouse=True)
def _inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def test_documented_command(folder: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = documented_command('tune.md', 'tune')
    assert main([*arguments, *FEW]) == 0
    out = folder / 'work_dirs' / 'tune'
    result = json.loads((out / 'tune.json').read_text())
    assert len(result['trials']) == 3
    assert result['images'] == dict(tune=4, report=4)
    assert result['trials'][0]['settings'] == result['start']
    assert any(trial['on_front'] for trial in result['trials'])
    picture = cv2.imread(str(out / 'tune.png'))
    assert picture is not None and picture.std() > 5
    # The new config is the old one with the new settings.
    tuned, own = Config.fromfile(out / 'my_config_tuned.py'), Config.fromfile('my_config.py')
    hook, old = labeller_of(tuned)[1], labeller_of(own)[1]
    assert hook.threshold_mode == result['best']['threshold_mode']
    assert hook.boost_gamma == pytest.approx(result['best']['boost_gamma'], abs=1e-4)
    assert hook.labeled_ann_file == old.labeled_ann_file
    assert tuned.model.semi_train_cfg.calibration == result['best']['calibration']
    assert tuned.model.semi_train_cfg.score_floor == own.model.semi_train_cfg.score_floor
    assert len(tuned.custom_hooks) == len(own.custom_hooks)
    printed = capsys.readouterr()
    assert 'cannot tell' in printed.out and str(out.name) in printed.out
    # The validation set is balanced, the labelled one is not.
    assert 'weighted by class' in printed.err

    # Again: nothing is looked at or tried, and --json says the same.
    dumps = sorted(path.stat().st_mtime_ns for path in out.rglob('shard-*'))
    assert main([*arguments, *FEW, '--json']) == 0
    said = json.loads(capsys.readouterr().out)
    assert said['trials'] == json.loads((out / 'tune.json').read_text())['trials']
    assert sorted(path.stat().st_mtime_ns for path in out.rglob('shard-*')) == dumps


def test_interrupted_search_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    plain = label_search.LabelSearch.tune

    def tune(self, settings):
        tried.append(1)
        if len(tried) == 2:
            raise KeyboardInterrupt
        return plain(self, settings)

    arguments = ['tune', 'my_config.py', *CHECKPOINT, *FEW]
    arguments += ['--out', 'interrupted', '--seed', '1']
    with monkeypatch.context() as patch:
        patch.setattr(label_search.LabelSearch, 'tune', tune)
        assert main(arguments) == INTERRUPTED
    out = folder / 'interrupted'
    assert not (out / 'tune.json').exists() and not (out / 'my_config_tuned.py').exists()
    tried.clear()
    monkeypatch.setattr(label_search.LabelSearch, 'tune', lambda *a: tried.append(1) or plain(*a))
    assert main(arguments) == 0
    assert len(json.loads((out / 'tune.json').read_text())['trials']) == 3
    # Two trials were left, and the comparison looks at both settings once more.
    assert len(tried) == 4


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['work_dirs/parts/iter_20000.pth', '--checkpoint', 'my_config.py'], 'CONFIG comes first'),
        (['none.py', '--checkpoint', 'x.pth'], 'no such config'),
        (['my_config.py', '--checkpoint', 'x.pth'], 'no such checkpoint'),
        (['my_config.py', '--checkpoint', 'x.pth', '--trials', '0'], '--trials'),
        (['my_config.py', '--checkpoint', 'x.pth', '--held-out', 'a.json'], 'give both'),
        (
            ['my_config.py', '--checkpoint', 'x.pth', '--held-out', 'a', '--held-out-images', 'b'],
            'no folder',
        ),
        (
            ['my_config.py', *CHECKPOINT, '--held-out', 'other.json', *IMAGES],
            'other.json',
        ),
        (
            ['no_json.py', *CHECKPOINT],
            "data/gone.json' is no file",
        ),
        (['no_hook.py', '--checkpoint', 'x.pth'], 'RareBoostPseudoLabeler'),
        (['no_images.py', *CHECKPOINT], 'give the folder of its images'),
    ],
)
def test_mistakes(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    text = (folder / 'my_config.py').read_text()
    (folder / 'no_hook.py').write_text(text + '\ncustom_hooks = []\n')
    (folder / 'no_json.py').write_text(
        text + '\nval_dataloader["dataset"]["ann_file"] = "data/gone.json"\n'
    )
    (folder / 'no_images.py').write_text(
        text + '\nval_dataloader["dataset"]["data_prefix"] = dict(img="data/train/")\n'
    )
    data = json.loads((folder / 'data/annotations/val.json').read_text())
    data['categories'][0]['name'] = 'zebra'
    (folder / 'other.json').write_text(json.dumps(data))
    assert main(['tune', *arguments, '--out', 'wrong']) == BAD_INPUT
    error = capsys.readouterr().err
    assert message in error and 'Traceback' not in error
    assert not (folder / 'wrong').exists()


def test_out_is_a_file(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(['tune', 'my_config.py', *CHECKPOINT, '--out', 'my_config.py']) == BAD_INPUT
    assert '--out must be a folder' in capsys.readouterr().err


def test_other_images_of_the_same_names_are_looked_at(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = ['tune', 'my_config.py', *CHECKPOINT, '--trials', '1', '--out', 'black', '--json']
    arguments += ['--held-out', 'data/annotations/val.json', '--held-out-images']
    shutil.copytree(folder / 'data/val', folder / 'black_images')
    for path in (folder / 'black_images').iterdir():
        cv2.imwrite(str(path), 0 * cv2.imread(str(path)))
    found = []
    for images in ('data/val', 'black_images'):
        assert main([*arguments, images]) == 0
        found.append(json.loads(capsys.readouterr().out)['tune']['old'])
    assert found[0] != found[1]
    assert len(list((folder / 'black').glob('teacher-*'))) == 2


def test_training_images_are_no_held_out_images(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = ['tune', 'my_config.py', *CHECKPOINT]
    arguments += ['--held-out', 'data/annotations/train.json', '--held-out-images', 'data/train']
    assert main([*arguments, '--trials', '1', '--out', 'leak', '--json']) == 0
    printed = capsys.readouterr()
    assert 'has trained on them' in printed.err.replace('\n', ' ')
    assert any('trained' in warning for warning in json.loads(printed.out)['warnings'])


@pytest.mark.slow
def test_online(folder: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ['tune', 'my_config.py', *CHECKPOINT, *FEW]
    arguments += ['--out', 'online', '--online', '1', '--online-iters', '2', '--json']
    assert main(arguments) == 0
    online = json.loads(capsys.readouterr().out)['online']
    assert online['metric'] == 'teacher/longtail/segm_AP'
    assert online['trainings'][0]['name'] == 'config'
    assert len(online['trainings']) == 2
    assert all(record['state'] == 'complete' for record in online['trainings'])
    assert online['rank_correlation'] is None and 'too few' in online['ranking']
    before = [path.stat().st_mtime_ns for path in sorted((folder / 'online').rglob('*.pth'))]
    assert before
    assert main(arguments) == 0
    after = [path.stat().st_mtime_ns for path in sorted((folder / 'online').rglob('*.pth'))]
    assert after == before

    # Stopped in its last validation, a training has its last checkpoint and no last score.
    run = Path(online['trainings'][1]['work_dir'])
    whole = read_validations(run)
    (run / VALIDATIONS).write_text(json.dumps({'1': whole[1]}))
    heard = {}
    (dumped,) = run.glob('*.py')
    last = train_or_resume(Config.fromfile(dumped), run, heard.__setitem__)
    assert heard.keys() == {2} and read_validations(run).keys() == {1, 2}
    assert heard[2][online['metric']] == pytest.approx(whole[2][online['metric']])
    assert last.name == 'iter_2.pth'
    assert [p.stat().st_mtime_ns for p in sorted((folder / 'online').rglob('*.pth'))] == before
