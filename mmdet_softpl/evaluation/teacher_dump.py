"""What a teacher sees of labelled images, stored once so that labelling can be replayed.

Stored is what comes before boosts, thresholds and NMS. Nothing is lost for settings that leave the
detector, ``score_floor`` and the temperatures of ``TEMPERATURES`` as they are and the head has at
most ``TOPK`` classes: a RoI whose objectness is not above the floor cannot pass it under any boost.
With more classes, those of the highest score and of the highest score with prototype evidence are
kept, and the rest of a RoI's probability is one further column.

Shape legend: I images, R stored RoIs of an image, C foreground classes (background has index C),
k stored classes of a RoI, T temperatures, M ground-truth boxes of an image.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from mmengine.dataset import BaseDataset, pseudo_collate
from torch import Tensor

from mmdet_softpl.atomic_json import replaced_together, write_json
from mmdet_softpl.datasets.load_items import load_items, scale_of
from mmdet_softpl.evaluation.ground_truth import GroundTruth, ImageTruth
from mmdet_softpl.models import CalibratedSoftTeacher
from mmdet_softpl.models.mirror_view import mirror_view
from mmdet_softpl.models.roi_adapter import class_boxes, score_rois, stages_of
from mmdet_softpl.models.smoothed_ce_head import SmoothedCEHead
from mmdet_softpl.models.teacher_labels import evidence_of, smoothing_of

TEMPERATURES = (0.05, 0.07, 0.1, 0.15, 0.2)
"""Temperatures of the prototype evidence at which a dump can be replayed, beside the head's own."""
TOPK = 32
SHARD_SIZE = 64
FORMAT = 2


@dataclass(frozen=True)
class DumpedImage:
    """One image of a dump, boxes in pixels of the teacher's view.

    Attributes:
        img_id: As in the annotation file.
        classes: (R, k) int64 in [0, C).
        scores: (R, k + 2) raw probabilities: of ``classes``, of all other classes, of background.
        bboxes: (R, k, 4), or (R, 1, 4) for a class-agnostic box head.
        evidence: (R, k) prototype log-evidence relative to a uniform guess, at the first of the
            dump's temperatures, NaN for a class without a prototype; None where the head keeps
            no prototypes.
        shifts: (R, T) row constants of the evidence at each temperature, or None.
        truth: Ground truth, boxes in pixels of the view.
    """

    img_id: int
    classes: Tensor
    scores: Tensor
    bboxes: Tensor
    evidence: Tensor | None
    shifts: Tensor | None
    truth: ImageTruth

    def log_evidence(self, temperatures: Sequence[float], temperature: float) -> Tensor | None:
        """(R, k) evidence at one of the dump's temperatures.

        log softmax(cos / T') is (T / T') log softmax(cos / T) plus a constant of the row, which
        is stored, so no cosine is needed. That of a class without a prototype is 0.
        """
        if self.evidence is None or self.shifts is None:
            return None
        column = list(temperatures).index(temperature)
        evidence = temperatures[0] / temperature * self.evidence + self.shifts[:, column, None]
        return evidence.nan_to_num(nan=0.0)


@dataclass(frozen=True)
class TeacherDump:
    """All images of a dump.

    Attributes:
        class_names: (C,).
        temperatures: Of the prototype evidence, the head's own first; empty without prototypes.
        images: In the order of the data set.
        smoothing: Strength of the label smoothing that the teacher has learnt, in [0, 1).
    """

    class_names: tuple[str, ...]
    temperatures: tuple[float, ...]
    images: tuple[DumpedImage, ...]
    smoothing: float = 0.0

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)

    def object_counts(self) -> Tensor:
        """(C,) ground-truth objects, without crowds."""
        counts = torch.zeros(self.num_classes, dtype=torch.long)
        for image in self.images:
            labels = image.truth.labels[~image.truth.crowd]
            counts += torch.bincount(labels, minlength=self.num_classes)
        return counts


