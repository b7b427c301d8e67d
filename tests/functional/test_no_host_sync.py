"""The functions of an iteration never wait for the device.

Fake tensors carry shapes and no values, so whatever would have to read a value on the host
(``.item()``, a boolean mask as an index, ``nonzero``) raises.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from mmdet_softpl import functional as F
from mmdet_softpl.models.class_logits import objectness_accuracy

N, C, D, B, K, P = 6, 4, 5, 10, 3, 7


def floats(*shape):
    return torch.rand(*shape)


def classes(num, high=C):
    return torch.randint(0, high, (num,))


def similarity():
    return F.ClassSimilarity(torch.randint(0, C, (C, 2)), floats(C, 2))


def smoothed_loss_and_gradient():
    logits = floats(N, C + 1).requires_grad_()
    F.smoothed_cross_entropy(logits, classes(N, C + 1), floats(C), similarity()).sum().backward()


def soft_loss_and_gradient():
    logits = floats(N, C + 1).requires_grad_()
    F.soft_cross_entropy(logits, floats(N, C + 1)).sum().backward()


def seesaw_loss_and_gradient():
    scores, labels = floats(N, C + 2).requires_grad_(), classes(N, C + 1)
    excess = F.seesaw_excess(scores, labels, floats(C), 0.8, 2.0, 0.01)
    table = F.smoothing_table(floats(C), similarity())
    loss = F.sparse_cross_entropy(F.joint_logits(scores), labels, table)
    (loss + F.own_coefficients(table)[labels] * excess).sum().backward()


HOT = {
    'boost_scores': lambda: F.boost_scores(floats(N, C + 1), floats(C), floats(N, C)),
    'sum_features': lambda: F.sum_features(floats(N, D), classes(N), C),
    'prototype_log_evidence': lambda: F.prototype_log_evidence(
        floats(N, D), floats(C, D), floats(C)
    ),
    'smoothed_cross_entropy': smoothed_loss_and_gradient,
    'soft_cross_entropy': soft_loss_and_gradient,
    'seesaw': seesaw_loss_and_gradient,
    'objectness_accuracy': lambda: objectness_accuracy(floats(N, C + 2), classes(N, C + 1)),
    'reliability_counts': lambda: F.reliability_counts(
        floats(N), classes(N), classes(N, 2).bool(), C, B, floats(N)
    ),
    'apply_calibrator': lambda: F.apply_calibrator(floats(N), classes(N), floats(C, B)),
    'soft_targets': lambda: F.soft_targets(floats(K, C + 1), classes(K), floats(K)),
    'score_histogram': lambda: F.score_histogram(floats(N), classes(N), C, B),
    'resample_roi_masks': lambda: F.resample_roi_masks(
        floats(K, 28, 28),
        floats(K, 4),
        floats(P, 4),
        classes(P, K),
        floats(P, 3, 3),
        floats(P, 2),
    ),
    'mask_quality': lambda: F.mask_quality(floats(K, 28, 28)),
}


@pytest.mark.parametrize('name', HOT)
def test_on_fake_tensors(name):
    with FakeTensorMode():
        HOT[name]()


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('name', HOT)
def test_on_a_gpu(name):
    with torch.device('cuda'):
        HOT[name]()
        torch.cuda.set_sync_debug_mode('error')
        try:
            HOT[name]()
        finally:
            torch.cuda.set_sync_debug_mode('default')


def test_fake_tensors_notice_a_value_read_on_the_host():
    with FakeTensorMode(), pytest.raises(DataDependentOutputException):
        floats(N).sum().item()
