"""Cascade Mask R-CNN R50; each of the three stages has its own prototypes and similarities."""

_base_ = ['mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py']

# With mmcv-lite this import must come before mmdet.models; with a compiled mmcv it is not needed.
custom_imports = dict(imports=['mmdet_softpl'], allow_failed_imports=False)

detector = _base_.model
# With a normalised classifier, as `calibrated-soft-teacher_mask-rcnn_r50_fpn.py` has it.
detector.roi_head.bbox_head = [
    dict(
        head,
        type='mmdet_softpl.SmoothedCEHead',
        cls_predictor_cfg=dict(type='NormedLinear'),
    )
    for head in detector.roi_head.bbox_head
]

model = dict(
    _delete_=True,
    type='mmdet_softpl.CalibratedSoftTeacher',
    detector=detector,
    data_preprocessor=dict(
        type='MultiBranchDataPreprocessor', data_preprocessor=detector.data_preprocessor
    ),
    semi_train_cfg=dict(sup_weight=1.0, unsup_weight=1.0, mirror=True),
    semi_test_cfg=dict(predict_on='teacher'),
)
