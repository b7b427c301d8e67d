"""Which objects the images of the generated long-tail shapes show.

Shape letters: C classes, M images of a split.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmdet_softpl.checks import check_range
from mmdet_softpl.frequency_bounds import COMMON_MAX_IMAGES, RARE_MAX_IMAGES

from .shape_classes import MAX_CLASSES, shape_classes

# Shares of the classes that are rare and common; the rest is frequent.
RARE_SHARE, COMMON_SHARE = 0.35, 0.4
# The commonest class is in this share of the images, as `person` nearly is in COCO.
MAX_IMAGE_SHARE = 0.55
# The least frequent "frequent" class gets a margin: an object may find no room in its image.
FREQUENT_MARGIN = 1.12
CLASSES_PER_BALANCED_IMAGE = 3.0
MAX_CLASSES_PER_IMAGE = 9
EXTRA_INSTANCE_PROBABILITY = 0.25

_RESERVED = (
    'train',
    'unlabeled',
    'val',
    'hidden_unlabeled',
    'annotations',
    'classes',
    'root',
    'shapes',
)


@dataclass(frozen=True)
class ShapesConfig:
    """Parameters of the data set; equal parameters give equal files.

    Attributes:
        num_classes: C in [2, 96].
        image_size: side of the square images in pixels, at least 64.
        num_train: labelled images with the long tail. From about 240 on all three frequency
            groups are filled.
        num_unlabeled: unlabelled images with the same tail.
        num_val: validation images, classes near-uniform.
        seed: of everything. Each split draws from its own stream, so changing the size of one
            leaves the others as they are (the tail of the unlabelled follows the labelled).
        extra_splits: pairs (name, number of images) of further near-uniform splits, such as
            ``(('tune', 200), ('test', 500))``.
    """

    num_classes: int = 12
    image_size: int = 128
    num_train: int = 300
    num_unlabeled: int = 600
    num_val: int = 120
    seed: int = 0
    extra_splits: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        check_range('ShapesConfig', 'num_classes', self.num_classes, 2, MAX_CLASSES)
        check_range('ShapesConfig', 'image_size', self.image_size, 64, 1024)
        check_range('ShapesConfig', 'seed', self.seed, 0, None)
        for name, count in self.splits.items():
            check_range('ShapesConfig', f'number of {name} images', count, 1, None)
        for name, _ in self.extra_splits:
            if name in _RESERVED or not name.isidentifier():
                raise ValueError(
                    f'ShapesConfig: extra_splits has the name {name!r}; take a word other than '
                    f'{", ".join(_RESERVED)}.'
                )
        if len({name for name, _ in self.extra_splits}) != len(self.extra_splits):
            raise ValueError(f'ShapesConfig: extra_splits={self.extra_splits} repeats a name.')
        per_image = _tail_counts(self).sum() / self.num_train
        if per_image > MAX_CLASSES_PER_IMAGE:
            raise ValueError(
                f'ShapesConfig: num_train={self.num_train} is too small for num_classes='
                f'{self.num_classes}: {per_image:.0f} classes an image do not fit. Raise num_train '
                'or lower num_classes.'
            )

    @property
    def splits(self) -> dict[str, int]:
        """Images of every split, in the order of their image ids."""
        fixed = {'train': self.num_train, 'unlabeled': self.num_unlabeled, 'val': self.num_val}
        return {**fixed, **dict(self.extra_splits)}

    @property
    def classes(self) -> tuple[str, ...]:
        """C class names in label order."""
        return tuple(shape.name for shape in shape_classes(self.num_classes))


def plan_splits(config: ShapesConfig) -> dict[str, list[list[int]]]:
    """Decide which classes each image shows.

    Labelled and unlabelled images follow the tail (:func:`_tail_counts`), the others are
    near-uniform. Classes are spread over the images at random, fuller images less often.

    Args:
        config: the parameters.

    Returns:
        For each split, for each image, the class index of every object to place.
    """
    tail = _tail_counts(config)
    plans = {}
    for name, num_images in config.splits.items():
        rng = np.random.default_rng(random_stream(config, name))
        if name in ('train', 'unlabeled'):
            counts = np.maximum(1, np.round(tail * num_images / config.num_train))
        else:
            mean = CLASSES_PER_BALANCED_IMAGE * num_images / config.num_classes
            counts = np.maximum(1, np.round(mean * rng.uniform(0.85, 1.15, config.num_classes)))
        plans[name] = _assign(np.minimum(counts, num_images).astype(int), num_images, rng)
    return plans


def _tail_counts(config: ShapesConfig) -> np.ndarray:
    """Planned labelled images of each class, (C,) in label order.

    Falls exponentially over the ranks within each frequency group (a Zipf law with a flat head
    and a steep end), so that every group gets its share of the classes. With too few images for
    a frequent class it falls from the most frequent class to 1 in one piece.
    """
    num_classes = config.num_classes
    most = max(1.0, MAX_IMAGE_SHARE * config.num_train)
    least_frequent = FREQUENT_MARGIN * (COMMON_MAX_IMAGES + 1)
    if most > least_frequent:
        rare, common = round(RARE_SHARE * num_classes), round(COMMON_SHARE * num_classes)
        pieces = [
            (most, least_frequent, num_classes - rare - common),
            (0.9 * COMMON_MAX_IMAGES, RARE_MAX_IMAGES + 3, common),
            (RARE_MAX_IMAGES - 1, 1, rare),
        ]
        by_rank = np.concatenate([np.geomspace(*piece) for piece in pieces if piece[2]])
    else:
        by_rank = np.geomspace(most, 1, num_classes)
    # Ranks go round the families, so each has frequent and rare members and each rare class
    # has a frequent look-alike; which member is which is left to the seed.
    rng = np.random.default_rng(random_stream(config, 'ranks'))
    families: dict[str, list[int]] = {}
    for index, shape in enumerate(shape_classes(num_classes)):
        families.setdefault(shape.outline, []).append(index)
    orders = [rng.permutation(members).tolist() for members in families.values()]
    ranked: list[int] = []
    while any(orders):
        for i in rng.permutation(len(orders)):
            if orders[i]:
                ranked.append(orders[i].pop())
    counts = np.empty(num_classes)
    counts[ranked] = np.round(by_rank)
    return counts


def _assign(counts: np.ndarray, num_images: int, rng: np.random.Generator) -> list[list[int]]:
    """Put class c into ``counts[c]`` images; objects of each image."""
    plan: list[list[int]] = [[] for _ in range(num_images)]
    load = np.zeros(num_images)
    for label in np.argsort(-counts, kind='stable').tolist():
        # Gumbel noise on log weights: a weighted draw without replacement.
        keys = rng.gumbel(size=num_images) - 0.7 * load
        for image in np.argsort(-keys)[: counts[label]].tolist():
            repeats = 1 + int(rng.random() < EXTRA_INSTANCE_PROBABILITY)
            plan[image] += [label] * repeats
            load[image] += repeats
    return plan


def random_stream(config: ShapesConfig, *names: str | int) -> list[int]:
    """Seed of an independent random stream.

    Args:
        config: the parameters; its seed counts.
        names: what the stream is for.

    Returns:
        Words for ``numpy.random.default_rng``; other names give another stream.
    """
    words = [list(name.encode()) if isinstance(name, str) else [name] for name in names]
    return [config.seed, *(value for word in words for value in [len(word), *word])]
