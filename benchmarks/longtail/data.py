"""The data of the benchmark: fixed parameters of the long-tail shapes, and what came out.

Shape letter: **C** classes. Raise ``VERSION`` when any number here changes: results of different
versions do not compare.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from mmdet_softpl.datasets.longtail_shapes import ShapesConfig, generate_longtail_shapes
from mmdet_softpl.datasets.splits import write_split
from mmdet_softpl.functional import GROUP_NAMES

VERSION = 1
SEED = 20240318

# 12 families of 5 look-alikes. 21 classes are rare, 24 common, 15 frequent in the labelled set.
# `val` belongs to the format and is not used: settings are chosen on `tune`.
LONGTAIL_60 = ShapesConfig(
    num_classes=60,
    image_size=128,
    num_train=500,
    num_unlabeled=4000,
    num_val=1,
    seed=SEED,
    extra_splits=(('tune', 800), ('test', 800)),
)
# For tests of the machinery: says nothing about the method.
TINY = ShapesConfig(
    num_classes=12,
    image_size=64,
    num_train=60,
    num_unlabeled=48,
    num_val=1,
    seed=SEED,
    extra_splits=(('tune', 12), ('test', 12)),
)
SPLITS = ('tune', 'test')


@dataclass(frozen=True)
class Counts:
    """What a generated set holds.

    Attributes:
        classes: rare, common and frequent classes by name of the group.
        images: Images by split.
        fewest_instances: Objects of the class that has the fewest, by split.
        unlabeled_share: Unlabelled objects per labelled one, by name of the group.
    """

    classes: dict[str, int]
    images: dict[str, int]
    fewest_instances: dict[str, int]
    unlabeled_share: dict[str, float]


def make_data(root: Path, config: ShapesConfig, workers: int | None = None) -> None:
    """Generate the data set in ``root`` unless it is there; interrupted work goes on.

    Beside it the labelled file in two parts, ``train.1@90.json`` and
    ``train.1@90-heldout.json``; a class keeps three labelled images, or all it has.

    Raises:
        FileExistsError: ``root`` holds folders that are not from here.
    """
    generate_longtail_shapes(root, config, workers=workers)
    annotations = root / 'annotations'
    if not (annotations / 'train.1@90-heldout.json').is_file():
        write_split(
            annotations / 'train.json',
            annotations,
            percent=90,
            min_images_per_class=3,
            held_out=True,
            overwrite=True,
        )


def count(root: Path) -> Counts:
    """Count what the annotation files of ``root`` hold.

    Raises:
        FileNotFoundError: The data set is not there.
    """
    files = {
        name: json.loads((root / 'annotations' / f'{name}.json').read_text())
        for name in ('train', 'hidden_unlabeled', *SPLITS)
    }
    categories = files['train']['categories']
    group = {c['id']: GROUP_NAMES['rcf'.index(c['frequency'])] for c in categories}
    instances = {
        name: Counter(a['category_id'] for a in file['annotations']) for name, file in files.items()
    }

    def total(name: str, wanted: str) -> int:
        return sum(n for category, n in instances[name].items() if group[category] == wanted)

    return Counts(
        classes={name: list(group.values()).count(name) for name in GROUP_NAMES},
        images={name: len(file['images']) for name, file in files.items()},
        fewest_instances={name: min(found[c] for c in group) for name, found in instances.items()},
        unlabeled_share={
            name: total('hidden_unlabeled', name) / max(total('train', name), 1)
            for name in GROUP_NAMES
        },
    )
