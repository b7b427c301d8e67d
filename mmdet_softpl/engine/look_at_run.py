"""What the report wants from the checkpoint of a training: examples and the bias check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DefaultScope

from mmdet_softpl.config_file import find_hook
from mmdet_softpl.datasets.annotation_file import AnnotationError, load_annotation_file
from mmdet_softpl.datasets.config_sets import LABELLED, UNLABELLED, configured_sets
from mmdet_softpl.datasets.image_ids import image_ids_by_file
from mmdet_softpl.engine.boost_check import BoostCheck, check_boost
from mmdet_softpl.engine.config_parts import (
    annotation_path,
    held_out_set,
    loading_pipeline,
    training_set,
)
from mmdet_softpl.engine.label_examples import Example, find_examples
from mmdet_softpl.engine.load_teacher import load_teacher, read_config
from mmdet_softpl.functional import FREQUENT
from mmdet_softpl.messages import some_of
from mmdet_softpl.models import CalibratedSoftTeacher
from mmdet_softpl.progress import Progress


class RunModel:
    """The detector of a training with the data sets of its config.

    Args:
        config: That mmengine saved in the work directory.
        checkpoint: Of the training.
        device: For torch, e.g. ``'cpu'``.
        max_images: Images of a data set to look at, spread evenly over it.

    Raises:
        ValueError: Config and checkpoint do not make a ``CalibratedSoftTeacher``.

    Attributes:
        doubts: Sentences about what is doubtful.
        classes: (C,) names, known once a data set was looked at.
    """

    def __init__(self, config: Path, checkpoint: Path, device: str, max_images: int) -> None:
        self.cfg: Config = read_config(str(config))
        self.detector: CalibratedSoftTeacher
        self.detector, self.doubts = load_teacher(self.cfg, str(checkpoint))
        if find_hook(self.cfg, 'RareBoostPseudoLabeler') is None:
            # Nobody counted: without the labeller all classes have group 0, rare.
            self.detector.class_state.groups.fill_(FREQUENT)
        self.detector.to(device)
        self.max_images = max_images
        self.classes: tuple[str, ...] = ()

    def examples(self) -> tuple[int, list[Example]]:
        """Number of unlabelled images looked at, and what is worth a look.

        Raises:
            ValueError: The config has no unlabelled set.
            OSError: Its images are not there.
        """
        dataset = self._build(training_set(self.cfg, UNLABELLED)[1])
        indices = self._spread(dataset)
        found = find_examples(
            self.detector, dataset, indices, progress=Progress('looking at unlabelled images')
        )
        return len(indices), found

    def check(self, hidden_ann_file: str | None = None) -> tuple[str, BoostCheck]:
        """The judged images in words, and the bias check on them.

        Args:
            hidden_ann_file: json with the labels of the unlabelled images, which are found in it
                by their files; None: the validation set is judged.

        Raises:
            ValueError: The labels do not fit the images, or there is no validation set.
            OSError: A file is not there.
        """
        if hidden_ann_file is None:
            leaf = held_out_set(self.cfg)
            ann_file, what = annotation_path(leaf), 'validation images'
        else:
            leaf = training_set(self.cfg, UNLABELLED)[1]
            ann_file, what = hidden_ann_file, 'unlabelled images with hidden labels'
        dataset = self._build(leaf)
        indices = self._spread(dataset)
        # The set has ids of its own: of another json, or positions in a folder.
        img_ids = None if hidden_ann_file is None else _hidden_ids(dataset, indices, ann_file)
        found = check_boost(
            self.detector,
            dataset,
            indices,
            ann_file,
            _labeled_ann_file(self.cfg),
            Progress('judging pseudo-labels, with the boost and without'),
            img_ids,
        )
        return f'{len(indices)} {what}', found

    def _build(self, leaf: dict[str, Any]) -> BaseDataset:
        plain = dict(leaf, pipeline=loading_pipeline(self.cfg), test_mode=True)
        plain.pop('indices', None)
        # Unlabelled images need no classes in training, and then have none.
        own = (plain.get('metainfo') or {}).get('classes')
        classes = own or next(
            (s.classes for s in configured_sets(self.cfg) if s.role == LABELLED and s.classes), None
        )
        if classes:
            plain['metainfo'] = dict(plain.get('metainfo') or {}, classes=classes)
        with DefaultScope.overwrite_default_scope(self.cfg.get('default_scope', 'mmdet')):
            dataset = DATASETS.build(plain)
        self.classes = tuple(dataset.metainfo.get('classes') or ())
        return dataset

    def _spread(self, dataset: BaseDataset) -> Sequence[int]:
        count = min(self.max_images, len(dataset))
        return np.unique(np.linspace(0, len(dataset) - 1, count).astype(int)).tolist()


def _hidden_ids(dataset: BaseDataset, indices: Sequence[int], hidden_ann_file: str) -> list[int]:
    paths = [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]
    images = load_annotation_file(hidden_ann_file)['images']
    ids = image_ids_by_file(paths, images, dataset.data_prefix['img'])
    missing = [paths[i] for i in indices if paths[i] not in ids]
    if missing:
        raise AnnotationError(
            f'{hidden_ann_file}: images lacks {len(missing)} of the {len(indices)} unlabelled '
            f'images that are judged, by `file_name`: {some_of(missing)}. '
            'Give the labels of these images, with names relative to '
            f'{dataset.data_prefix["img"]!r}.'
        )
    return [ids[paths[i]] for i in indices]


def _labeled_ann_file(cfg: Config) -> str | None:
    hook = find_hook(cfg, 'RareBoostPseudoLabeler')
    path = hook[1].get('labeled_ann_file') if hook else None
    if path:
        return path
    given = cfg.get('val_evaluator') or []
    for metric in given if isinstance(given, (list, tuple)) else [given]:
        if metric.get('labeled_ann_file'):
            return metric['labeled_ann_file']
    return None


def attempt(
    action: Callable[[], Any], what: str, missing: list[str], strict: bool = False
) -> Any | None:
    """What ``action`` returns; None, with a line in ``missing``, where it cannot be had.

    Args:
        action: May raise ValueError, OSError or KeyError for what the user's files lack, and run
            out of memory on a GPU.
        what: Begins the line.
        missing: Gets the line.
        strict: Raise instead, for what the user asked for by name. A full GPU says nothing
            about that and never raises.
    """
    try:
        return action()
    except (ValueError, OSError, KeyError) as error:
        if strict:
            raise
        text = str(error).strip().splitlines()
        missing.append(f'{what}: {text[0] if text else type(error).__name__}')
    except RuntimeError as error:
        # torch.OutOfMemoryError where tensors find no room, another one where CUDA itself does.
        if 'out of memory' not in str(error):
            raise
        missing.append(f'{what}: the GPU has too little free memory; give --device cpu.')
    return None
