"""Ground truth of one COCO or LVIS file, by class index, with the federated rules of LVIS.

Shape letters: **C** foreground classes, **M** ground-truth boxes of one image, **N** detections
of the same image. Boxes are (x1, y1, x2, y2) in pixels.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from faster_coco_eval import COCO
from mmengine.logging import print_log
from torch import Tensor

from mmdet_softpl.datasets.annotation_entries import FEDERATED_KEYS, Faults
from mmdet_softpl.datasets.annotation_file import AnnotationError
from mmdet_softpl.datasets.class_statistics import class_statistics
from mmdet_softpl.functional.frequency import FREQUENCY_LETTERS
from mmdet_softpl.functional.matching import judge_matches, match_indices
from mmdet_softpl.messages import some_of


@dataclass(frozen=True)
class ImageTruth:
    """Ground truth of one image.

    Attributes:
        bboxes: (M, 4) float64.
        labels: (M,) int64 in [0, C).
        crowd: (M,) bool, regions that take any number of detections and count for nothing.
        judged: (C,) bool, classes known to be present or absent; of the others nothing can be
            said, and detections of them are left out (LVIS, arXiv 1908.03195, section 3).
        not_exhaustive: (C,) bool, classes of which not every object is annotated: a detection
            that finds none is left out.
    """

    bboxes: Tensor
    labels: Tensor
    crowd: Tensor
    judged: Tensor
    not_exhaustive: Tensor


def check_masks(dataset: dict, ann_file: str) -> None:
    """Raise AnnotationError for objects without a mask, which mask AP cannot be computed with.

    Args:
        dataset: Content of a COCO or LVIS json file.
        ann_file: Name of the file, for messages.
    """
    problems = Faults()
    for annotation in dataset['annotations']:
        if not isinstance(annotation.get('segmentation'), (list, dict)):
            problems.add(
                'annotation without `segmentation`',
                f'annotation id={annotation["id"]!r}',
                "Give every object a polygon or RLE, or set metric='bbox'.",
            )
    problems.raise_if_any(ann_file)


class GroundTruth:
    """The annotations of one file under the class indices of a model.

    Args:
        dataset: Content of a COCO or LVIS json file.
        class_names: (C,) names by class index, as in ``dataset_meta['classes']``.
        ann_file: Name of the file, for messages.

    Raises:
        AnnotationError: No annotations, a class name that the file does not define, or another
            order of the classes than the file's. Categories of the file that the model does not
            know are left out, with one warning.

    Attributes:
        cat_ids: (C,) category id by class index.
        federated: Whether images say which classes were checked (``neg_category_ids``).
    """

    def __init__(self, dataset: dict, class_names: Sequence[str], ann_file: str) -> None:
        if 'annotations' not in dataset:
            raise AnnotationError(
                f'{ann_file}: key `annotations` is missing. Give the file with the labels; one of '
                'unlabelled images cannot be evaluated against.'
            )
        self.ann_file = ann_file
        self.class_names = tuple(class_names)
        own_ids = category_ids(dataset['categories'], self.class_names, ann_file)
        self.cat_ids = [int(cat_id) for cat_id in own_ids]
        known = set(self.class_names)
        unknown = [c['name'] for c in dataset['categories'] if c['name'] not in known]
        if unknown:
            print_log(
                f'{ann_file}: categories {_quoted(unknown)} are not among the classes of the data '
                'set and are left out of the evaluation.',
                logger='current',
                level=logging.WARNING,
            )
        self.federated = any('neg_category_ids' in image for image in dataset['images'])
        self._label_of = {cat_id: label for label, cat_id in enumerate(self.cat_ids)}
        self._images = {image['id']: image for image in dataset['images']}
        self._annotations: dict[int, list[dict]] = defaultdict(list)
        for annotation in dataset['annotations']:
            if annotation['category_id'] in self._label_of:
                self._annotations[annotation['image_id']].append(annotation)

    def check_images(self, img_ids: Iterable[int]) -> None:
        """Raise AnnotationError for an image that the file does not have."""
        for img_id in img_ids:
            if img_id not in self._images:
                raise AnnotationError(
                    f'{self.ann_file}: images has no id {img_id!r}, but there are predictions '
                    'for it. Give the annotation file of the images that are evaluated.'
                )

    def image(self, img_id: int) -> ImageTruth:
        """The ground truth of one image.

        Raises:
            AnnotationError: The file has no image of this id.
        """
        self.check_images([img_id])
        annotations = self._annotations.get(img_id, [])
        boxes = torch.tensor([a['bbox'] for a in annotations], dtype=torch.float64).view(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = torch.tensor(
            [self._label_of[a['category_id']] for a in annotations], dtype=torch.long
        )
        crowd = torch.tensor([bool(a.get('iscrowd', 0)) for a in annotations], dtype=torch.bool)
        image = self._images[img_id]
        num_classes = len(self.cat_ids)
        if self.federated:
            judged = self._class_mask(image.get('neg_category_ids', []))
            judged[labels] = True
        else:
            judged = torch.ones(num_classes, dtype=torch.bool)
        not_exhaustive = self._class_mask(image.get('not_exhaustive_category_ids', []))
        return ImageTruth(boxes, labels, crowd, judged, not_exhaustive)

    def _class_mask(self, cat_ids: Sequence[int]) -> Tensor:
        mask = torch.zeros(len(self.cat_ids), dtype=torch.bool)
        mask[[self._label_of[cat_id] for cat_id in cat_ids if cat_id in self._label_of]] = True
        return mask


def judge_detections(
    truth: ImageTruth, bboxes: Tensor, scores: Tensor, labels: Tensor, iou_thr: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Which detections of one image can be judged, and which of those are right.

    A detection is right if it takes an object of its class in the greedy matching of
    :func:`~mmdet_softpl.functional.matching.match_indices`; what can be judged says
    :func:`~mmdet_softpl.functional.matching.judge_matches`.

    Shape: (N, 4), (N,), (N,) -> (N,) bool judged, (N,) bool correct (False where not judged).
    """
    matched = match_indices(
        bboxes, scores, labels, truth.bboxes, truth.labels, iou_thr, ignore=truth.crowd
    )
    return judge_matches(matched, truth.crowd, truth.judged[labels], truth.not_exhaustive[labels])


