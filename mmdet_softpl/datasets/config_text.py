"""The text of a config for a user's own data."""

from __future__ import annotations

from typing import Any

from .config_sets import LABELLED, VALIDATION
from .own_data import HELD_OUT, OwnData
from .training_plan import (
    ARCHITECTURES,
    BASE_BATCH,
    FIXED_GB,
    LABELLED_PASSES,
    UNLABELLED_PASSES,
    TrainingPlan,
)

_WIDTH = 100
_TEMPLATE = '''\
"""{title}

Written by `python -m mmdet_softpl new-config`. Paths are relative to the folder in which the
training is started. Look at the data with `python -m mmdet_softpl inspect THIS_FILE`.
"""

# The shipped files, wherever mmdet_softpl is installed.
_base_ = [
    str(__import__('mmdet_softpl.shipped_configs', fromlist=['_']).config_path(name))
    for name in (
        {model!r},
        {dataset!r},
        {schedule!r},
    )
]

labeled_ann_file = {labeled_json!r}
val_ann_file = {val_json!r}
# In the order of the labelled json, which is the order of the labels.
classes = {classes}
metainfo = dict(classes=classes)

{heads}
# To start from a COCO-trained detector, whose heads are left out, instead of ImageNet weights:
# mim download mmdet --config {zoo_config} --dest checkpoints
# model['detector']['init_cfg'] = dict(type='Pretrained', checkpoint='checkpoints/FILE.pth')

# ---- data --------------------------------------------------------------------------------
labeled_dataset = _base_.labeled_dataset
labeled_dataset.update(
    type={labelled_type!r},
    data_root='',
    metainfo=metainfo,
    ann_file=labeled_ann_file,
    data_prefix=dict(img={labeled_images!r}),
)
unlabeled_dataset = _base_.unlabeled_dataset
unlabeled_dataset.update(
    data_root='', ann_file={unlabeled_json!r}, data_prefix=dict(img={unlabeled_images!r})
)
val_dataset = dict(
    type={val_type!r},
    data_root='',
    metainfo=metainfo,
    ann_file=val_ann_file,
    data_prefix=dict(img={val_images!r}),
)
{sizes}{sources}
# {batch_reason}
batch_size = {batch_per_gpu}
train_dataloader = dict(
    batch_size=batch_size,
    sampler=dict(batch_size=batch_size),
    # Of the type that pastes labelled objects into all images, rare classes more often: add
    # max_num_pasted=0 where an object means nothing outside its place.
    dataset=dict(datasets=[{labelled_source}, unlabeled_dataset]{balance}),
)
val_dataloader = dict(dataset=val_dataset)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=val_ann_file, labeled_ann_file=labeled_ann_file)
test_evaluator = val_evaluator

# ---- schedule ----------------------------------------------------------------------------
# {schedule_reason}
supervised_iters = {supervised_iters}
max_iters = {max_iters}
{train_cfg}
# {lr_reason}
# With another number of GPUs `--auto-scale-lr` of tools/train.py scales it; the iterations stay.
auto_scale_lr = dict(base_batch_size={batch})
optim_wrapper = dict(optimizer=dict(lr={lr}))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end={warmup_iters}),
    dict(type='MultiStepLR', by_epoch=False, milestones={milestones}, gamma=0.1),
]
default_hooks = dict(checkpoint=dict(interval={checkpoint_interval}))
custom_hooks = _base_.custom_hooks
# {momentum_reason}
custom_hooks[0].update(
    supervised_iters=supervised_iters, ramp_iters={ramp_iters}, momentum={momentum}
)
custom_hooks.append(
    dict(
        _base_.pseudo_labeler,
        labeled_ann_file=labeled_ann_file,
        # A hundredth of the part with unlabelled images, between 50 and 500.
        interval={refresh_interval},
    )
)
{calibration}'''

_ONE_HEAD = """\
num_classes = len(classes)
model = dict(
    detector=dict(
        roi_head=dict(
            bbox_head=dict(num_classes=num_classes), mask_head=dict(num_classes=num_classes)
        )
    )
)"""