def dump_teacher(
    detector: CalibratedSoftTeacher,
    dataset: BaseDataset,
    truth: GroundTruth,
    parent: str | os.PathLike,
    source: dict[str, Any],
    *,
    batch_size: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TeacherDump:
    """Run the teacher over a data set, or read what an earlier call stored.

    The dump lies in ``parent/teacher-HASH``, where the hash is that of ``source`` and of what the
    detector is asked for: another checkpoint or another data set makes another dump. Shards of 64
    images are written one by one, so that an interrupted call goes on where it was.

    Args:
        detector: In any mode; put into evaluation mode.
        dataset: With a test pipeline that ends in ``PackDetInputs`` with ``img_id`` and
            ``scale_factor``.
        truth: The annotations of these images.
        parent: Folder of the dumps; made if missing.
        source: What identifies checkpoint and images (``mmdet_softpl.file_keys``), plain values.
        batch_size: Images in a forward pass.
        progress: Called with the images done and all images.

    Raises:
        AnnotationError: An image is not in the annotations.
        ValueError: The data set is empty.
    """
    if not len(dataset):
        raise ValueError(f'{truth.ann_file}: no image to look at; give a json with images.')
    temperatures = _temperatures(detector)
    meta = dict(
        source,
        format=FORMAT,
        num_images=len(dataset),
        class_names=list(truth.class_names),
        score_floor=detector.labeling_cfg.score_floor,
        temperatures=list(temperatures),
        topk=TOPK,
        shard_size=SHARD_SIZE,
    )
    text = json.dumps(meta, sort_keys=True)
    folder = Path(parent) / f'teacher-{hashlib.sha256(text.encode()).hexdigest()[:10]}'
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / 'meta.json', meta, indent=1)
    detector.eval()
    images: list[DumpedImage] = []
    for number, start in enumerate(range(0, len(dataset), SHARD_SIZE)):
        indices = range(start, min(start + SHARD_SIZE, len(dataset)))
        path = folder / f'shard-{number:05d}.npz'
        if not path.is_file():
            part: list[DumpedImage] = []
            for first in range(indices.start, indices.stop, batch_size):
                batch = range(first, min(first + batch_size, indices.stop))
                part += _look(detector, dataset, batch, truth, temperatures)
                progress(batch.stop, len(dataset))
            _write_shard(path, part)
        images += _read_shard(path)
        progress(indices.stop, len(dataset))
    smoothing = smoothing_of(detector.teacher.roi_head)
    return TeacherDump(truth.class_names, temperatures, tuple(images), smoothing)


def _prototype_head(detector: CalibratedSoftTeacher) -> SmoothedCEHead | None:
    head = stages_of(detector.teacher.roi_head)[-1].bbox_head
    keeps = isinstance(head, SmoothedCEHead) and head.keeps_prototypes
    return head if keeps and bool((head.prototype_counts > 0).any()) else None


def _temperatures(detector: CalibratedSoftTeacher) -> tuple[float, ...]:
    head = _prototype_head(detector)
    if head is None:
        return ()
    own = float(head.temperature)
    return (own, *(t for t in TEMPERATURES if t != own))


@torch.no_grad()
def _look(
    detector: CalibratedSoftTeacher,
    dataset: BaseDataset,
    indices: Sequence[int],
    truth: GroundTruth,
    temperatures: Sequence[float],
) -> list[DumpedImage]:
    """The images of one forward pass."""
    teacher = detector.teacher
    items = load_items(dataset, indices)
    data = detector.image_preprocessor(pseudo_collate(items), False)
    samples = data['data_samples']
    x = teacher.extract_feat(data['inputs'])
    proposals = teacher.rpn_head.predict(x, samples, rescale=False)
    boxes = [result.bboxes for result in proposals]
    metas = [sample.metainfo for sample in samples]
    rois, scores, deltas = score_rois(teacher.roi_head, x, boxes, metas)
    evidence = _evidence(detector, temperatures, len(rois))
    prototypes = _prototype_head(detector)
    valid = None if prototypes is None else prototypes.prototype_counts > 0
    head = stages_of(teacher.roi_head)[-1].bbox_head
    # A RoI below the floor stays below it under any boost: class scores sum to its objectness.
    cfg = detector.labeling_cfg
    stored = 1 - scores[:, -1] > cfg.score_floor
    if cfg.mirror:
        refined = rois[:, 1:].split([len(proposal) for proposal in boxes])
        mirrored = mirror_view(teacher, data['inputs'])
        scores = (scores + mirrored.scores(teacher, refined, metas)) / 2
    images, start = [], 0
    for meta, proposal in zip(metas, boxes, strict=True):
        rows = stored[start : start + len(proposal)].nonzero().squeeze(1) + start
        start += len(proposal)
        foreground = scores[rows, :-1]
        classes = _chosen_classes(foreground, None if evidence is None else evidence[0, rows])
        kept = foreground.gather(1, classes)
        rest = (foreground.sum(1) - kept.sum(1)).clamp(min=0)
        if classes.shape[1] == foreground.shape[1]:
            rest = torch.zeros_like(rest)
        # One box for all classes is stored once.
        drawn = classes if deltas.shape[1] > 4 else classes[:, :1]
        pairs = rows[:, None].expand_as(drawn).flatten(), drawn.flatten()
        decoded = class_boxes(head, rois[:, 1:], deltas, *pairs, meta['img_shape'])
        own = shifts = None
        if evidence is not None and valid is not None:
            own = torch.where(valid, evidence[0, rows], torch.nan).gather(1, classes)
            shifts = _shifts(evidence[:, rows][..., valid], temperatures).cpu()
        images.append(
            DumpedImage(
                img_id=int(meta['img_id']),
                classes=classes.cpu(),
                scores=torch.cat([kept, rest[:, None], scores[rows, -1:]], 1).cpu(),
                bboxes=decoded.view(*drawn.shape, 4).float().cpu(),
                evidence=None if own is None else own.cpu(),
                shifts=shifts,
                truth=_in_view(truth.image(int(meta['img_id'])), scale_of(meta)),
            )
        )
    return images


