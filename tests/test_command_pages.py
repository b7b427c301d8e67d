"""Every command has a page, and the marked examples of the pages run as they stand."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmdet_softpl.__main__ import main
from mmdet_softpl.cli import commands
from mmdet_softpl.datasets.wrong_labels import spoil_labels
from tests.support.tiny import REPOSITORY
from tests.support.tiny_data import write_data
from tests.support.tiny_report import write_run
from tests.support.tiny_trained import CLASSES, write_trained

DOCS = REPOSITORY / 'docs'
PAGES = {
    'config-path': 'installation',
    'demo': '../README',
    'gate': 'generated_images',
    'new-config': 'new_config',
    'report': 'reading_the_report',
    'shapes': 'your_own_data',
}
MARKED = re.compile(r'^<!-- test: run -->\n```bash\n(.*?)^```$', re.MULTILINE | re.DOTALL)
# Those that train have tests of their own.
RUN = (
    'doctor',
    'split',
    'new-config',
    'inspect',
    'export',
    'similarity',
    'review',
    'gate',
    'rebalance',
    'report',
)


def page(command: str) -> Path:
    return (DOCS / f'{PAGES.get(command, command)}.md').resolve()


@pytest.mark.parametrize('command', [command.NAME for command in commands()])
def test_there_is_one(command: str) -> None:
    text = page(command).read_text(encoding='utf-8')
    assert re.search(rf'(mmdet_softpl|softpl|make) {command}\b', text)
    if page(command).parent == DOCS:
        assert f'docs/{page(command).name}' in (REPOSITORY / 'README.md').read_text()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the examples name: a config, data of its own, a checkpoint and logs of a training."""
    config, checkpoint = write_trained(tmp_path)
    cfg = Config.fromfile(config)
    labelled = str(tmp_path / 'annotations/instances_train2017.json')
    cfg.test_dataloader = cfg.val_dataloader
    cfg.test_evaluator = dict(type='CocoMetric', ann_file=labelled)
    for name in ('my_config.py', 'parts.py'):
        cfg.dump(str(tmp_path / name))
    run = write_run(tmp_path / 'work_dirs' / 'parts', names=CLASSES)
    weights = torch.load(checkpoint, weights_only=False)
    weights['meta']['cfg'] = cfg.pretty_text
    torch.save(weights, run / 'iter_20000.pth')
    cfg.dump(str(run / 'parts.py'))
    np.save(tmp_path / 'names.npy', np.random.default_rng(0).normal(size=(len(CLASSES), 8)))

    parts = write_data(tmp_path / 'data' / 'parts', CLASSES, num_train=40)
    shutil.copytree(parts / 'train2017', parts / 'images')
    shutil.copytree(parts / 'train2017', parts / 'generated')
    shutil.copytree(parts / 'unlabeled2017', parts / 'unlabelled')
    content = json.loads((parts / 'annotations/instances_train2017.json').read_text())
    for i, category in enumerate(content['categories']):
        # Look-alikes, which wrong labels are made of.
        category['supercategory'] = 'xy'[i % 2]
    for name in ('all', 'labelled'):
        (parts / f'{name}.json').write_text(json.dumps(content))
    (parts / 'generated.json').write_text(json.dumps(spoil_labels(content, 0.4, 7)))
    monkeypatch.chdir(tmp_path)
    return parts


def of_other_images(folder: Path) -> None:
    """``val.json``, of images that the labelled json does not name."""
    val = json.loads((folder / 'annotations/instances_val2017.json').read_text())
    for image in val['images']:
        name = f'val-{image["file_name"]}'
        shutil.copy(folder / 'val2017' / image['file_name'], folder / 'images' / name)
        image['file_name'] = name
    (folder / 'val.json').write_text(json.dumps(val))


@pytest.mark.parametrize('command', RUN)
def test_examples_run(command: str, folder: Path, capsys: pytest.CaptureFixture) -> None:
    if command in ('gate', 'rebalance'):
        # Enough labels to fit the gate on, images to be halved.
        shutil.copy(folder / 'all.json', folder / 'val.json')
    else:
        of_other_images(folder)
    if command in ('new-config', 'inspect'):
        Path('parts.py').unlink()
    if command == 'inspect':
        assert main(arguments('new-config')[0]) == 0
    examples = arguments(command)
    assert examples
    for example in examples:
        if example[:2] == ['review', 'import']:
            send_back(example)
        assert main(example) == 0, capsys.readouterr().err


def send_back(example: list[str]) -> None:
    """What people corrected: nothing."""
    sent, corrected = Path(example[2]), Path(example[3])
    Path('done.txt').write_text('\n'.join(p.name for p in (sent / 'images').iterdir()))
    if (sent / 'annotations.json').is_file():
        shutil.copy(sent / 'annotations.json', corrected)
        return
    tasks = json.loads((sent / 'tasks.json').read_text())
    for task in tasks:
        results = [dict(id=1, result=found['result']) for found in task.pop('predictions')]
        task['annotations'] = results
    corrected.write_text(json.dumps(tasks))


def arguments(command: str) -> list[list[str]]:
    """Of the marked examples of a command, in their order."""
    text = page(command).read_text(encoding='utf-8')
    lines = ''.join(MARKED.findall(text)).replace('\\\n', ' ').splitlines()
    words = [shlex.split(line)[3:] for line in lines]
    assert all(line.startswith('python -m mmdet_softpl ') for line in lines)
    return [line for line in words if line[0] == command]
