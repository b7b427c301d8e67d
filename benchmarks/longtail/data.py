"""The data of the benchmark: fixed parameters of the long-tail shapes, and what came out.

Shape letter: **C** classes. Raise ``VERSION`` when any number here changes: results of different
versions do not compare.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmdet_softpl.atomic_json import write_json
from mmdet_softpl.datasets.longtail_shapes import generate_longtail_shapes
from mmdet_softpl.datasets.shape_plan import ShapesConfig
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
# Of what is drawn: the generated set, in the folder of the drawn one.
POOL = 'pool'
# What was drawn, written before anything else of it.
_DRAWN = 'draw.json'
_LABELED_FILES = ('train', 'hidden_unlabeled')
_BARE_KEYS = ('id', 'file_name', 'width', 'height')


@dataclass(frozen=True)
class Draw:
    """Which of the labelled and unlabelled images together are the labelled ones.

    Attributes:
        labeled: How many, at random but for the classes.
        min_images_per_class: That a class has at least, or all there are.
        seed: Of the draw.
    """

    labeled: int
    min_images_per_class: int = 1
    seed: int = 1


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


def make_data(
    root: Path, config: ShapesConfig, draw: Draw | None = None, workers: int | None = None
) -> None:
    """Generate the data set in ``root`` unless it is there; interrupted work goes on.

    Beside it the labelled file in two parts, ``train.1@90.json`` and
    ``train.1@90-heldout.json``; a class keeps three labelled images, or all it has.

    Args:
        root: Folder of the set.
        config: Its parameters.
        draw: Which images are labelled; as generated if None.
        workers: Processes that draw pictures.

    Raises:
        FileExistsError: ``root`` holds folders that are not from here, of other parameters, or of
            another draw.
    """
    root.mkdir(parents=True, exist_ok=True)
    with _alone(root):
        if draw is None:
            _refuse_others(root, config)
            generate_longtail_shapes(root, config, workers=workers)
        else:
            _claim(root, config, draw)
            generate_longtail_shapes(root / POOL, config, workers=workers)
            _draw_labeled(root, draw)
        _hold_out(root / 'annotations')


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Runs in other folders may share the data: the second waits, and finds them."""
    folder = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _hold_out(annotations: Path) -> None:
    held_out, train = annotations / 'train.1@90-heldout.json', annotations / 'train.json'
    # One of other data is older.
    if not held_out.is_file() or held_out.stat().st_mtime_ns < train.stat().st_mtime_ns:
        write_split(
            annotations / 'train.json',
            annotations,
            percent=90,
            min_images_per_class=3,
            held_out=True,
            overwrite=True,
        )


def _refuse_others(root: Path, config: ShapesConfig) -> None:
    """Shapes of other parameters would be replaced, and a training may be reading them."""
    marker = root / 'shapes.json'
    wanted = json.loads(json.dumps(asdict(config)))
    if not marker.is_file():
        return
    found = _read(marker)
    if any(found.get(key) != value for key, value in wanted.items()):
        raise FileExistsError(
            f'{root} holds shapes of other parameters ({marker}); give another folder with --data.'
        )


def _claim(root: Path, config: ShapesConfig, draw: Draw) -> None:
    """Mark the folder as this draw's, or refuse it: another set's images look the same."""
    marker = root / _DRAWN
    wanted = json.loads(json.dumps(dict(version=VERSION, shapes=asdict(config), draw=asdict(draw))))
    if marker.is_file():
        found = _read(marker)
        for key, value in wanted.items():
            if found.get(key) != value:
                raise FileExistsError(
                    f'{root} holds another data set: {marker} has {key}={found.get(key)}, wanted '
                    f'is {value}; give another folder with --data.'
                )
        return
    if (root / 'annotations').exists():
        raise FileExistsError(
            f'{root} holds another data set: it has annotations and no {_DRAWN}; give another '
            'folder with --data.'
        )
    marker.parent.mkdir(parents=True, exist_ok=True)
    write_json(marker, wanted)


def _draw_labeled(root: Path, draw: Draw) -> None:
    """The set of ``root / POOL`` with other labelled images; groups and evaluation are as there."""
    source, target = root / POOL, root / 'annotations'
    # The last file that is written.
    if (target / 'unlabeled.json').is_file():
        return
    target.mkdir(parents=True, exist_ok=True)
    train, hidden = (_read(source / 'annotations' / f'{n}.json') for n in _LABELED_FILES)
    both = target / 'both.json'
    write_json(
        both,
        dict(
            train,
            images=train['images'] + hidden['images'],
            annotations=train['annotations'] + _renumbered(hidden, len(train['annotations'])),
        ),
    )
    summary = write_split(
        both,
        target,
        count=draw.labeled,
        seed=draw.seed,
        min_images_per_class=draw.min_images_per_class,
        held_out=True,
        overwrite=True,
    )
    parts = dict(zip(_LABELED_FILES, (summary.labeled_file, summary.rest_file), strict=True))
    for name, path in parts.items():
        part = _read(path)
        # Groups are those of the generated set, or APr would be of other classes in every draw.
        for category, generated in zip(part['categories'], train['categories'], strict=True):
            category['frequency'] = generated['frequency']
        folder = root / name.removeprefix('hidden_')
        for image in part['images']:
            _link(source / image['file_name'].split('_')[0] / image['file_name'], folder)
        write_json(target / f'{name}.json', part)
        path.unlink()
    both.unlink()
    for split in SPLITS:
        for path in (source / split).iterdir():
            _link(path, root / split)
        shutil.copy(source / 'annotations' / f'{split}.json', target)
    shutil.copy(source / 'annotations' / 'classes.txt', target)
    unlabeled = _read(target / 'hidden_unlabeled.json')
    images = [{key: image[key] for key in _BARE_KEYS} for image in unlabeled['images']]
    write_json(target / 'unlabeled.json', dict(unlabeled, images=images, annotations=[]))


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def _renumbered(data: dict[str, Any], offset: int) -> list[dict[str, Any]]:
    return [dict(a, id=offset + i) for i, a in enumerate(data['annotations'], 1)]


def _link(path: Path, folder: Path) -> None:
    """A second name for a picture, or a copy where the file system has none."""
    folder.mkdir(exist_ok=True)
    new = folder / path.name
    if new.exists():
        return
    try:
        os.link(path, new)
    except OSError:
        shutil.copy(path, new)


def count(root: Path) -> Counts:
    """Count what the annotation files of ``root`` hold.

    Raises:
        FileNotFoundError: The data set is not there.
    """
    files = {
        name: _read(root / 'annotations' / f'{name}.json') for name in (*_LABELED_FILES, *SPLITS)
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
