"""Data sets, their checks and their splits; importing it registers the data sets."""

from .annotation_checks import (
    AnnotationError,
    AnnotationSummary,
    ClassStatistics,
    check_annotations,
    check_num_classes,
    check_same_categories,
    class_statistics,
)
from .longtail_shapes import ShapesConfig, generate_longtail_shapes
from .splits import write_split
from .unlabeled_image_dataset import UnlabeledImageDataset

__all__ = [
    'AnnotationError',
    'AnnotationSummary',
    'ClassStatistics',
    'ShapesConfig',
    'UnlabeledImageDataset',
    'check_annotations',
    'check_num_classes',
    'check_same_categories',
    'class_statistics',
    'generate_longtail_shapes',
    'write_split',
]
