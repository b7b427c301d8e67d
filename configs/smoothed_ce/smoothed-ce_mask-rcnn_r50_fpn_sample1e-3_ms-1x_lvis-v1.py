"""mmdet's supervised LVIS Mask R-CNN with similarity smoothing."""

_base_ = ['mmdet::lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py']

custom_imports = dict(imports=['mmdet_softpl'], allow_failed_imports=False)

model = dict(roi_head=dict(bbox_head=dict(type='mmdet_softpl.SmoothedCEHead')))

# mmdet's LVISMetric goes through lvis 0.5.3, which uses the np.float that numpy 1.24 removed.
val_evaluator = dict(
    _delete_=True,
    type='mmdet_softpl.LongTailMetric',
    ann_file='data/lvis_v1/annotations/lvis_v1_val.json',
    metric=['bbox', 'segm'],
)
test_evaluator = val_evaluator
