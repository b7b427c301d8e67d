"""The dump: what it holds, that shards are kept, that another source is another dump."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope

from mmdet_softpl.datasets.annotation_file import AnnotationError
from mmdet_softpl.evaluation import teacher_dump
from mmdet_softpl.evaluation.teacher_dump import dump_teacher
from mmdet_softpl.functional import prototype_log_evidence
from mmdet_softpl.models.mirror_view import MirrorView
from tests.support import tiny_labelling


@pytest.fixture(autouse=True)
def _scope() -> None:
    init_default_scope('mmdet')
    torch.manual_seed(0)


def test_interrupted_dump_goes_on_and_other_sources_are_other_dumps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann_file = tiny_labelling.write_images(tmp_path)
    dataset, truth = (
        tiny_labelling.build_dataset(ann_file),
        tiny_labelling.ground_truth(ann_file),
    )
    detector = tiny_labelling.build_teacher()
    monkeypatch.setattr(teacher_dump, 'SHARD_SIZE', 2)
    seen: list[int] = []
    look = teacher_dump._look

    def interrupted(detector, dataset, indices, *args):
        if indices[0] == 4 and len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(indices[0])
        return look(detector, dataset, indices, *args)

    monkeypatch.setattr(teacher_dump, '_look', interrupted)
    arguments = (detector, dataset, truth, tmp_path / 'dumps', dict(a=1))
    with pytest.raises(KeyboardInterrupt):
        dump_teacher(*arguments, batch_size=2)
    (folder,) = (tmp_path / 'dumps').iterdir()
    assert len(list(folder.glob('shard-*.npz'))) == 2
    assert not [path for path in folder.iterdir() if path.name.startswith('.')]
    seen.clear()
    reports: list[tuple[int, int]] = []
    dump = dump_teacher(*arguments, batch_size=2, progress=lambda *done: reports.append(done))
    assert seen == [4]
    assert reports[-1] == (6, 6)
    assert [image.img_id for image in dump.images] == [10, 11, 12, 13, 14, 15]
    # Again from the files alone: the same.
    seen.clear()
    again = dump_teacher(*arguments, batch_size=2)
    assert seen == []
    for a, b in zip(dump.images, again.images, strict=True):
        torch.testing.assert_close(a.scores, b.scores, rtol=0, atol=0)
    monkeypatch.setattr(teacher_dump, '_look', look)
    dump_teacher(detector, dataset, truth, tmp_path / 'dumps', dict(a=2))
    assert len(list((tmp_path / 'dumps').iterdir())) == 2


def test_content(tmp_path: Path) -> None:
    ann_file = tiny_labelling.write_images(tmp_path)
    detector = tiny_labelling.build_teacher()
    head = detector.teacher.roi_head.bbox_head
    dump = dump_teacher(
        detector,
        tiny_labelling.build_dataset(ann_file),
        tiny_labelling.ground_truth(ann_file),
        tmp_path / 'dumps',
        {},
    )
    assert dump.temperatures[0] == head.temperature
    assert set(dump.temperatures) == {*teacher_dump.TEMPERATURES, head.temperature}
    floor = detector.labeling_cfg.score_floor
    for image in dump.images:
        assert len(image.scores) > 0
        torch.testing.assert_close(image.scores.sum(1), torch.ones(len(image.scores)))
        assert (1 - image.scores[:, -1] > floor).all()
        # The view is twice the picture, and so is the ground truth.
        assert image.truth.bboxes.shape == (2, 4)
    first = dump.images[0].truth
    assert first.crowd.tolist() == [True, False]
    own = tiny_labelling.ground_truth(ann_file).image(10)
    torch.testing.assert_close(first.bboxes, own.bboxes * 2)
    assert int(dump.object_counts().sum()) == 11


def test_the_mirror_image_is_in_the_scores(tmp_path: Path, monkeypatch) -> None:
    """One that sees nothing halves them."""
    ann_file = tiny_labelling.write_images(tmp_path)
    detector = tiny_labelling.build_teacher()
    num_classes = detector.num_classes

    def blind(self, teacher, boxes, metas) -> torch.Tensor:
        scores = torch.zeros(sum(map(len, boxes)), num_classes + 1)
        scores[:, -1] = 1
        return scores

    monkeypatch.setattr(MirrorView, 'scores', blind)
    found = []
    for mirror in (False, True):
        detector.labeling_cfg = replace(detector.labeling_cfg, mirror=mirror)
        dataset = tiny_labelling.build_dataset(ann_file)
        truth = tiny_labelling.ground_truth(ann_file)
        found.append(dump_teacher(detector, dataset, truth, tmp_path / str(mirror), {}))
    for alone, both in zip(found[0].images, found[1].images, strict=True):
        torch.testing.assert_close(both.scores[:, :-1], alone.scores[:, :-1] / 2)


@pytest.mark.parametrize('without', [None, 0, 2])
def test_evidence_at_every_temperature(tmp_path: Path, without: int | None) -> None:
    ann_file = tiny_labelling.write_images(tmp_path, count=1)
    detector = tiny_labelling.build_teacher()
    head = detector.teacher.roi_head.bbox_head
    if without is not None:
        head.prototype_counts[without] = 0
    valid = head.prototype_counts > 0
    dump = dump_teacher(
        detector,
        tiny_labelling.build_dataset(ann_file),
        tiny_labelling.ground_truth(ann_file),
        tmp_path / 'dumps',
        {},
    )
    # The dump's forward pass was the last one, and nothing was below the floor or behind it.
    features = head.penultimate_features
    (image,) = dump.images
    rows = None
    for temperature in dump.temperatures:
        expected = prototype_log_evidence(
            features, head.prototypes, head.prototype_counts, temperature
        ) + np.log(int(valid.sum()))
        found = image.log_evidence(dump.temperatures, temperature)
        assert found is not None
        if rows is None:
            distance = torch.cdist(found, expected)
            rows = distance.argmin(1)
        torch.testing.assert_close(found, expected[rows], atol=1e-3, rtol=1e-3)
        assert not found[:, ~valid].any()


def test_many_classes_keep_the_best_and_the_rest_as_one(monkeypatch) -> None:
    monkeypatch.setattr(teacher_dump, 'TOPK', 3)
    foreground = torch.tensor([[0.1, 0.3, 0.05, 0.2, 0.01]])
    assert teacher_dump._chosen_classes(foreground, None).tolist() == [[0, 1, 3]]
    # Strong evidence brings class 4 in, beside the two surest.
    evidence = torch.tensor([[0.0, 0.0, 0.0, 0.0, 6.0]])
    assert teacher_dump._chosen_classes(foreground, evidence).tolist() == [[1, 3, 4]]


def test_bad_input(tmp_path: Path) -> None:
    ann_file = tiny_labelling.write_images(tmp_path)
    detector = tiny_labelling.build_teacher()
    truth = tiny_labelling.ground_truth(ann_file)
    with pytest.raises(ValueError, match='no image'):
        dump_teacher(detector, [], truth, tmp_path / 'dumps', {})
    assert not (tmp_path / 'dumps').exists()
    truth._images.pop(12)
    dataset = tiny_labelling.build_dataset(ann_file)
    with pytest.raises(AnnotationError, match='12'):
        dump_teacher(detector, dataset, truth, tmp_path / 'dumps', {})
    shard = next((tmp_path / 'dumps').rglob('meta.json')).with_name('shard-00000.npz')
    truth = tiny_labelling.ground_truth(ann_file)
    dump_teacher(detector, dataset, truth, tmp_path / 'dumps', {})
    whole = shard.read_bytes()
    middle = len(whole) // 3
    flipped = whole[:middle] + bytes(b ^ 255 for b in whole[middle : middle + 40])
    for content in (b'broken', whole[: len(whole) // 2], flipped + whole[middle + 40 :]):
        shard.write_bytes(content)
        with pytest.raises(ValueError, match=r'shard-00000\.npz: cannot be read'):
            dump_teacher(detector, dataset, truth, tmp_path / 'dumps', {})