def frequency_letters(labeled_ann_file: str) -> dict[str, str]:
    """Class name to ``'r'``, ``'c'`` or ``'f'`` by the labelled images.

    The file's ``frequency`` where it has it and its annotations agree, else from image counts
    (LVIS: rare up to 10 images, common up to 100).

    Raises:
        AnnotationError: The file cannot be used.
    """
    statistics = class_statistics(labeled_ann_file)
    return dict(zip(statistics.classes, statistics.groups, strict=True))


def coco_api(data: dict) -> COCO:
    """What faster-coco-eval evaluates against.

    Args:
        data: Content of a COCO or LVIS file. Categories without ``frequency`` get a letter here:
            the library asks for one where images are federated, and we form the means ourselves.

    Returns:
        The index of the file, its annotations numbered from 1: the library takes a match with
        number 0, or a negative one, for none. Category ids are integers, as it wants them, also
        where a table wrote 3.0 for 3.
    """
    annotations = [
        # Some tools write null for 0.
        dict(
            a,
            id=number,
            iscrowd=int(bool(a.get('iscrowd'))),
            category_id=int(a['category_id']),
        )
        for number, a in enumerate(data['annotations'], 1)
    ]
    categories = [
        {'frequency': FREQUENCY_LETTERS[-1], **category, 'id': int(category['id'])}
        for category in data['categories']
    ]
    images = [
        dict(image, **{key: list(map(int, image[key])) for key in FEDERATED_KEYS if key in image})
        for image in data['images']
    ]
    return COCO(dict(data, annotations=annotations, categories=categories, images=images))


def groups_of_classes(
    dataset: Mapping,
    class_names: Sequence[str],
    labeled: Mapping[str, str] | None,
    labeled_ann_file: str | None = None,
) -> Tensor | None:
    """Frequency group of each class.

    Args:
        dataset: Content of the evaluated file, of which ``categories`` are read; their
            ``frequency`` letters come first.
        class_names: (C,).
        labeled: Letters by class name from :func:`frequency_letters`, where it has none; or None.
        labeled_ann_file: The file of these letters, for the message.

    Returns:
        (C,) int64, 0 rare, 1 common, 2 frequent; None where there is nothing to go by.

    Raises:
        AnnotationError: ``labeled`` lacks a class.
    """
    letters: Mapping = {c['name']: c.get('frequency') for c in dataset['categories']}
    if not all(letters.get(name) in FREQUENCY_LETTERS for name in class_names):
        if labeled is None:
            return None
        letters = labeled
        missing = [name for name in class_names if name not in letters]
        if missing:
            raise AnnotationError(
                f'labeled_ann_file={labeled_ann_file!r}: categories lacks {_quoted(missing)} of '
                f'the {len(class_names)} evaluated classes, so their frequency groups '
                'are unknown. Give the file of the labelled training images of these classes.'
            )
    return torch.tensor([FREQUENCY_LETTERS.index(letters[name]) for name in class_names])


def category_ids(
    categories: Sequence[Mapping], class_names: Sequence[str], ann_file: str
) -> list[int]:
    """Ids of the classes in a file; C numbers.

    Args:
        categories: Of the file.
        class_names: (C,) ``dataset_meta['classes']``.
        ann_file: The file, for messages.

    Raises:
        AnnotationError: The file lacks a class, or has them in another order.
    """
    ids = {category['name']: category['id'] for category in categories}
    wanted = set(class_names)
    missing = [name for name in class_names if name not in ids]
    unknown = [name for name in ids if name not in wanted]
    if missing:
        raise AnnotationError(
            f'{ann_file}: categories lacks {_quoted(missing)} of the {len(class_names)} classes in '
            f"dataset_meta['classes']; it has {_quoted(unknown or list(ids))} instead. Set "
            "metainfo=dict(classes=...) of the validation data set to the file's own names."
        )
    in_file_order = [name for name in ids if name in wanted]
    if in_file_order != list(class_names):
        moved = next(i for i, name in enumerate(class_names) if name != in_file_order[i])
        raise AnnotationError(
            f"{ann_file}: categories stand in another order than dataset_meta['classes']: label "
            f'{moved} is {class_names[moved]!r} there and {in_file_order[moved]!r} in the file. '
            'mmdet numbers labels in the order of the file, so the scores would go to the '
            'wrong classes. Sort metainfo=dict(classes=...) and all annotation files alike.'
        )
    return [ids[name] for name in class_names]


def _quoted(names: Sequence[str]) -> str:
    return some_of([repr(name) for name in names], 8, ', ')
