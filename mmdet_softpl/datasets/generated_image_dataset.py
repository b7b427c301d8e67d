"""A data set of generated images whose labels have passed the gate."""

from __future__ import annotations

import warnings
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS as MMDET_DATASETS

from mmdet_softpl.registry import DATASETS

from .annotation_file import load_annotation_file
from .gated_labels import gated_images, has_area, is_kept
from .unlabeled_image_dataset import of_min_size


@MMDET_DATASETS.register_module()
@DATASETS.register_module()
class GeneratedImageDataset(CocoDataset):
    """Generated images with the labels that ``python -m mmdet_softpl gate`` has kept.

    Labels that the gate rejected are left out. Objects that the teacher sees and no kept label
    names are crowd regions in the file (``iscrowd``), so they become ``ignored_instances``; set
    ``ignore_iof_thr=0.5`` in the detector's assigners so that they are no background either.
    Images without a kept label that mmdet can use are left out: they would be all background.

    Args:
        ann_file: Json that the gate wrote.
        labeled_ann_file: Labelled json, whose counts the budget goes by.
        target_count: Instances of each class that labelled and generated images should have
            together, >= 1. Images are taken for the rarest class first, surest labels first, until
            it is reached. None: all images.
        **kwargs: Of the host's ``CocoDataset``.

    Raises:
        AnnotationError: ``ann_file`` or ``labeled_ann_file`` is not usable, or their categories
            differ.
        ValueError: ``ann_file`` did not come from the gate; only one of ``labeled_ann_file`` and
            ``target_count`` is given; no label was kept, or none that mmdet can use.
    """

    def __init__(
        self,
        *args: Any,
        labeled_ann_file: str | None = None,
        target_count: int | None = None,
        **kwargs: Any,
    ) -> None:
        if (labeled_ann_file is None) != (target_count is None):
            raise ValueError(
                'GeneratedImageDataset: labeled_ann_file and target_count belong together, got '
                f'{labeled_ann_file!r} and {target_count!r}.'
            )
        if target_count is not None and target_count < 1:
            raise ValueError(
                f'GeneratedImageDataset: target_count must be at least 1, got {target_count!r}.'
            )
        self.labeled_ann_file = labeled_ann_file
        self.target_count = target_count
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Images with kept labels, within the budget.

        Raises:
            AnnotationError, ValueError: As the class.
        """
        chosen, lost = gated_images(
            self.ann_file,
            load_annotation_file(self.ann_file),
            self.metainfo['classes'],
            self.labeled_ann_file,
            self.target_count,
        )
        if lost:
            warnings.warn(f'GeneratedImageDataset: {lost}', stacklevel=2)
        infos = [info for info in super().load_data_list() if info['img_id'] in chosen]
        # The labelled file may have these numbers too, and say of them (LVIS) what it checked.
        return [dict(info, img_id=f'generated-{info["img_id"]}') for info in infos]

    def parse_data_info(self, raw_data_info: dict) -> dict | list[dict]:
        """As the host's, of the annotations that the gate kept."""
        annotations = [a for a in raw_data_info['raw_ann_info'] if is_kept(a) and has_area(a)]
        return super().parse_data_info({**raw_data_info, 'raw_ann_info': annotations})

    def filter_data(self) -> list[dict]:
        """Leave out images below ``filter_cfg['min_size']``; empty ones are gone already."""
        if self.test_mode or self.filter_cfg is None:
            return self.data_list
        return of_min_size(self.data_list, self.filter_cfg.get('min_size', 0), self.ann_file)
