"""A teacher and what it saw of held-out labelled images: where tune and pilot start."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass, replace
from pathlib import Path

from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.device import get_device
from mmengine.registry import DefaultScope
from torch import Tensor

from mmdet_softpl.config_file import find_hook
from mmdet_softpl.datasets.annotation_checks import check_annotations, check_same_categories
from mmdet_softpl.datasets.annotation_file import image_file_name, load_annotation_file
from mmdet_softpl.datasets.class_statistics import ClassStatistics, class_statistics
from mmdet_softpl.datasets.config_sets import LABELLED, OTHER, configured_sets, keeps_empty
from mmdet_softpl.engine.config_parts import annotation_path, held_out_set, labeller_of
from mmdet_softpl.engine.load_teacher import load_teacher
from mmdet_softpl.evaluation.class_mix import mix_difference, mix_weights
from mmdet_softpl.evaluation.ground_truth import GroundTruth
from mmdet_softpl.evaluation.label_replay import LabelSettings
from mmdet_softpl.evaluation.teacher_dump import TeacherDump, dump_teacher
from mmdet_softpl.file_keys import file_key, images_key, seen_key, settings_hash
from mmdet_softpl.models import CalibratedSoftTeacher
from mmdet_softpl.progress import Progress

# Total variation distance of the class shares above which objects are weighted.
MIX_TOLERANCE = 0.25


@dataclass(frozen=True)
class HeldOut:
    """A teacher and its dump.

    Attributes:
        cfg: Of the training.
        detector: With the checkpoint's weights.
        dump: Of the held-out images.
        statistics: Of the labelled set, in the order of the classes.
        settings: How the config labels.
        object_weights: (C,), where the classes are mixed otherwise than in the labelled set.
        ann_file: Of the held-out images.
        warnings: Sentences about what is doubtful.
    """

    cfg: Config
    detector: CalibratedSoftTeacher
    dump: TeacherDump
    statistics: ClassStatistics
    settings: LabelSettings
    object_weights: Tensor | None
    ann_file: str
    warnings: tuple[str, ...]

    def study_name(self, *parts: object) -> str:
        """Name that changes with anything a search depends on."""
        seen = [(image.img_id, float(image.scores.sum())) for image in self.dump.images]
        return settings_hash([seen, self.detector.labeling_cfg, self.statistics, parts])


def require_optuna() -> None:
    """Raise ValueError, saying how to install it, where optuna is missing."""
    if importlib.util.find_spec('optuna') is None:
        raise ValueError(
            "tune needs optuna, which is not installed: pip install 'mmdet-softpl[tune]'."
        )


def held_out_dataset(
    cfg: Config, ann_file: str | None = None, images: str | None = None
) -> tuple[BaseDataset, dict]:
    """The held-out images and the config they were built from, see :func:`.held_out_set`."""
    leaf = dict(held_out_set(cfg, ann_file, images), test_mode=True)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet')):
        return DATASETS.build(leaf), leaf


def look_at_held_out(
    cfg: Config,
    checkpoint: str,
    out: Path,
    *,
    ann_file: str | None = None,
    images: str | None = None,
    batch_size: int = 8,
) -> HeldOut:
    """Load a checkpoint and dump its teacher's view of the held-out images below ``out``.

    Args:
        cfg: Of the training.
        checkpoint: Path.
        out: Folder for the dump, made once everything has been checked.
        ann_file, images: Held-out json and its folder; None: the validation set.
        batch_size: Images in a forward pass.

    Raises:
        ValueError: Config, checkpoint and annotations do not fit each other.
        FileNotFoundError: One of them does not exist.
    """
    _, hook = labeller_of(cfg)
    dataset, leaf = held_out_dataset(cfg, ann_file, images)
    path = annotation_path(leaf)
    detector, doubts = load_teacher(cfg, checkpoint)
    detector.to(get_device())
    classes = dataset.metainfo.get('classes') or ()
    labelled = check_annotations(hook['labeled_ann_file'], classes=classes or None)
    check_same_categories(labelled, check_annotations(path, classes=classes or None))
    statistics = replace(
        class_statistics(labelled), keeps_empty=keeps_empty(cfg, hook['labeled_ann_file'])
    )
    if len(statistics.classes) != detector.num_classes:
        raise ValueError(
            f'{cfg.filename}: the head has num_classes={detector.num_classes}, but '
            f'{hook["labeled_ann_file"]} has {len(statistics.classes)} classes.'
        )
    data = load_annotation_file(path)
    warnings = [*doubts, *_shared_images(data, path, hook['labeled_ann_file'])]
    # Before anything is written: an image may be missing.
    image_files = images_key(dataset)
    out.mkdir(parents=True, exist_ok=True)
    dump = dump_teacher(
        detector,
        dataset,
        GroundTruth(data, statistics.classes, path),
        out,
        dict(
            checkpoint=file_key(checkpoint),
            **seen_key(cfg, path, image_files, leaf.get('pipeline')),
        ),
        batch_size=batch_size,
        progress=Progress('looking at held-out images'),
    )
    objects = dump.object_counts()
    difference = mix_difference(statistics, objects)
    weights = None
    if difference > MIX_TOLERANCE:
        weights = mix_weights(statistics, objects, len(dump.images))
        warnings.append(
            f'{path}: {difference:.0%} of the objects would have to change class for the mix of '
            f'{hook["labeled_ann_file"]}, so objects are weighted by class. A held-out part of '
            'the labelled images is surer.'
        )
    settings = LabelSettings.from_configs(
        hook,
        cfg.model.get('semi_train_cfg') or {},
        held_out=find_hook(cfg, 'HeldOutCalibrationHook') is not None,
    )
    if dump.temperatures:
        settings = replace(settings, temperature=dump.temperatures[0])
    return HeldOut(cfg, detector, dump, statistics, settings, weights, path, tuple(warnings))


def training_images_held_out(cfg: Config, ann_file: str) -> list[str]:
    """Warnings where held-out images are labelled training images of a config, by their names.

    Args:
        cfg: Of a training; its labelled files that are not here say nothing.
        ann_file: Of the held-out images.
    """
    data = load_annotation_file(ann_file)
    trained = [
        one.ann_file for one in configured_sets(cfg) if one.role == LABELLED and one.kind != OTHER
    ]
    present = dict.fromkeys(path for path in trained if os.path.isfile(path))
    return [line for path in present for line in _shared_images(data, ann_file, path)]


def _shared_images(data: dict, path: str, labeled_ann_file: str) -> list[str]:
    own = {image_file_name(image) for image in data['images']}
    trained = {image_file_name(i) for i in load_annotation_file(labeled_ann_file)['images']}
    shared = sorted(str(name) for name in own & trained)
    if not shared:
        return []
    return [
        f'{path}: {len(shared)} of {len(own)} images have the name of a labelled image of '
        f'{labeled_ann_file} (first {shared[0]!r}). If they are the same, the teacher has trained '
        'on them and everything looks better than it is.'
    ]
