"""PseudoLabelVisualizationHook: what it draws, when, and where the picture arrives."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer

from mmdet_softpl.engine import PseudoLabelVisualizationHook
from mmdet_softpl.engine import pseudo_label_visualization_hook as module
from mmdet_softpl.engine.pseudo_label_visualization_hook import first_of_branches
from mmdet_softpl.reporting import pseudo_labels as pictures
from tests.support.tiny import detector_config, multi_batch, semi_config

SIZE = 64


def build(name: str = 'mask-rcnn') -> Any:
    torch.manual_seed(0)
    cfg = semi_config(detector_config(name), score_thr=0.0, score_floor=0.0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(cfg)


def loader_batch() -> dict:
    """As a data loader collates it: None where a sample lacks the branch, uint8 BGR images."""
    _, samples = multi_batch(SIZE)
    weak = torch.zeros(3, SIZE, SIZE, dtype=torch.uint8)
    weak[0, :, : SIZE // 2] = 255
    return dict(
        inputs=dict(
            sup=[weak, None, None],
            unsup_teacher=[None, weak, weak],
            unsup_student=[None, weak.flip(2), weak],
        ),
        data_samples=dict(
            sup=[samples['sup'][0], None, None],
            unsup_teacher=[None, *samples['unsup_teacher']],
            unsup_student=[None, *samples['unsup_student']],
        ),
    )


def make_runner(model: Any, visualizer: Any = None) -> Any:
    pictures: list[tuple[str, int, np.ndarray]] = []
    if visualizer is None:
        visualizer = SimpleNamespace(
            add_image=lambda name, image, step: pictures.append((name, step, image))
        )
    labelled = SimpleNamespace(metainfo=dict(classes=('ant', 'bee', 'cat', 'dog', 'elk')))
    # The host's metainfo of sets that differ.
    dataset = SimpleNamespace(metainfo=[labelled.metainfo, {}], datasets=[labelled])
    return SimpleNamespace(
        model=model,
        iter=0,
        visualizer=visualizer,
        train_dataloader=SimpleNamespace(dataset=dataset),
        pictures=pictures,
    )


@pytest.mark.parametrize('name', ['mask-rcnn', 'faster-rcnn'])
def test_draws_where_it_is_due_and_counts_nothing(name: str) -> None:
    model = build(name)
    runner = make_runner(model)
    hook = PseudoLabelVisualizationHook(interval=3)
    hook.before_train(runner)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    for i in range(6):
        runner.iter = i
        hook.after_train_iter(runner, i, loader_batch())
    assert [(n, step) for n, step, _ in runner.pictures] == [
        ('pseudo_labels', 3),
        ('pseudo_labels', 6),
    ]
    picture = runner.pictures[0][2]
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(random_state, torch.get_rng_state())


def test_rows_are_the_same_instances_in_both_views(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    plain = pictures.draw_view_pair
    monkeypatch.setattr(
        pictures, 'draw_view_pair', lambda *args: given.extend(args) or plain(*args)
    )
    model = build()
    monkeypatch.setattr(module, 'MAX_INSTANCES', 4)
    hook = PseudoLabelVisualizationHook()
    batch = first_of_branches(loader_batch())
    assert batch is not None
    hook.draw(model, batch)
    weak_image, strong_image, weak, strong, _ = given
    # Blue is the first channel of the file and the last one of the picture.
    assert weak_image[0, 0].tolist() == [0, 0, 255] and strong_image[0, 0].tolist() == [0, 0, 0]
    assert 0 < len(weak['labels']) <= 4
    # The student sees the mirror image.
    flipped = weak['bboxes'].clone()
    flipped[:, [0, 2]] = SIZE - weak['bboxes'][:, [2, 0]]
    torch.testing.assert_close(strong['bboxes'], flipped, atol=1e-3, rtol=0)
    torch.testing.assert_close(strong['masks'], weak['masks'].flip(2), atol=0.02, rtol=0)


def test_views_of_floats_look_like_those_of_bytes() -> None:
    """mmdet's PhotoMetricDistortion gives floats, beyond 0 and 255 too; they were drawn white."""
    view = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    expected = view.flip(0).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(module._rgb(view), expected)
    np.testing.assert_array_equal(module._rgb(view.float()), expected)
    beyond = module._rgb(torch.full((3, 2, 2), 300.0))
    assert beyond.dtype == np.uint8 and (beyond == 255).all()


def test_nothing_to_draw() -> None:
    model = build()
    runner = make_runner(model)
    hook = PseudoLabelVisualizationHook(interval=1)
    hook.before_train(runner)
    batch = loader_batch()
    batch['inputs']['unsup_teacher'] = [None, None, None]
    hook.after_train_iter(runner, 0, batch)
    model.unsup_scale = 0.0
    hook.after_train_iter(runner, 0, loader_batch())
    assert not runner.pictures
    # No instance at all is a picture of two images.
    model.unsup_scale = 1.0
    model.class_state.thresholds.fill_(1.0)
    model.labeling_cfg = module_cfg(model, objectness_thr=1.0)
    hook.after_train_iter(runner, 0, loader_batch())
    assert len(runner.pictures) == 1


def module_cfg(model: Any, **kwargs: Any) -> Any:
    from dataclasses import replace

    return replace(model.labeling_cfg, **kwargs)


@pytest.mark.parametrize('backend', ['LocalVisBackend', 'TensorboardVisBackend'])
def test_arrives_in_the_backend(tmp_path: Path, backend: str) -> None:
    visualizer = Visualizer(
        name=f'pseudo-{backend}', vis_backends=[dict(type=backend)], save_dir=str(tmp_path)
    )
    runner = make_runner(build(), visualizer)
    hook = PseudoLabelVisualizationHook(interval=1)
    hook.before_train(runner)
    hook.after_train_iter(runner, 0, loader_batch())
    # The labeller's own scalars go the same way.
    visualizer.add_scalars({'pseudo/threshold_rare': 0.5}, step=1)
    visualizer.close()
    if backend == 'LocalVisBackend':
        picture = cv2.imread(str(tmp_path / 'vis_data' / 'vis_image' / 'pseudo_labels_1.png'))
        assert picture is not None and picture.std() > 5
        return
    reader = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    events = reader.EventAccumulator(str(tmp_path / 'vis_data'))
    events.Reload()
    assert [event.step for event in events.Images('pseudo_labels')] == [1]
    assert [event.value for event in events.Scalars('pseudo/threshold_rare')] == [0.5]


def test_another_model_and_bad_values_are_refused() -> None:
    with pytest.raises(TypeError, match=r'CalibratedSoftTeacher, got Identity'):
        PseudoLabelVisualizationHook().before_train(make_runner(torch.nn.Identity()))
    with pytest.raises(ValueError, match='interval'):
        PseudoLabelVisualizationHook(interval=0)
