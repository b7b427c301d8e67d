"""Do projected masks sit on their objects? Pictures and overlaps on real images.

The ground-truth masks of the weak view, cropped to 28 x 28 in their boxes, take the teacher's
place. They go through the package's own projection into the strong view (flip, resize,
rotation, shear, translation of `semi_coco_instance.py`), where they are compared with the masks
that mmdet's pipeline itself moved there. The boxes of the pseudo-labels are compared with the
boxes of those masks, and so are the hulls of the turned weak boxes, which they replace.

    python benchmarks/view_pairs.py DATA_ROOT OUT_DIR

writes OUT_DIR/view_pair_N.png and prints the mean overlap (IoU) of the masks of each image drawn,
and of masks and boxes of all.

Shape letters: **K** instances of an image.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

import mmdet_softpl  # noqa: F401  isort: skip
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps
from mmdet.utils import register_all_modules

from mmdet_softpl.functional import paste_roi_masks, resample_roi_masks, warp_boxes
from mmdet_softpl.models.student_losses import project
from mmdet_softpl.models.teacher_labels import TeacherView
from mmdet_softpl.reporting.figure import save_figure
from mmdet_softpl.reporting.pseudo_labels import draw_view_pair
from mmdet_softpl.shipped_configs import config_path

MASK_SIZE = 28
# Of a smaller object the host's own rounding moves too large a part.
MIN_PIXELS = 400
# Views of this size keep the run short; angles and shifts are those of the recipe.
SCALE = [(666, 300), (666, 500)]


@dataclass(frozen=True)
class ViewPair:
    """An image in both views.

    Attributes:
        weak_image, strong_image: (H, W, 3) uint8 RGB.
        weak, strong: dicts as ``draw_view_pair`` takes them; row i of both is one instance.
        overlaps: (K,) IoU of the projected mask and the one that the pipeline moved, nan for
            objects of less than ``MIN_PIXELS`` pixels.
        box_overlaps: (K,) IoU of the projected box and the box of the mask that the pipeline
            moved, nan likewise.
        hull_overlaps: (K,) the same of the hull of the weak view's box.
        homography: (3, 3) weak view -> strong view.
    """

    weak_image: np.ndarray
    strong_image: np.ndarray
    weak: dict[str, Any]
    strong: dict[str, Any]
    overlaps: np.ndarray
    box_overlaps: np.ndarray
    hull_overlaps: np.ndarray
    homography: np.ndarray


def load_view_pairs(
    data_root: Path, ann_file: str, img_prefix: str, seed: int = 0
) -> tuple[Iterator[ViewPair], tuple[str, ...]]:
    """View pairs of all images that have instances, and the class names.

    Args:
        data_root: Folder of a COCO data set.
        ann_file: Its annotation file, below ``data_root``.
        img_prefix: Its image folder, below ``data_root``.
        seed: Of the augmentations.
    """
    register_all_modules(init_default_scope=False)
    init_default_scope('mmdet')
    cfg = Config.fromfile(config_path('_base_/datasets/semi_coco_instance'))
    views = cfg.unsup_pipeline[-1]
    for pipeline in (views.unsup_teacher, views.unsup_student):
        pipeline[0].scale = SCALE
    # Erased patches would be cut out of the compared masks, too.
    views.unsup_student = [step for step in views.unsup_student if step.type != 'RandomErasing']
    load = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
    pipeline = Compose([dict(type='LoadImageFromFile'), load, views])
    dataset = DATASETS.build(
        dict(
            type='CocoDataset',
            data_root=str(data_root),
            ann_file=ann_file,
            data_prefix=dict(img=img_prefix),
            filter_cfg=dict(filter_empty_gt=True),
            pipeline=[],
        )
    )
    np.random.seed(seed)
    pairs = (view_pair(pipeline(dataset.get_data_info(i))) for i in range(len(dataset)))
    return pairs, dataset.metainfo['classes']


def view_pair(views: dict[str, Any]) -> ViewPair:
    """Project the masks of the weak view into the strong one."""
    teacher, student = (views['data_samples'][b] for b in ('unsup_teacher', 'unsup_student'))
    view = TeacherView((torch.zeros(1),), [_ground_truth(teacher)])
    batch = project(view, [teacher], [student])
    found, boxes = batch.instances, batch.bboxes[0]
    images = torch.zeros(len(boxes), dtype=torch.long)
    masks, _ = resample_roi_masks(
        found.mask_probs,
        found.bboxes,
        boxes,
        torch.arange(len(boxes)),
        batch.homographies[images],
        batch.teacher_shapes[images],
        size=MASK_SIZE,
    )
    pasted = paste_roi_masks(masks, boxes, student.img_shape[:2]).numpy()
    moved = student.gt_instances.masks.masks[found.index.numpy()].astype(bool)
    large = moved.sum((1, 2)) >= MIN_PIXELS
    overlaps = np.full(len(boxes), np.nan)
    for i in large.nonzero()[0]:
        overlaps[i] = (pasted[i] & moved[i]).sum() / (pasted[i] | moved[i]).sum()
    true_boxes = _boxes_of(moved)
    hulls = warp_boxes(found.bboxes, batch.homographies[0].inverse(), tuple(student.img_shape[:2]))
    shared = dict(labels=found.labels, confidences=found.confidences, kept=found.kept)
    return ViewPair(
        weak_image=_picture(views['inputs']['unsup_teacher']),
        strong_image=_picture(views['inputs']['unsup_student']),
        weak=dict(shared, bboxes=found.bboxes, masks=found.mask_probs),
        strong=dict(shared, bboxes=boxes, masks=pasted),
        overlaps=overlaps,
        box_overlaps=np.where(large, _aligned_ious(boxes, true_boxes), np.nan),
        hull_overlaps=np.where(large, _aligned_ious(hulls, true_boxes), np.nan),
        homography=np.linalg.inv(batch.homographies[0].double().numpy()),
    )


def _ground_truth(sample: DetDataSample) -> InstanceData:
    """The annotated instances, as the teacher would have found them."""
    truth = sample.gt_instances
    boxes = truth.bboxes.tensor
    inds = torch.arange(len(boxes))
    masks = truth.masks.crop_and_resize(boxes, (MASK_SIZE, MASK_SIZE), inds)
    return InstanceData(
        bboxes=boxes,
        labels=truth.labels,
        mask_probs=torch.from_numpy(masks.masks).float(),
        confidences=torch.ones(len(boxes)),
        kept=torch.ones(len(boxes), dtype=torch.bool),
        index=inds,
    )


def _boxes_of(masks: np.ndarray) -> torch.Tensor:
    """(K, H, W) -> (K, 4), zeros for an empty mask."""
    boxes = torch.zeros(len(masks), 4)
    for i, mask in enumerate(masks):
        y, x = mask.nonzero()
        if len(x):
            boxes[i] = torch.tensor([x.min(), y.min(), x.max() + 1, y.max() + 1])
    return boxes


def _aligned_ious(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    return bbox_overlaps(a, b, is_aligned=True).numpy()


def _picture(inputs: torch.Tensor) -> np.ndarray:
    """(3, H, W) uint8 BGR -> (H, W, 3) RGB."""
    return np.ascontiguousarray(inputs.numpy()[::-1].transpose(1, 2, 0))


def main() -> None:
    """Draw the pairs and print their overlaps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('data_root', type=Path, help='folder of a COCO data set')
    parser.add_argument('out_dir', type=Path, help='gets the pictures')
    parser.add_argument('--ann-file', default='instances_train2017.json')
    parser.add_argument('--img-prefix', default='train2017/')
    parser.add_argument('--pictures', type=int, default=6, help='how many pairs to draw')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    pairs, classes = load_view_pairs(args.data_root, args.ann_file, args.img_prefix, args.seed)
    args.out_dir.mkdir(parents=True, exist_ok=True)
    means: list[float] = []
    boxes: list[np.ndarray] = []
    hulls: list[np.ndarray] = []
    for number, pair in enumerate(pairs):
        boxes.append(pair.box_overlaps)
        hulls.append(pair.hull_overlaps)
        if np.isfinite(pair.overlaps).any():
            means.append(float(np.nanmean(pair.overlaps)))
        if number < args.pictures:
            figure = draw_view_pair(
                pair.weak_image, pair.strong_image, pair.weak, pair.strong, classes
            )
            path = args.out_dir / f'view_pair_{number}.png'
            save_figure(figure, path)
            print(f'{path}: IoU {means[-1] if means else float("nan"):.3f}')
    print(
        f'{len(means)} images: mean IoU {np.mean(means):.3f}, '
        f'worst image {np.min(means):.3f}, below 0.8: {np.sum(np.array(means) < 0.8)}'
    )
    for name, overlaps in (('boxes of masks', boxes), ('hulls of boxes', hulls)):
        values = np.concatenate(overlaps)
        values = values[np.isfinite(values)]
        print(
            f'{name}: {len(values)} objects, mean IoU {values.mean():.3f}, '
            f'below 0.75: {np.mean(values < 0.75):.3f}'
        )


if __name__ == '__main__':
    main()
