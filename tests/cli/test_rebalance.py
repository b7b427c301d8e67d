"""``rebalance`` from a checkpoint to an export, and the mistakes that people make."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmdet_softpl.__main__ import INTERRUPTED, main
from mmdet_softpl.engine import rebalancing
from mmdet_softpl.functional import rebalancing_shifts
from tests.support.tiny_trained import CLASSES, write_trained


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint that carries its config; held-out images are the training's own."""
    config, checkpoint = write_trained(tmp_path)
    cfg = Config.fromfile(config)
    labelled = str(tmp_path / 'annotations/instances_train2017.json')
    cfg.val_evaluator = dict(type='CocoMetric', ann_file=labelled)
    cfg.dump(config)
    weights = torch.load(checkpoint, weights_only=False)
    weights['meta']['cfg'] = cfg.pretty_text
    torch.save(weights, checkpoint)
    return tmp_path


def run(folder: Path, *more: str) -> int:
    out = str(folder / 'rebalance.json')
    return main(['rebalance', str(folder / 'trained.pth'), '--out', out, *more])


def test_from_the_command_to_an_export(folder: Path, capsys: pytest.CaptureFixture) -> None:
    # Six pictures that were trained on say nothing, so either end is right.
    status = run(folder, '--json')
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert status == (1 if result['verdict'] == 'worse' else 0)
    assert 'have the name of a labelled image' in captured.err
    assert result['classes'] == list(CLASSES)
    counts = torch.tensor(result['image_counts'])
    assert counts.tolist() == [3, 3, 3, 3, 0]

    # Shifts that matter.
    result['shifts'] = (20 * rebalancing_shifts(torch.tensor([1, 2, 4, 8, 16]), 1.0)).tolist()
    (folder / 'mine.json').write_text(json.dumps(result))
    images = str(folder / 'train2017')
    export = ['export', str(folder / 'trained.pth'), '--check', images]
    assert main([*export, str(folder / 'plain')]) == 0
    shifts = ['--rebalance', str(folder / 'mine.json')]
    assert main([*export, str(folder / 'shifted'), *shifts]) == 0, capsys.readouterr().err
    plain, shifted = (
        torch.load(folder / name / 'detector.pth', weights_only=True)['state_dict']
        for name in ('plain', 'shifted')
    )
    (key,) = [key for key in plain if not torch.equal(plain[key], shifted[key])]
    assert key == 'roi_head.bbox_head.fc_cls.bias'
    torch.testing.assert_close((shifted[key] - plain[key])[:5], torch.tensor(result['shifts']))


def test_table_and_picture(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = rebalancing.choose_strength

    def better(*args, **kwargs):
        return dict(choose(*args, **kwargs), gamma=0.4, verdict='better')

    monkeypatch.setattr(rebalancing, 'choose_strength', better)
    assert run(folder) == 0
    text = capsys.readouterr().out
    assert '0.4 *' in text and f'--rebalance {folder / "rebalance.json"}' in text
    assert (folder / 'rebalance.png').stat().st_size > 1000
    written = json.loads((folder / 'rebalance.json').read_text())
    assert written['shifts'] == rebalancing_shifts(torch.tensor([3, 3, 3, 3, 0]), 0.4).tolist()
    assert run(folder) == 2
    assert 'exists; give --overwrite' in capsys.readouterr().err
    assert run(folder, '--overwrite') == 0
    # Files of others stay.
    labelled = folder / 'annotations/instances_train2017.json'
    before = labelled.read_text()
    assert run(folder, '--overwrite', '--out', str(labelled)) == 2
    assert 'exists; give another --out' in capsys.readouterr().err
    assert labelled.read_text() == before
    picture = folder / 'mine.png'
    picture.write_text('a picture')
    assert run(folder, '--overwrite', '--out', str(folder / 'mine.json')) == 2
    assert picture.read_text() == 'a picture'


def test_worse_writes_nothing(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = rebalancing.choose_strength
    monkeypatch.setattr(
        rebalancing, 'choose_strength', lambda *a, **k: dict(choose(*a, **k), verdict='worse')
    )
    out = folder / 'rebalance.json'
    # Of an earlier checkpoint, say: it would contradict this result.
    out.write_text('{"gamma": 1, "shifts": []}')
    assert run(folder, '--overwrite') == 1
    assert 'keep the detector as it is' in capsys.readouterr().out
    assert not out.exists() and not out.with_suffix('.png').exists()


def test_interrupted(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rebalancing, 'choose_strength', stop)
        assert run(folder) == INTERRUPTED
    assert not (folder / 'rebalance.json').exists()
    # What the detector saw is kept.
    monkeypatch.setattr(rebalancing, '_look', stop)
    assert run(folder) in (0, 1)


def test_mistakes(folder: Path, capsys: pytest.CaptureFixture) -> None:
    def error(*more: str) -> str:
        assert run(folder, *more) == 2
        assert not list(folder.glob('rebalance*'))
        return capsys.readouterr().err

    assert 'must lie in [1, inf), got 0' in error('--batch-size', '0')
    assert 'ends in .json' in error('--out', str(folder / 'a.png'))
    labelled = json.loads((folder / 'annotations/instances_train2017.json').read_text())
    few = labelled['annotations'][:1]
    assert 'shows no labelled object' in error(*held(folder, annotations=few))
    assert 'belong together' in error('--held-out', 'nowhere.json')
    assert 'nowhere.py' in error('--config', str(folder / 'nowhere.py'))
    assert 'the folder of --out does not exist' in error('--out', str(folder / 'no' / 'a.json'))
    shutil.copy(folder / 'config.py', folder / 'other.py')
    with open(folder / 'other.py', 'a') as file:
        file.write(
            "\ntrain_dataloader = dict(_delete_=True, dataset=dict(type='A', ann_file=''))\n"
        )
    assert '0 labelled annotation files' in error('--config', str(folder / 'other.py'))
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(('bat', *CLASSES[1:]))]
    assert 'cat' in error(*held(folder, categories=categories))


def held(folder: Path, **changed: list) -> tuple[str, ...]:
    """Arguments for the training's images with other annotations."""
    labelled = json.loads((folder / 'annotations/instances_train2017.json').read_text())
    path = folder / 'held.json'
    path.write_text(json.dumps(labelled | changed))
    return '--held-out', str(path), '--held-out-images', str(folder / 'train2017')


@pytest.mark.parametrize('count', [4, 6])
def test_a_checkpoint_of_other_classes(
    folder: Path, capsys: pytest.CaptureFixture, count: int
) -> None:
    names = [*CLASSES, 'elk'][:count]
    path = folder / 'annotations/instances_train2017.json'
    content = json.loads(path.read_text())
    content['categories'] = [dict(id=i + 1, name=name) for i, name in enumerate(names)]
    path.write_text(json.dumps(content))
    cfg = Config.fromfile(folder / 'config.py')
    cfg.train_dataloader.dataset.datasets[0].metainfo = dict(classes=names)
    cfg.val_dataloader.dataset.metainfo = dict(classes=names)
    cfg.dump(str(folder / 'other.py'))
    assert run(folder, '--config', str(folder / 'other.py')) == 2
    assert f'gives {count} classes, but the model has num_classes=5' in capsys.readouterr().err