_CASCADE = """\
num_classes = len(classes)
model = dict(
    detector=dict(
        roi_head=dict(
            bbox_head=[
                dict(head, num_classes=num_classes)
                for head in _base_.model.detector.roi_head.bbox_head
            ],
            mask_head=dict(num_classes=num_classes),
        )
    )
)"""

_SIZES = """
# The median labelled image has a longer side of {longer_side:.0f} pixels: the shipped sizes
# ({longer}) in proportion, so that it is at most doubled.
scale = [({0}, {1}), ({0}, {2})]
labeled_dataset.pipeline[2].scale = scale
unlabeled_dataset.pipeline[2].unsup_teacher[0].scale = scale
unlabeled_dataset.pipeline[2].unsup_student[0].scale = scale
val_pipeline = _base_.test_pipeline
val_pipeline[1].scale = ({0}, {3})
val_dataset.update(pipeline=val_pipeline)
"""

_HELD_OUT = """
# ---- calibration -------------------------------------------------------------------------
# On labelled images that nobody trains on; the pipeline is that of validation with labels.
held_out_pipeline = list(val_dataset.get('pipeline', _base_.test_pipeline))
held_out_pipeline.insert(1, dict(type='LoadAnnotations', with_bbox=True))
custom_hooks.append(
    dict(
        type='mmdet_softpl.HeldOutCalibrationHook',
        dataloader=dict(
            batch_size=4,
            num_workers=2,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(
                type={type!r},
                data_root='',
                metainfo=metainfo,
                ann_file={file!r},
                data_prefix=dict(img={images!r}),
                test_mode=True,
                pipeline=held_out_pipeline,
            ),
        ),
        interval={interval},
    )
)
"""

_BALANCED = """
# The commonest class is in {most:,} labelled images, the rarest in {least:,}, and an image is seen
# a few dozen times: images of classes in fewer images than the median class come up more often
# (repeat factor sampling).
balanced_dataset = dict(
    type='ClassBalancedDataset', oversample_thr={oversample_thr}, dataset=labeled_dataset
)
"""


def config_text(
    data: OwnData,
    plan: TrainingPlan,
    arch: str,
    *,
    base_lr: float,
    gpus: int,
    gpu_memory: float,
) -> str:
    """A config that inherits the shipped ones and trains as it is.

    Args:
        data: what it trains on.
        plan: its batch and schedule.
        arch: key of ``ARCHITECTURES``.
        base_lr: learning rate of the shipped schedule, for 8 images a step.
        gpus, gpu_memory: that ``plan`` was made for; they stand in the comments.

    Returns:
        Python source, UTF-8.
    """
    architecture = ARCHITECTURES[arch]
    summary = data.labelled.summary
    assert summary is not None  # check_own_data raises otherwise
    counts = [int(n) for n in summary.image_counts if n > 0]
    labelled, unlabelled = data.labelled.used_images, data.unlabelled.used_images
    return _TEMPLATE.format(
        title=(
            f'{arch}: {labelled:,} labelled and {unlabelled:,} unlabelled images, '
            f'{len(summary.classes)} classes.'
        ),
        model=architecture.model,
        dataset='semi_coco_instance',
        schedule=architecture.schedule,
        zoo_config=architecture.zoo_config,
        classes=_tuple(summary.classes),
        heads=_CASCADE if arch.startswith('cascade') else _ONE_HEAD,
        labelled_type=data.dataset_types[LABELLED],
        val_type=data.dataset_types[VALIDATION],
        sizes=_sizes(data, plan),
        sources=(
            _BALANCED.format(
                most=max(counts), least=min(counts), oversample_thr=plan.oversample_thr
            )
            if plan.oversample_thr is not None
            else ''
        ),
        labelled_source='labeled_dataset' if plan.oversample_thr is None else 'balanced_dataset',
        # As the shipped LVIS configs have it: many classes have one or two objects.
        balance=', balance=0.5' if summary.federated else '',
        calibration=(
            _HELD_OUT.format(
                type=data.dataset_types[HELD_OUT],
                file=data.paths['held_out_json'],
                images=data.paths['labeled_images'],
                interval=plan.refresh_interval,
            )
            if data.held_out is not None
            else ''
        ),
        batch_reason=_batch_reason(plan, gpus, gpu_memory),
        schedule_reason=_schedule_reason(data, plan),
        lr=float(f'{base_lr * plan.lr_factor:.6g}'),
        lr_reason=(
            f'The shipped {base_lr:g} is for {BASE_BATCH} images a step, here it is {plan.batch}: '
            'linear rule.'
        ),
        momentum_reason=(
            "The teacher forgets within a tenth of the part with unlabelled images, or the base's "
            '2,500\n# iterations if that is shorter.'
        ),
        milestones=list(plan.milestones),
        train_cfg=_train_cfg(plan),
        **{name: data.paths.get(name, '') for name in _PATHS},
        **{name: getattr(plan, name) for name in _NUMBERS},
    )


