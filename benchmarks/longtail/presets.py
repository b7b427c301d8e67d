"""How long and how wide the benchmark runs: everything that is not part of a method."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from mmdet_softpl.datasets.shape_plan import ShapesConfig

from .data import LONGTAIL_60, TINY, Draw


@dataclass(frozen=True)
class Preset:
    """Sizes and schedule, the same for every arm; all iterations count from 0.

    Attributes:
        name: Of the preset.
        data: Parameters of the data set.
        stem_iters: First iterations on labelled images, before any head smooths; shared by all arms
            of a seed that draw the same labelled images.
        supervised_iters: End of the burn-in on labelled images, shared by the arms of a head and a
            seed.
        max_iters: Burn-in and the rest together.
        lr_drop: Iteration at which the learning rate falls to a tenth; constant before, so that
            the burn-in does not depend on what follows.
        ramp_iters: Iterations over which the unsupervised loss comes in.
        smoothing_iters: Iterations after the stem until smoothing starts, and as many again until
            it is at its full strength.
        refresh_interval: Iterations between two updates of thresholds, calibration, offsets.
        momentum: Share of the student in the moving average of the teacher.
        labeled_per_batch: Labelled images of an iteration; as many unlabelled ones join them.
        curve_interval: Iterations between two points of the curves.
        curve_images: First images of ``tune`` for the curves.
        pseudo_images: Size of the fixed sample of unlabelled images.
        arms: What runs if no arm is named; empty for all but those of a knob.
        seeds: Number of seeds.
        processes: Runs side by side on one GPU. On a CPU it is one a core.
        num_workers: Data processes of a run.
        network: Merged into the detector's config.
        draw: Which images are labelled, where not those that were generated so.
        varies: Name of the preset that it is, but for ``draw`` or the length.
    """

    name: str
    data: ShapesConfig
    stem_iters: int
    supervised_iters: int
    max_iters: int
    lr_drop: int
    ramp_iters: int
    smoothing_iters: int
    refresh_interval: int
    momentum: float
    labeled_per_batch: int
    curve_interval: int
    curve_images: int
    pseudo_images: int
    arms: tuple[str, ...] = ()
    seeds: int = 3
    processes: int = 6
    num_workers: int = 0
    network: dict[str, Any] = field(default_factory=dict)
    draw: Draw | None = None
    varies: str | None = None

    @property
    def images(self) -> dict[str, int]:
        """Images by split."""
        sizes = dict(self.data.splits)
        if self.draw is not None:
            pool = sizes['train'] + sizes['unlabeled']
            sizes |= dict(train=self.draw.labeled, unlabeled=pool - self.draw.labeled)
        return sizes


# Half the mask head and three quarters of the backbone of the demo's network: a core then sees
# a third more images in the same time, and 60 classes from scratch need many epochs.
_NETWORK = dict(
    backbone=dict(base_channels=24),
    neck=dict(in_channels=[24, 48, 96, 192]),
    roi_head=dict(mask_head=dict(conv_out_channels=32)),
)
_TINY_NETWORK = dict(
    backbone=dict(base_channels=8),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=32),
        mask_roi_extractor=dict(out_channels=16),
        mask_head=dict(in_channels=16, conv_out_channels=16, num_convs=1),
    ),
    train_cfg=dict(rpn_proposal=dict(nms_pre=50, max_per_img=20), rcnn=dict(sampler=dict(num=16))),
    test_cfg=dict(rpn=dict(nms_pre=50, max_per_img=20), rcnn=dict(max_per_img=10)),
)

PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            name='tiny',
            data=TINY,
            stem_iters=2,
            supervised_iters=4,
            max_iters=8,
            lr_drop=7,
            ramp_iters=2,
            smoothing_iters=1,
            refresh_interval=2,
            momentum=0.1,
            labeled_per_batch=2,
            curve_interval=2,
            curve_images=4,
            pseudo_images=4,
            arms=('0', '3', '7'),
            seeds=2,
            network=_TINY_NETWORK,
        ),
        # Two cores, five hours: nine runs of about an hour of one core.
        Preset(
            name='cpu',
            data=LONGTAIL_60,
            # 64 epochs of the labelled images: a teacher of 28 is so often wrong that labels of any
            # kind cost AP.
            stem_iters=6500,
            supervised_iters=8000,
            max_iters=10500,
            lr_drop=9900,
            ramp_iters=200,
            smoothing_iters=400,
            refresh_interval=100,
            momentum=0.004,
            labeled_per_batch=4,
            curve_interval=1000,
            curve_images=200,
            pseudo_images=400,
            arms=('0', '3', '7'),
            network=_NETWORK,
        ),
        # By estimate, on one modern GPU with 16 cores: arms 0, 3 and 7 in three quarters of an
        # hour, all 35 in seven. A run is bound by its core, which launches the
        # iterations.
        Preset(
            name='gpu',
            data=LONGTAIL_60,
            stem_iters=3000,
            supervised_iters=4000,
            max_iters=8000,
            lr_drop=7400,
            ramp_iters=200,
            smoothing_iters=400,
            refresh_interval=100,
            momentum=0.004,
            # As many images as on a CPU in half the iterations, which is what a GPU counts.
            labeled_per_batch=8,
            curve_interval=500,
            curve_images=200,
            pseudo_images=800,
            processes=8,
            num_workers=1,
            network=_NETWORK,
        ),
    )
}
# The same images with fewer and with more of them labelled; and with as many, but no class of fewer
# than 5 images, which shortens the tail.
for _base, _draws in {
    'tiny': {'30-labeled': Draw(30)},
    'cpu': {
        '45-labeled': Draw(45),
        '225-labeled': Draw(225),
        '2250-labeled': Draw(2250),
        'min-5': Draw(500, min_images_per_class=5),
    },
}.items():
    for _name, _draw in _draws.items():
        PRESETS[f'{_base}-{_name}'] = replace(
            PRESETS[_base],
            name=f'{_base}-{_name}',
            draw=_draw,
            varies=_base,
            arms=('0', '3', '7', '7-unsup_weight-1'),
            seeds=1,
        )
# Twice as long with unlabelled images, of which `cpu` shows each two and a half times.
for _base, _length in {
    'tiny': dict(max_iters=12, lr_drop=11),
    'cpu': dict(max_iters=13000, lr_drop=12400),
}.items():
    PRESETS[f'{_base}-long'] = replace(
        PRESETS[_base],
        name=f'{_base}-long',
        varies=_base,
        arms=('0-normed', '7-shipped'),
        seeds=1,
        **_length,
    )
