"""Class frequencies of a labelled COCO or LVIS file.

Shape letters: C classes, in the order of the file's ``categories``, which is the order in
which the host numbers its labels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmdet_softpl.frequency_bounds import COMMON_MAX_IMAGES, RARE_MAX_IMAGES

from .annotation_cache import known_annotations
from .annotation_checks import AnnotationSummary, check_annotations

LEGEND = (
    f'r: rare, up to {RARE_MAX_IMAGES} labelled images; c: common, up to {COMMON_MAX_IMAGES}; '
    'f: frequent (or what an LVIS file says)'
)


@dataclass(frozen=True)
class ClassStatistics:
    """Class frequencies of a labelled set, in label order.

    Attributes:
        classes: C class names.
        image_counts: (C,) int64, m_c, counted images that hold class c.
        instance_counts: (C,) int64, n_c, counted instances of class c.
        num_images: images of the set.
        num_labelled_images: those that hold an instance.
        groups: C letters, ``'r'``, ``'c'`` or ``'f'``.
        source: ``'file'`` when the file gives ``image_count``, ``instance_count`` and
            ``frequency`` of every class and they agree with its annotations, ``'counted'`` when
            nothing of the file was used (it gives none of them, or its ``image_count`` is wrong),
            ``'mixed'`` otherwise.
        keeps_empty: whether training keeps images without an annotation
            (``filter_empty_gt=False``), so that they are labelled as empty. Else it drops them,
            and often nobody has looked at them yet.
        federated, partial: those of the :class:`.AnnotationSummary`.
    """

    classes: tuple[str, ...]
    image_counts: np.ndarray
    instance_counts: np.ndarray
    num_images: int
    num_labelled_images: int
    groups: tuple[str, ...]
    source: str
    keeps_empty: bool = False
    federated: bool = False
    partial: bool = False

    def labelled_rate(self) -> np.ndarray:
        """Instances per labelled image, r_c = n_c / M.

        Returns:
            (C,) float64 >= 0.
        """
        images = self.num_images if self.keeps_empty else self.num_labelled_images
        return self.instance_counts / max(images, 1)


def frequency_letter(image_count: int) -> str:
    """LVIS frequency group of a class.

    Args:
        image_count: labelled images that hold the class, >= 0.

    Returns:
        ``'r'`` up to 10 images, ``'c'`` up to 100, ``'f'`` above (LVIS; design, section 4).
    """
    if image_count <= RARE_MAX_IMAGES:
        return 'r'
    return 'c' if image_count <= COMMON_MAX_IMAGES else 'f'


def class_statistics(
    annotations: AnnotationSummary | str | os.PathLike, classes: Sequence[str] | None = None
) -> ClassStatistics:
    """Class frequencies m_c, n_c, M and groups of a labelled set (design, section 4).

    The counts are those of the annotations. The groups are the file's ``frequency`` where every
    class has one, unless its ``image_count`` contradicts the annotations, as in a part that was
    cut out of an LVIS file with the categories of the whole: then they follow from the counts
    (the summary's ``warnings`` say so).

    Args:
        annotations: a summary, or the path of a labelled json, which is checked first.
        classes: as in :func:`.check_annotations`; only with a path.

    Returns:
        The statistics, in label order.

    Raises:
        AnnotationError: from :func:`.check_annotations`.
    """
    if isinstance(annotations, AnnotationSummary):
        summary = annotations
    else:
        # LVIS takes half a minute, and the hook of a training has read it already.
        known = known_annotations(annotations, classes)
        summary = known or check_annotations(annotations, classes=classes)
    declared, letters = summary.declared_image_counts, summary.frequency
    if declared is not None and not np.array_equal(declared, summary.image_counts):
        declared = letters = None
        agreeing = 0
    else:
        instances = summary.declared_instance_counts
        agreeing = sum(
            (
                declared is not None,
                letters is not None,
                instances is not None and np.array_equal(instances, summary.instance_counts),
            )
        )
    return ClassStatistics(
        classes=summary.classes,
        image_counts=np.array(summary.image_counts, dtype=np.int64),
        instance_counts=np.array(summary.instance_counts, dtype=np.int64),
        num_images=summary.num_images,
        num_labelled_images=summary.num_labelled_images,
        groups=letters or tuple(frequency_letter(int(m)) for m in summary.image_counts),
        source={0: 'counted', 3: 'file'}.get(agreeing, 'mixed'),
        federated=summary.federated,
        partial=summary.partial,
    )