_PATHS = (
    'labeled_json',
    'labeled_images',
    'unlabeled_json',
    'unlabeled_images',
    'val_json',
    'val_images',
)
_NUMBERS = (
    'batch',
    'batch_per_gpu',
    'supervised_iters',
    'max_iters',
    'checkpoint_interval',
    'warmup_iters',
    'ramp_iters',
    'momentum',
    'refresh_interval',
)


def _train_cfg(plan: TrainingPlan) -> str:
    if plan.later_val_interval == plan.val_interval:
        return f'train_cfg = dict(max_iters=max_iters, val_interval={plan.val_interval})'
    return f"""\
train_cfg = dict(
    max_iters=max_iters,
    val_interval={plan.val_interval},
    # After the first part more rarely; mmengine counts from the iteration after the next.
    dynamic_intervals=[(supervised_iters + 2, {plan.later_val_interval})],
)"""


def _tuple(names: tuple[str, ...]) -> str:
    line = f'({", ".join(map(repr, names))}{"," if len(names) == 1 else ""})'
    if len('classes = ' + line) <= _WIDTH:
        return line
    return '(\n' + ''.join(f'    {name!r},\n' for name in names) + ')'


def _sizes(data: OwnData, plan: TrainingPlan) -> str:
    if plan.scale is None:
        return ''
    shipped = '1333 by 400 to 1200'
    return _SIZES.format(*plan.scale, longer_side=data.longer_side, longer=shipped)


def _batch_reason(plan: TrainingPlan, gpus: int, gpu_memory: float) -> str:
    halves = 'Half of a batch is labelled, half is not.'
    if gpus == 0:
        return f'{halves} On a CPU: the smallest batch.'
    text = (
        f'{halves} {gpus} GPU{"s" if gpus > 1 else ""} of {gpu_memory:g} GB: {FIXED_GB:g} GB and '
        f'about {plan.gb_per_image:.1f} GB\n# for each image of the largest size (from the '
        "memory in mmdet's model zoo, an estimate)."
    )
    if not plan.fits:
        text += (
            '\n# By it not even two images fit: if memory runs out, add '
            "optim_wrapper.type='AmpOptimWrapper' or\n# lower `scale` in the pipelines."
        )
    return text


def _passes(count: float) -> str:
    return f'{count:,.0f}' if count >= 100 else f'{count:.3g}'


def _schedule_reason(data: OwnData, plan: TrainingPlan) -> str:
    half: Any = plan.batch / 2
    labelled = _passes(plan.supervised_iters * half / data.labelled.used_images)
    rest = plan.max_iters - plan.supervised_iters
    unlabelled = _passes(rest * half / data.unlabelled.used_images)
    return (
        f'Labelled images alone first: {labelled} passes (the rule is {LABELLED_PASSES}, but '
        f'between 2,000 and\n# 60,000 iterations of {BASE_BATCH} images), then {unlabelled} '
        f'passes over the unlabelled ones (the rule is {UNLABELLED_PASSES},\n# but at least 4 '
        f'times the first part where 180,000 iterations of {BASE_BATCH} images in all allow it).'
    )
