"""mmdet's own scripts run our configs, from the checkout and from an installed wheel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import mmdet
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope

from mmdet_softpl.__main__ import main
from mmdet_softpl.datasets.longtail_shapes import generate_longtail_shapes
from mmdet_softpl.datasets.shape_plan import ShapesConfig
from mmdet_softpl.ops.install import active
from tests.support.tiny_data import write_data
from tests.support.tiny_runs import make_tiny, train

ITERS = 3
RECIPE = 'calibrated-soft-teacher_mask-rcnn_r50_fpn_180k_semi-0.1-coco'
HOST_TOOLS = Path(mmdet.__file__).parent / '.mim' / 'tools'


@dataclass(frozen=True)
class Installation:
    """Where ``mmdet_softpl`` is imported from, and its copies of the scripts."""

    path: Path
    tools: Path

    def run(self, *arguments: object, cwd: Path) -> str:
        """Run Python; return what it printed, and fail with it where it failed."""
        process = subprocess.run(
            [sys.executable, *map(str, arguments)],
            env=os.environ | {'PYTHONPATH': str(self.path), 'OMP_NUM_THREADS': '1'},
            capture_output=True,
            text=True,
            cwd=cwd,
        )
        assert process.returncode == 0, (process.stdout + process.stderr)[-3000:]
        return process.stdout + process.stderr


@pytest.fixture(scope='module', params=['checkout', pytest.param('wheel', marks=pytest.mark.slow)])
def installation(
    request: pytest.FixtureRequest, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Installation:
    if request.param == 'checkout':
        return Installation(repository, repository / 'tools')
    source, site = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('site')
    ignored = shutil.ignore_patterns('__pycache__')
    for name in ('mmdet_softpl', 'configs', 'tools'):
        shutil.copytree(repository / name, source / name, ignore=ignored)
    for name in ('setup.py', 'pyproject.toml', 'MANIFEST.in', 'LICENSE', 'model-index.yml'):
        shutil.copy(repository / name, source / name)
    code = f'import setuptools.build_meta as b; b.build_wheel({str(source)!r})'
    subprocess.run([sys.executable, '-c', code], cwd=source, check=True, capture_output=True)
    (wheel,) = source.glob('*.whl')
    command = [sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--no-index']
    subprocess.run([*command, '--target', str(site), str(wheel)], check=True)
    return Installation(site, site / 'mmdet_softpl' / '.mim' / 'tools')


@pytest.fixture(scope='module')
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_data(tmp_path_factory.mktemp('data') / 'coco', CocoDataset.METAINFO['classes'])
    source = str(root / 'annotations/instances_train2017.json')
    main(['split', source, '--percent', '10', '--seed', '1', '--out', str(root / 'semi_anns')])
    return root


def test_train_and_test_with_the_hosts_scripts(
    installation: Installation, data_root: Path, tmp_path: Path
) -> None:
    shown = installation.run('-m', 'mmdet_softpl', 'config-path', RECIPE, cwd=tmp_path)
    path = Path(shown.strip().splitlines()[-1])
    assert path.is_relative_to(installation.path)
    config, work = tmp_path / 'tiny.py', tmp_path / 'work'
    make_tiny(Config.fromfile(path), data_root, work, ITERS).dump(config)

    # `custom_imports` of the config is all that mmdet's script knows of us.
    output = installation.run(HOST_TOOLS / 'train.py', config, cwd=tmp_path)
    assert 'unsup_loss_mask' in output
    assert 'teacher/longtail/segm_AP' in output

    # mmdet's test.py imports the compiled ops before it reads a config: with mmcv-lite ours,
    # which runs the same script, goes first.
    tools = installation.tools if active() != 'compiled' else HOST_TOOLS
    checkpoint = work / f'iter_{ITERS}.pth'
    output = installation.run(tools / 'test.py', config, checkpoint, cwd=tmp_path)
    assert 'longtail/segm_AP' in output


PREDICT_WITHOUT_US = """
import json, sys
import mmdet_softpl.ops, mmcv.ops  # with mmcv-lite: for the ops alone
ours = lambda name: name.split('.')[0] == 'mmdet_softpl'
sys.meta_path[:] = [finder for finder in sys.meta_path if not ours(type(finder).__module__)]
for name in filter(ours, list(sys.modules)):
    sys.modules[name] = None
from mmdet.apis import DetInferencer
folder, *images = sys.argv[1:]
run = DetInferencer(
    folder + '/detector.py', folder + '/detector.pth', device='cpu', show_progress=False
)
found = run(images, return_datasamples=True, no_save_vis=True)['predictions']
assert 'mmdet_softpl.models' not in sys.modules
keys = ('bboxes', 'scores', 'labels')
values = [{key: sample.pred_instances[key].tolist() for key in keys} for sample in found]
for value, sample in zip(values, found):
    value['areas'] = sample.pred_instances.masks.sum((1, 2)).tolist()
print('PREDICTIONS ' + json.dumps(values))
"""


def test_exported_teacher_of_a_real_training_predicts_the_same(
    repository: Path, tmp_path: Path
) -> None:
    root = tmp_path / 'shapes'
    shapes = ShapesConfig(num_train=28, num_unlabeled=8, num_val=4)
    generate_longtail_shapes(root, shapes, progress=False, workers=1)
    path = repository / 'configs/demo/calibrated-soft-teacher_mask-rcnn_r18_longtail-shapes.py'
    cfg = make_tiny(Config.fromfile(path), root, tmp_path / 'work', ITERS)
    cfg.custom_hooks[0].momentum = 0.5
    runner, _, _ = train(cfg)
    out = tmp_path / 'out'
    checkpoint = str(tmp_path / 'work' / f'iter_{ITERS}.pth')
    assert main(['export', checkpoint, '--from', 'teacher', str(out)]) == 0

    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(dict(cfg.val_dataloader.dataset, lazy_init=False))
    items = [dataset[i] for i in range(len(dataset))]
    teacher = runner.model.teacher.eval()
    with torch.no_grad():
        data = teacher.data_preprocessor(pseudo_collate(items), False)
        # One by one, as the inferencer takes them.
        expected = [
            teacher.predict(data['inputs'][i : i + 1], data['data_samples'][i : i + 1])[0]
            for i in range(len(items))
        ]
    images = [sample.img_path for sample in data['data_samples']]
    output = Installation(repository, repository / 'tools').run(
        '-c', PREDICT_WITHOUT_US, out, *images, cwd=tmp_path
    )
    (line,) = (text for text in output.splitlines() if text.startswith('PREDICTIONS '))
    found = json.loads(line.removeprefix('PREDICTIONS '))
    assert sum(len(image['labels']) for image in found) > 0
    for image, sample in zip(found, expected, strict=True):
        wanted = sample.pred_instances
        assert image['labels'] == wanted.labels.tolist()
        for key in ('bboxes', 'scores'):
            np.testing.assert_allclose(
                np.array(image[key]), wanted[key].numpy(), atol=1e-5, rtol=1e-5, err_msg=key
            )
        assert image['areas'] == wanted.masks.sum((1, 2)).tolist()
