"""`semi_180k.py` with AdamW, for transformer backbones; settings of mmdet's Swin configs."""

_base_ = ['./semi_180k.py']

optim_wrapper = dict(
    optimizer=dict(
        _delete_=True,
        type='AdamW',
        # Half of mmdet's 1e-4, for half its batch: 8 images instead of 16.
        lr=0.00005,
        betas=(0.9, 0.999),
        weight_decay=0.05,
    ),
    # What is no weight matrix does not decay.
    paramwise_cfg=dict(
        custom_keys={
            'absolute_pos_embed': dict(decay_mult=0.0),
            'relative_position_bias_table': dict(decay_mult=0.0),
            'norm': dict(decay_mult=0.0),
        }
    ),
)
