"""The light smoothed cross entropy against dense targets and torch's own cross entropy."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_softpl.functional import (
    ClassSimilarity,
    own_coefficients,
    smoothed_cross_entropy,
    smoothing_table,
    soft_cross_entropy,
    sparse_cross_entropy,
)
from tests.support.loops import loop_targets


def random_similarity(num_classes, topk, seed=0, uniform_rows=()):
    """Neighbours drawn without the diagonal, weights from a softmax."""
    gen = torch.Generator().manual_seed(seed)
    if num_classes == 1:
        return ClassSimilarity(torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 1))
    priority = torch.rand(num_classes, num_classes, generator=gen)
    priority.fill_diagonal_(-1)
    indices = priority.topk(min(topk, num_classes - 1), dim=1).indices
    weights = torch.randn(indices.shape, generator=gen).softmax(1)
    weights[list(uniform_rows)] = 0
    return ClassSimilarity(indices, weights)


def case(num_classes=7, num_rois=40, topk=3, seed=0, scale=4.0):
    gen = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(num_rois, num_classes + 1, generator=gen)
    labels = torch.randint(0, num_classes + 1, (num_rois,), generator=gen)
    epsilon = 0.5 * torch.rand(num_classes, generator=gen)
    return logits, labels, epsilon, random_similarity(num_classes, topk, seed, uniform_rows=(0,))


@pytest.mark.parametrize('num_classes', [1, 2, 7, 60])
@pytest.mark.parametrize('topk', [1, 3, 100])
def test_light_form_equals_cross_entropy_on_dense_targets(num_classes, topk):
    logits, labels, epsilon, similarity = case(num_classes, topk=topk, seed=topk)
    light, dense = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    actual = smoothed_cross_entropy(light, labels, epsilon, similarity)
    targets = loop_targets(labels, epsilon, similarity, num_classes)
    expected = F.cross_entropy(dense, targets, reduction='none')
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=3e-6)

    weight = torch.linspace(0.1, 2, len(labels))
    (actual * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(light.grad, dense.grad, rtol=1e-6, atol=1e-6)


def test_a_table_told_of_no_uniform_row_is_the_same_without_the_passes_for_them():
    logits, labels, epsilon, _ = case()
    similarity = random_similarity(7, 3)
    results = []
    for uniform_rows in (True, False):
        table = smoothing_table(epsilon, similarity, uniform_rows)
        assert (table.uniform is None) is not uniform_rows
        leaf = logits.clone().requires_grad_()
        loss = sparse_cross_entropy(leaf, labels, table)
        loss.square().sum().backward()
        results.append((loss.detach(), leaf.grad))
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-7)


def test_a_graph_that_is_kept_gives_its_gradient_again():
    logits, labels, epsilon, similarity = case()
    loss = smoothed_cross_entropy(logits.requires_grad_(), labels, epsilon, similarity).sum()
    first, second = (torch.autograd.grad(loss, logits, retain_graph=True)[0] for _ in range(2))
    assert first.abs().sum() > 0
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize('scale', [1.0, 30.0])
def test_no_smoothing_is_plain_cross_entropy(scale):
    logits, labels, epsilon, similarity = case(scale=scale)
    light, plain = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    actual = smoothed_cross_entropy(light, labels, torch.zeros_like(epsilon), similarity)
    expected = F.cross_entropy(plain, labels, reduction='none')
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)
    actual.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(light.grad, plain.grad, rtol=0, atol=1e-6)


@pytest.mark.parametrize('shift', [0.0, 1024.0])
def test_confident_rows_keep_their_digits_wherever_the_logits_lie(shift):
    _, labels, epsilon, similarity = case()
    # Halves, so that the shift is exact; the labels' own far above, with a loss near 1e-5.
    logits = torch.randint(-4, 5, (len(labels), len(epsilon) + 1)) / 2
    logits[torch.arange(len(labels)), labels] = 14.0
    exact = loop_targets(labels, epsilon.double(), similarity, len(epsilon)).double()
    hard = torch.zeros_like(epsilon)
    for strength, targets in ((epsilon, exact), (hard, F.one_hot(labels, len(epsilon) + 1))):
        expected = -(targets * logits.double().log_softmax(1)).sum(1)
        actual = smoothed_cross_entropy(logits + shift, labels, strength, similarity)
        # A difference of the logits themselves would be off by 1e-6, shifted by 6e-5.
        torch.testing.assert_close(actual.double(), expected, rtol=1e-6, atol=5e-7)


def test_uniform_rows_equal_torch_label_smoothing_over_the_foreground():
    # torch smooths over all classes, its own included: eps (C - 1) / C there is eps here.
    gen = torch.Generator().manual_seed(3)
    logits, labels = torch.randn(9, 5, generator=gen), torch.randint(0, 5, (9,), generator=gen)
    uniform = ClassSimilarity(torch.zeros(5, 1, dtype=torch.long), torch.zeros(5, 1))
    with_background = torch.cat([logits, torch.full((9, 1), -60.0)], dim=1)
    actual = smoothed_cross_entropy(with_background, labels, torch.full((5,), 0.2), uniform)
    expected = F.cross_entropy(logits, labels, label_smoothing=0.25, reduction='none')
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_background_rows_are_never_smoothed():
    logits, _, _, similarity = case()
    labels = torch.full((len(logits),), 7)
    actual = smoothed_cross_entropy(logits, labels, torch.full((7,), 0.4), similarity)
    torch.testing.assert_close(actual, F.cross_entropy(logits, labels, reduction='none'))


def test_one_class_is_plain_cross_entropy():
    logits, labels = torch.randn(6, 2, requires_grad=True), torch.tensor([0, 1, 0, 0, 1, 1])
    similarity = random_similarity(1, 1)
    loss = smoothed_cross_entropy(logits, labels, torch.tensor([0.3]), similarity)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels, reduction='none'))
    loss.sum().backward()
    assert logits.grad.isfinite().all()


def test_no_rows():
    _, _, epsilon, similarity = case()
    logits = torch.zeros(0, 8, requires_grad=True)
    labels = torch.zeros(0, dtype=torch.long)
    loss = smoothed_cross_entropy(logits, labels, epsilon, similarity)
    assert loss.shape == (0,)
    loss.sum().backward()
    assert logits.grad.shape == (0, 8)
    assert loop_targets(labels, epsilon, similarity, 7).shape == (0, 8)
    assert soft_cross_entropy(logits, torch.zeros(0, 8)).shape == (0,)


def test_gradient_of_the_light_form_by_finite_differences():
    logits, labels, epsilon, similarity = case(4, 6)
    similarity = ClassSimilarity(similarity.indices, similarity.weights.double())
    assert torch.autograd.gradcheck(
        lambda z: smoothed_cross_entropy(z, labels, epsilon.double(), similarity),
        logits.double().requires_grad_(),
    )


def test_a_class_given_mass_back_by_the_similarity_itself():
    similarity = ClassSimilarity(torch.tensor([[1, 0], [0, 1]]), torch.tensor([[0.4, 0.6]] * 2))
    labels, epsilon = torch.tensor([0, 1, 2]), torch.tensor([0.5, 0.5])
    targets = loop_targets(labels, epsilon, similarity, 2)
    torch.testing.assert_close(
        targets, torch.tensor([[0.8, 0.2, 0.0], [0.2, 0.8, 0.0], [0.0, 0.0, 1.0]])
    )
    logits = torch.randn(3, 3)
    torch.testing.assert_close(
        smoothed_cross_entropy(logits, labels, epsilon, similarity),
        F.cross_entropy(logits, targets, reduction='none'),
    )


def test_bfloat16_logits_are_computed_in_float32():
    logits, labels, epsilon, similarity = case()
    low = logits.bfloat16().requires_grad_()
    loss = smoothed_cross_entropy(low, labels, epsilon, similarity)
    assert loss.dtype == torch.float32
    expected = smoothed_cross_entropy(logits.bfloat16().float(), labels, epsilon, similarity)
    torch.testing.assert_close(loss, expected)
    loss.sum().backward()
    assert low.grad.dtype == torch.bfloat16
    assert soft_cross_entropy(low, torch.ones(40, 8).bfloat16() / 8).dtype == torch.float32


def saved_bytes(function):
    """Bytes that autograd keeps for the backward pass, each storage once."""
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = function()
    # The graph has to live until the sizes are summed, or storages are reused.
    return sum(storages.values()), loss


def test_keeps_no_more_for_the_backward_than_cross_entropy():
    logits, labels, epsilon, similarity = case(1203, 128, topk=16)
    logits.requires_grad_()
    plain, _ = saved_bytes(lambda: F.cross_entropy(logits, labels, reduction='none'))
    light, _ = saved_bytes(lambda: smoothed_cross_entropy(logits, labels, epsilon, similarity))
    assert light < 1.1 * plain


def test_soft_cross_entropy_is_torchs_on_probabilities():
    logits, labels, epsilon, similarity = case()
    targets = loop_targets(labels, epsilon, similarity, 7)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    actual = soft_cross_entropy(ours, targets)
    expected = F.cross_entropy(theirs, targets, reduction='none')
    torch.testing.assert_close(actual, expected)
    actual.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@settings(max_examples=30, deadline=None)
@given(
    num_classes=st.integers(1, 12),
    num_rois=st.integers(0, 10),
    topk=st.integers(1, 12),
    seed=st.integers(0, 1000),
)
def test_light_equals_dense_on_any_shape(num_classes, num_rois, topk, seed):
    logits, labels, epsilon, similarity = case(num_classes, num_rois, topk, seed)
    targets = loop_targets(labels, epsilon, similarity, num_classes)
    torch.testing.assert_close(
        smoothed_cross_entropy(logits, labels, epsilon, similarity),
        soft_cross_entropy(logits, targets),
        rtol=1e-5,
        atol=1e-5,
    )


def test_uniform_rows_leave_the_label_what_is_not_smoothed():
    """A zero row is uniform over the others: of the label 1 - e stays, and all of background."""
    none = ClassSimilarity(torch.zeros(3, 1, dtype=torch.long), torch.zeros(3, 1))
    own = own_coefficients(smoothing_table(torch.tensor([0.1, 0.2, 0.4]), none))
    torch.testing.assert_close(own, torch.tensor([0.9, 0.8, 0.6, 1.0]))
