"""Are the teacher's names better when it also looks at the mirror image?

At the true boxes of images with annotations the teacher is asked for the class, once in the view
itself, then as the mean with its mirror image (``mirror`` of ``semi_train_cfg``). Only names are
judged, not boxes.

    python benchmarks/label_views.py CONFIG CHECKPOINT ANN_FILE IMG_DIR

prints a table: accuracy of the best class, the area under precision over recall of each class's
score (mean over classes), both per frequency group, and the negative log-likelihood.

Shape letters: **N** objects, **C** foreground classes.
"""

from __future__ import annotations

import argparse

import torch

import mmdet_softpl  # noqa: F401  isort: skip
from mmdet.registry import DATASETS
from mmdet.structures.bbox import get_box_tensor
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from torch import Tensor

from benchmarks.crops.learner import average_precision
from mmdet_softpl.datasets.annotation_checks import check_annotations
from mmdet_softpl.datasets.class_statistics import class_statistics
from mmdet_softpl.engine.config_parts import labeller_of
from mmdet_softpl.engine.load_teacher import load_teacher
from mmdet_softpl.functional import GROUP_NAMES
from mmdet_softpl.models import CalibratedSoftTeacher
from mmdet_softpl.models.mirror_view import mirror_view
from mmdet_softpl.models.roi_adapter import score_rois
from mmdet_softpl.progress import Progress

BATCH_SIZE = 8


@torch.no_grad()
def look(
    detector: CalibratedSoftTeacher, dataset, num_images: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Class probabilities of the true objects in the view and in its mirror image.

    Args:
        detector: In evaluation mode.
        dataset: With annotations and the pipeline of a test, and ``LoadAnnotations``.
        num_images: The first ones.

    Returns:
        (N, C) probabilities given that it is an object, in the view and in its mirror image; (N,)
        labels.
    """
    teacher = detector.teacher
    looks: tuple[list[Tensor], list[Tensor]] = ([], [])
    labels = []
    progress = Progress('looking at images')
    count = min(num_images, len(dataset))
    for start in range(0, count, BATCH_SIZE):
        items = [dataset[i] for i in range(start, min(start + BATCH_SIZE, count))]
        data = teacher.data_preprocessor(pseudo_collate(items), False)
        truth = [sample.gt_instances for sample in data['data_samples']]
        boxes = [get_box_tensor(instances.bboxes).float() for instances in truth]
        metas = [sample.metainfo for sample in data['data_samples']]
        x = teacher.extract_feat(data['inputs'])
        scores = score_rois(teacher.roi_head, x, boxes, metas)[1]
        mirrored = mirror_view(teacher, data['inputs']).scores(teacher, boxes, metas)
        for parts, part in zip(looks, (scores, mirrored), strict=True):
            foreground = part[:, :-1]
            parts.append(foreground / foreground.sum(1, keepdim=True).clamp_min(1e-12))
        labels.append(torch.cat([instances.labels for instances in truth]))
        progress(start + len(items), count)
    return torch.cat(looks[0]), torch.cat(looks[1]), torch.cat(labels)


def row(scores: Tensor, labels: Tensor, groups: Tensor) -> list[float]:
    """Accuracies, mean areas (each rare, common, frequent), negative log-likelihood.

    Args:
        scores: (N, C).
        labels: (N,).
        groups: (C,) 0, 1, 2; a group without an object gives nan.
    """
    right = (scores.argmax(1) == labels).float()
    classes = torch.arange(len(groups))
    areas = torch.stack([average_precision(scores[:, c], labels == c) for c in classes])
    accuracies = [float(right[groups[labels] == g].mean()) for g in range(len(GROUP_NAMES))]
    means = [float(areas[groups == g].nanmean()) for g in range(len(GROUP_NAMES))]
    likelihood = scores.gather(1, labels[:, None]).clamp_min(1e-9).log().mean()
    return [*accuracies, *means, -float(likelihood)]


def main() -> None:
    """Look and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='of a training with RareBoostPseudoLabeler')
    parser.add_argument('checkpoint')
    parser.add_argument('ann_file', help='COCO json of images that were not trained on')
    parser.add_argument('img_dir')
    parser.add_argument('--images', type=int, default=500, help='the first ones (default: 500)')
    args = parser.parse_args()
    cfg = Config.fromfile(args.config)
    init_default_scope('mmdet')
    detector, warnings = load_teacher(cfg, args.checkpoint)
    for warning in warnings:
        print(warning)
    summary = check_annotations(labeller_of(cfg)[1]['labeled_ann_file'])
    statistics = class_statistics(summary)
    groups = torch.tensor(['rcf'.index(letter) for letter in statistics.groups])
    *before, pack = cfg.test_pipeline
    dataset = DATASETS.build(
        dict(
            type='CocoDataset',
            metainfo=dict(classes=statistics.classes),
            ann_file=args.ann_file,
            data_prefix=dict(img=args.img_dir),
            test_mode=True,
            pipeline=[*before, dict(type='LoadAnnotations', with_bbox=True), pack],
        )
    )
    view, mirrored, labels = look(detector.eval(), dataset, args.images)
    means = {'the view': view, 'both': (view + mirrored) / 2}
    print(f'{len(labels)} objects in {min(args.images, len(dataset))} images\n')
    print(
        '| mean over | accuracy: rare | common | frequent | area: rare | common | frequent | nll |'
    )
    print('|---|---|---|---|---|---|---|---|')
    for name, scores in means.items():
        cells = [f'{value:.3f}' for value in row(scores, labels, groups)]
        print(f'| {name} | {" | ".join(cells)} |')


if __name__ == '__main__':
    main()
