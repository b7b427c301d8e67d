"""The data set base configs build, load batches, and their homographies are right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed

from mmdet_softpl.datasets.pasting_steps import PASTED_KEY
from mmdet_softpl.datasets.shape_plan import ShapesConfig

NAMES = ('semi_coco_instance', 'semi_lvis_v1_instance', 'longtail_shapes')


@pytest.fixture(autouse=True)
def _mmdet_scope():
    register_all_modules(init_default_scope=False)
    init_default_scope('mmdet')


@pytest.fixture()
def load(repository: Path):
    """Function that loads a data set base config by name."""
    return lambda name: Config.fromfile(
        repository / 'configs' / '_base_' / 'datasets' / f'{name}.py'
    )


@pytest.fixture(scope='module')
def lvis_root(tmp_path_factory: pytest.TempPathFactory, tiny_shapes: Path) -> Path:
    """The tiny shapes under the folder and file names of the LVIS config."""
    root = tmp_path_factory.mktemp('lvis')
    (root / 'annotations').mkdir()
    for split, folder in (('train', 'train2017'), ('val', 'val2017')):
        data = json.loads((tiny_shapes / 'annotations' / f'{split}.json').read_text())
        for image in data['images']:
            name = image.pop('file_name')
            image['coco_url'] = f'http://images.cocodataset.org/{folder}/{name}'
        (root / 'annotations' / f'lvis_v1_{split}.json').write_text(json.dumps(data))
        (root / folder).symlink_to(tiny_shapes / split)
    (root / 'unlabeled2017').symlink_to(tiny_shapes / 'unlabeled')
    return root


def _point_at(cfg: Config, root: Path) -> None:
    """Set the data root, and small views, everywhere a base config uses them."""
    old_root, small = cfg.data_root, {1333: 200, 1200: 220, 400: 150}

    def change(value):
        if isinstance(value, dict):
            for key in value:
                value[key] = change(value[key])
            return value
        if isinstance(value, (list, tuple)):
            return type(value)(change(v) for v in value)
        if isinstance(value, str):
            return value.replace(old_root, f'{root}/')
        return small.get(value, value) if isinstance(value, int) else value

    change(cfg._cfg_dict)


def _batch(cfg: Config) -> dict:
    loader = dict(cfg.train_dataloader, num_workers=0, persistent_workers=False)
    # In the place of the workers, which are seeded.
    set_random_seed(0)
    return next(iter(Runner.build_dataloader(loader, seed=0)))


def _check_masks(sample: DetDataSample, image: torch.Tensor) -> None:
    instances = sample.gt_instances
    assert instances.masks.masks.shape == (len(instances), *image.shape[1:])
    for mask, box in zip(instances.masks.masks, instances.bboxes.tensor, strict=True):
        rows, columns = np.nonzero(mask)
        if len(rows) == 0:
            # Thinner than a pixel of a smaller view, which FilterAnnotations leaves out elsewhere.
            assert sample.metainfo.get(PASTED_KEY)
            continue
        ends = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        # A pixel of the image is up to three of a view.
        torch.testing.assert_close(box, torch.tensor(ends).float(), atol=3, rtol=0)


def _check_batch(batch: dict, batch_size: int, pasted: bool = True) -> None:
    inputs, samples = batch['inputs'], batch['data_samples']
    assert set(inputs) == {'sup', 'unsup_teacher', 'unsup_student'}
    half = batch_size // 2
    assert [x is not None for x in inputs['sup']] == [True] * half + [False] * half
    for branch in ('unsup_teacher', 'unsup_student'):
        assert [x is not None for x in inputs[branch]] == [False] * half + [True] * half
    for sample, image in zip(samples['sup'][:half], inputs['sup'][:half], strict=True):
        assert len(sample.gt_instances) > 0
        _check_masks(sample, image)
    for teacher, student, image in zip(
        *(samples[name][half:] for name in ('unsup_teacher', 'unsup_student')),
        inputs['unsup_teacher'][half:],
        strict=True,
    ):
        assert teacher.img_path == student.img_path
        assert teacher.homography_matrix.shape == student.homography_matrix.shape == (3, 3)
        assert len(student.gt_instances) == 0
        assert teacher.metainfo.get(PASTED_KEY, False) == pasted
        assert len(teacher.gt_instances) <= 3 * pasted
        if pasted:
            _check_masks(teacher, image)


def test_longtail_shapes_batch(load, tiny_shapes):
    cfg = load('longtail_shapes')
    _point_at(cfg, tiny_shapes)
    _check_batch(_batch(cfg), 8, pasted=False)
    loader = Runner.build_dataloader(
        dict(cfg.val_dataloader, num_workers=0, persistent_workers=False)
    )
    assert tuple(loader.dataset.metainfo['classes']) == ShapesConfig().classes
    batch = next(iter(loader))
    assert len(batch['inputs']) == 8 and batch['inputs'][0].shape == (3, 128, 128)


def test_lvis_batch(load, lvis_root):
    pytest.importorskip('lvis')
    cfg = load('semi_lvis_v1_instance')
    _point_at(cfg, lvis_root)
    dataset = Runner.build_dataloader(
        dict(cfg.train_dataloader, num_workers=0, persistent_workers=False), seed=0
    ).dataset
    # One metainfo, the labelled one's, for both sources.
    assert len(dataset.metainfo['classes']) == 1203
    _check_batch(_batch(cfg), 4)
    assert (
        len(
            Runner.build_dataloader(
                dict(cfg.val_dataloader, num_workers=0, persistent_workers=False)
            ).dataset
        )
        == 10
    )


def test_coco_batch(load, coco_tiny, tmp_path):
    from mmdet_softpl.datasets.splits import write_split

    split = write_split(coco_tiny / 'instances_train2017.json', tmp_path / 'annotations', count=70)
    (tmp_path / 'train2017').symlink_to(coco_tiny / 'train2017')
    (tmp_path / 'unlabeled2017').symlink_to(coco_tiny / 'train2017')
    split.labeled_file.rename(tmp_path / 'annotations' / 'instances_train2017.json')
    cfg = load('semi_coco_instance')
    _point_at(cfg, tmp_path)
    _check_batch(_batch(cfg), 4)


@pytest.mark.parametrize('name', NAMES)
def test_names_of_the_host(load, name):
    cfg = load(name)
    for variable in (
        'labeled_dataset',
        'unlabeled_dataset',
        'sup_pipeline',
        'unsup_pipeline',
        'weak_pipeline',
        'strong_pipeline',
        'branch_field',
        'test_pipeline',
    ):
        assert variable in cfg
    assert cfg.train_dataloader.dataset.datasets[1] == cfg.unlabeled_dataset
    assert cfg.unlabeled_dataset.type == 'mmdet_softpl.UnlabeledImageDataset'
    assert cfg.train_dataloader.sampler.source_ratio == [1, 1]
    assert cfg.val_evaluator.type == 'mmdet_softpl.LongTailMetric'
    assert cfg.val_evaluator.labeled_ann_file.endswith(cfg.labeled_dataset.ann_file)
    assert cfg.val_evaluator.ann_file.endswith(cfg.val_dataloader.dataset.ann_file)


def _hull(homography: np.ndarray, bboxes: torch.Tensor, shape: tuple[int, int]) -> np.ndarray:
    """Boxes around the projected corners of boxes, clipped to the image."""
    x1, y1, x2, y2 = bboxes.double().numpy().T
    corners = np.stack([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    points = np.concatenate([corners, np.ones_like(corners[:, :1])], axis=1)
    moved = np.einsum('ij,pjn->pin', homography, points)
    moved = moved[:, :2] / moved[:, 2:]
    hull = np.concatenate([moved.min(axis=0), moved.max(axis=0)]).T
    return np.clip(hull, 0, [shape[1], shape[0], shape[1], shape[0]])


@pytest.mark.parametrize('name', NAMES)
def test_homographies_map_the_views_onto_each_other(load, name, tiny_shapes):
    """A labelled image through both unlabelled views: boxes and masks follow the matrices."""
    shapes = load('longtail_shapes')
    _point_at(shapes, tiny_shapes)
    cfg = load(name)
    _point_at(cfg, tiny_shapes)
    from mmdet.registry import DATASETS

    # It erases parts of the masks too, which moves their centres.
    strong = cfg.unsup_pipeline[-1].unsup_student
    cfg.unsup_pipeline[-1].unsup_student = [t for t in strong if t.type != 'RandomErasing']
    shapes.labeled_dataset.pipeline = []
    dataset = DATASETS.build(shapes.labeled_dataset)
    views = Compose(
        [
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            cfg.unsup_pipeline[-1],
        ]
    )
    np.random.seed(0)
    compared = turned = 0
    for index in range(16):
        data_info = dataset.get_data_info(index)
        original = torch.tensor([i['bbox'] for i in data_info['instances']])
        samples = views(data_info)['data_samples']
        matrices = {}
        for branch in ('unsup_teacher', 'unsup_student'):
            sample = samples[branch]
            matrices[branch] = sample.homography_matrix.astype(np.float64)
            expected = _hull(matrices[branch], original, sample.img_shape)
            np.testing.assert_allclose(
                sample.gt_instances.bboxes.tensor.numpy(), expected, atol=0.05
            )
        # Teacher box -> student view, where the teacher's view does not cut it.
        forth = matrices['unsup_student'] @ np.linalg.inv(matrices['unsup_teacher'])
        teacher, student = samples['unsup_teacher'], samples['unsup_student']
        mapped = _hull(forth, teacher.gt_instances.bboxes.tensor, student.img_shape)
        np.testing.assert_allclose(mapped, student.gt_instances.bboxes.tensor.numpy(), atol=0.1)
        turned += bool(abs(forth[0, 1]) > 1e-3 or abs(forth[1, 0]) > 1e-3)
        # Mask centres too: masks are resampled by the host with the same matrix.
        for before, after in zip(
            teacher.gt_instances.masks.masks, student.gt_instances.masks.masks, strict=True
        ):
            if after.sum() < 50 or before.sum() < 50 or _touches_border(after):
                continue
            centre = np.array([*np.argwhere(before).mean(axis=0)[::-1], 1.0])
            there = forth @ centre
            found = np.argwhere(after).mean(axis=0)[::-1]
            np.testing.assert_allclose(there[:2] / there[2], found, atol=2.0)
            compared += 1
    assert compared > 20
    assert turned >= 4


def _touches_border(mask: np.ndarray) -> bool:
    return bool(mask[[0, -1]].any() or mask[:, [0, -1]].any())