def _evidence(
    detector: CalibratedSoftTeacher, temperatures: Sequence[float], num_rois: int
) -> Tensor | None:
    """(T, N, C) evidence of the last forward pass at each temperature."""
    head = _prototype_head(detector)
    if head is None:
        return None
    ones = head.prototype_counts.new_ones(detector.num_classes)
    values = [
        evidence_of(detector.teacher.roi_head, ones, num_rois, temperature=temperature)
        for temperature in temperatures
    ]
    known = [value for value in values if value is not None]
    return torch.stack(known) if len(known) == len(values) else None


def _shifts(evidence: Tensor, temperatures: Sequence[float]) -> Tensor:
    """(R, T) from (T, R, V): what the evidence at each temperature has beside the first's.

    V are classes with a prototype; the row's constant is the same for all of them.
    """
    ratios = evidence.new_tensor([temperatures[0] / t for t in temperatures])
    return evidence[:, :, 0].T - ratios * evidence[0, :, :1]


def _chosen_classes(foreground: Tensor, evidence: Tensor | None) -> Tensor:
    """(R, k) classes worth storing: the best by score and the best by score and evidence."""
    num_classes = foreground.shape[1]
    if num_classes <= TOPK:
        return torch.arange(num_classes, device=foreground.device).expand(len(foreground), -1)
    rank = _ranks(foreground)
    if evidence is not None:
        tiny = torch.finfo(foreground.dtype).tiny
        rank = torch.minimum(rank, _ranks(foreground.clamp_min(tiny).log() + evidence))
    return rank.topk(TOPK, dim=1, largest=False).indices.sort(dim=1).values


def _ranks(values: Tensor) -> Tensor:
    return values.argsort(dim=1, descending=True).argsort(dim=1)


def _in_view(truth: ImageTruth, scale: Tensor) -> ImageTruth:
    return ImageTruth(
        truth.bboxes * scale.to(truth.bboxes.dtype),
        truth.labels,
        truth.crowd,
        truth.judged,
        truth.not_exhaustive,
    )


def _write_shard(path: Path, images: Sequence[DumpedImage]) -> None:
    """Beside ``path``, then renamed."""

    def rows(tensors: Sequence[Tensor | None]) -> np.ndarray:
        return torch.cat([tensor for tensor in tensors if tensor is not None]).numpy()

    truths = [image.truth for image in images]
    arrays: dict[str, Any] = dict(
        img_ids=np.array([image.img_id for image in images], dtype=np.int64),
        rois=np.array([len(image.scores) for image in images], dtype=np.int64),
        objects=np.array([len(truth.labels) for truth in truths], dtype=np.int64),
        classes=rows([image.classes.to(torch.int16) for image in images]),
        scores=rows([image.scores for image in images]),
        bboxes=rows([image.bboxes for image in images]),
        gt_bboxes=rows([truth.bboxes for truth in truths]),
        gt_labels=rows([truth.labels for truth in truths]),
        gt_crowd=rows([truth.crowd for truth in truths]),
        judged=np.stack([truth.judged.numpy() for truth in truths]),
        not_exhaustive=np.stack([truth.not_exhaustive.numpy() for truth in truths]),
    )
    if images[0].evidence is not None:
        arrays['evidence'] = rows([image.evidence for image in images])
        arrays['shifts'] = rows([image.shifts for image in images])
    with replaced_together(path) as (temporary,):
        np.savez_compressed(temporary, **arrays)


def _read_shard(path: Path) -> list[DumpedImage]:
    try:
        with np.load(path) as archive:
            arrays = {key: torch.from_numpy(archive[key]) for key in archive.files}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise ValueError(f'{path}: cannot be read ({error}); remove it and start again.') from error
    counts, objects = arrays['rois'].tolist(), arrays['objects'].tolist()
    per_roi = {
        key: arrays[key].split(counts)
        for key in ('classes', 'scores', 'bboxes', 'evidence', 'shifts')
        if key in arrays
    }
    per_object = {k: arrays[k].split(objects) for k in ('gt_bboxes', 'gt_labels', 'gt_crowd')}
    return [
        DumpedImage(
            img_id=img_id,
            classes=per_roi['classes'][i].long(),
            scores=per_roi['scores'][i],
            bboxes=per_roi['bboxes'][i],
            evidence=per_roi['evidence'][i] if 'evidence' in per_roi else None,
            shifts=per_roi['shifts'][i] if 'shifts' in per_roi else None,
            truth=ImageTruth(
                per_object['gt_bboxes'][i],
                per_object['gt_labels'][i],
                per_object['gt_crowd'][i],
                arrays['judged'][i],
                arrays['not_exhaustive'][i],
            ),
        )
        for i, img_id in enumerate(arrays['img_ids'].tolist())
    ]
