"""Registries of the scope ``mmdet_softpl``: ``type='mmdet_softpl.X'`` in any config.

mmengine imports ``<scope>.registry`` when it meets an unknown scope, and each registry
below imports its ``locations`` on its first lookup; therefore no ``custom_imports`` is
needed for the prefixed names. The plain names (``type='X'``) are registered beside them
in mmdet's own registries when the modules are imported.
"""

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import Registry

SCOPE = 'mmdet_softpl'

MODELS = Registry('model', parent=MMENGINE_MODELS, scope=SCOPE, locations=['mmdet_softpl.models'])
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope=SCOPE, locations=['mmdet_softpl.engine'])
DATASETS = Registry(
    'dataset',
    parent=MMENGINE_DATASETS,
    scope=SCOPE,
    locations=[
        'mmdet_softpl.datasets.generated_image_dataset',
        'mmdet_softpl.datasets.rare_copy_paste_dataset',
        'mmdet_softpl.datasets.unlabeled_image_dataset',
    ],
)
METRICS = Registry(
    'metric', parent=MMENGINE_METRICS, scope=SCOPE, locations=['mmdet_softpl.evaluation']
)
