"""BurnInMeanTeacherHook: phases, averaging, what it refuses."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from mmdet.engine.hooks import MeanTeacherHook
from mmdet.models.backbones import ResNet
from mmengine.optim import OptimWrapper
from torch import nn

from mmdet_softpl.engine import BurnInMeanTeacherHook, recomputation_check
from mmdet_softpl.engine import burn_in_mean_teacher_hook as module
from mmdet_softpl.models.class_state import ClassState


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)
        self.norm = nn.BatchNorm2d(2)
        self.register_buffer('prototypes', torch.rand(3))


class Semi(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = Net(), Net()
        self.unsup_scale = 1.0
        self.teacher_checkpoint: str | None = None
        self.teacher_has_buffers = False


@pytest.fixture
def make_runner(monkeypatch):
    monkeypatch.setattr(module, 'check_datasets', lambda runner: None)

    def make(hook, **kwargs) -> SimpleNamespace:
        defaults = dict(model=Semi(), hooks=[hook], iter=0, _load_from=None, _resume=False, cfg={})
        defaults['max_iters'] = 100
        defaults['optim_wrapper'] = SimpleNamespace(_accumulative_counts=1)
        return SimpleNamespace(**{**defaults, **kwargs})

    return make


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def step(hook, runner) -> None:
    hook.before_train_iter(runner, runner.iter)
    with torch.no_grad():
        for value in runner.model.student.state_dict().values():
            value += 1
    hook.after_train_iter(runner, runner.iter)
    runner.iter += 1


def test_average_is_the_closed_form_for_everything_that_should_move() -> None:
    torch.manual_seed(0)
    student, teacher = Net(), Net()
    student.norm.num_batches_tracked.fill_(7)
    student.norm.running_mean.normal_()
    student.norm.running_var.uniform_()
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    module.average_teacher(student, teacher, 0.25)
    for key, value in teacher.state_dict().items():
        target = student.state_dict()[key]
        if key in ('prototypes', 'norm.num_batches_tracked'):
            assert torch.equal(value, target), key
        else:
            torch.testing.assert_close(value, 0.75 * before[key] + 0.25 * target)


def test_parameters_are_paired_by_name() -> None:
    student, teacher = Net(), Net()
    teacher.conv, teacher.norm = nn.Conv2d(1, 2, 1), teacher._modules.pop('norm')
    module.copy_teacher(student, teacher)
    assert same(student, teacher)


def test_a_copy_replaces_whatever_the_teacher_has() -> None:
    student, teacher = Net(), Net()
    with torch.no_grad():
        teacher.conv.weight.fill_(float('nan'))
    module.copy_teacher(student, teacher)
    assert same(student, teacher)


def test_the_teacher_that_goes_takes_its_statistics_with_it(make_runner) -> None:
    hook = BurnInMeanTeacherHook(supervised_iters=1, burn_in_iters=2)
    runner = make_runner(hook)
    runner.model.class_state = state = ClassState(3, 0.5)
    told: list[int] = []
    runner.hooks.append(SimpleNamespace(forget_teacher=lambda: told.append(runner.iter)))
    hook.before_train(runner)
    for _ in range(5):
        state.reliability += 1
        state.score_histogram += 1
        step(hook, runner)
    # The copies of the supervised phase are one teacher that learns; iteration 2 ends the burn-in.
    assert told == [2]
    assert float(state.reliability.max()) == float(state.score_histogram.max()) == 2


@pytest.mark.parametrize('ranks', [1, 2])
def test_a_backbone_that_computes_again_is_refused_where_ranks_share_gradients(
    make_runner, monkeypatch: pytest.MonkeyPatch, ranks: int
) -> None:
    monkeypatch.setattr(recomputation_check, 'get_world_size', lambda: ranks)
    hook = BurnInMeanTeacherHook()
    runner = make_runner(hook)
    student = runner.model.student
    student.backbone = runner.model.teacher.backbone = ResNet(18, with_cp=False)
    hook.before_train(runner)
    student.backbone = ResNet(18, with_cp=True)
    runner.model.teacher.backbone = ResNet(18, with_cp=True)
    if ranks == 1:
        hook.before_train(runner)
        return
    with pytest.raises(ValueError, match=r'with_cp=True in student\.backbone.*with_cp=False'):
        hook.before_train(runner)


def test_a_training_that_ends_before_the_unlabelled_images_is_said(
    make_runner, log: list[str]
) -> None:
    for iters, said in ((99, 0), (100, 1)):
        hook = BurnInMeanTeacherHook(supervised_iters=iters)
        hook.before_train(make_runner(hook))
        assert len(log) == said
    assert 'supervised_iters=100 is not below the 100 iterations' in log[0]


def test_masks_that_the_detector_does_not_predict_are_refused(make_runner) -> None:
    hook = BurnInMeanTeacherHook()
    cfg = dict(model=dict(detector=dict(roi_head=dict(mask_head=None))))
    cfg['val_evaluator'] = dict(type='LongTailMetric')
    with pytest.raises(ValueError, match=r"LongTailMetric: metric=.*has 'segm'.*mask_head"):
        hook.before_train(make_runner(hook, cfg=cfg))


def test_plain_soft_teacher_equals_the_hosts_hook_on_parameters(make_runner) -> None:
    hook, host = BurnInMeanTeacherHook(momentum=0.1), MeanTeacherHook(momentum=0.1)
    runner = make_runner(hook)
    twin = SimpleNamespace(model=Semi(), iter=0)
    twin.model.load_state_dict(runner.model.state_dict())
    hook.before_train(runner)
    host.before_train(twin)
    for _ in range(3):
        step(hook, runner)
        with torch.no_grad():
            for value in twin.model.student.state_dict().values():
                value += 1
        host.after_train_iter(twin, twin.iter)
        twin.iter += 1
    ours = dict(runner.model.teacher.named_parameters())
    for name, value in twin.model.teacher.named_parameters():
        torch.testing.assert_close(ours[name], value)


def test_phases(make_runner) -> None:
    hook = BurnInMeanTeacherHook(momentum=0.5, supervised_iters=2, burn_in_iters=3, ramp_iters=4)
    runner = make_runner(hook)
    hook.before_train(runner)
    scales, equal, moved = [], [], []
    for _ in range(8):
        before = [p.clone() for p in runner.model.teacher.parameters()]
        step(hook, runner)
        scales.append(runner.model.unsup_scale)
        equal.append(same(runner.model.student, runner.model.teacher))
        moved.append(
            any(
                not torch.equal(a, b)
                for a, b in zip(before, runner.model.teacher.parameters(), strict=True)
            )
        )
    assert scales == [0, 0, 0.25, 0.5, 0.75, 1, 1, 1]
    assert equal == [True, True, False, False, True, False, False, False]
    assert moved == [True, True, False, False, True, True, True, True]


def test_copies_of_the_first_phase_come_at_intervals_and_at_its_end(make_runner) -> None:
    hook = BurnInMeanTeacherHook(interval=2, supervised_iters=5)
    runner = make_runner(hook)
    hook.before_train(runner)
    equal = []
    for _ in range(5):
        step(hook, runner)
        equal.append(same(runner.model.student, runner.model.teacher))
    assert equal == [False, True, False, True, True]


def test_a_figure_that_never_comes_is_refused_before_training(make_runner) -> None:
    hook = BurnInMeanTeacherHook()
    cfg = dict(
        default_hooks=dict(checkpoint=dict(save_best='teacher/longtail/segm_AP')),
        val_cfg=dict(type='TeacherStudentValLoop'),
        val_evaluator=dict(type='CocoMetric'),
    )
    runner = make_runner(hook, cfg=cfg)
    with pytest.raises(ValueError, match='save_best'):
        hook.before_train(runner)


def test_a_given_teacher_stays_through_the_burn_in(make_runner) -> None:
    hook = BurnInMeanTeacherHook(burn_in_iters=3)
    runner = make_runner(hook)
    runner.model.teacher_checkpoint = 'teacher.pth'
    given = {k: v.clone() for k, v in runner.model.teacher.state_dict().items()}
    hook.before_train(runner)
    step(hook, runner)
    step(hook, runner)
    assert all(torch.equal(v, given[k]) for k, v in runner.model.teacher.state_dict().items())
    step(hook, runner)
    assert same(runner.model.student, runner.model.teacher)


def test_resuming_does_not_overwrite_the_teacher(make_runner) -> None:
    hook = BurnInMeanTeacherHook()
    runner = make_runner(hook, iter=5, _resume=True)
    hook.before_train(runner)
    assert not same(runner.model.student, runner.model.teacher)


@pytest.mark.parametrize(
    'phases, checkpoint, words',
    [
        ({}, 'given.pth', ['given.pth', 'burn_in_iters=0']),
        (dict(supervised_iters=2, burn_in_iters=2), 'given.pth', ['supervised_iters=2']),
        (dict(burn_in_iters=2), None, ['burn_in_iters=2', 'load_from', 'teacher_checkpoint']),
    ],
)
# mmengine leaves it True where --resume found no checkpoint.
@pytest.mark.parametrize('resume', [False, True])
def test_contradictions_are_named_before_training(
    make_runner, phases, checkpoint, words, resume
) -> None:
    hook = BurnInMeanTeacherHook(**phases)
    runner = make_runner(hook, _resume=resume)
    runner.model.teacher_checkpoint = checkpoint
    with pytest.raises(ValueError) as error:
        hook.before_train(runner)
    for word in words:
        assert word in str(error.value)


def test_two_mean_teacher_hooks_are_refused(make_runner) -> None:
    hook = BurnInMeanTeacherHook()
    with pytest.raises(ValueError, match='MeanTeacherHook'):
        hook.before_train(make_runner(hook, hooks=[hook, MeanTeacherHook()]))


def test_a_model_without_teacher_is_refused(make_runner) -> None:
    hook = BurnInMeanTeacherHook()
    with pytest.raises(TypeError, match='Net'):
        hook.before_train(make_runner(hook, model=Net()))


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(momentum=0.0),
        dict(momentum=1.0),
        dict(interval=0),
        dict(supervised_iters=-1),
        dict(burn_in_iters=-1),
        dict(ramp_iters=-5),
    ],
)
def test_values_out_of_range_are_named(kwargs) -> None:
    ((name, value),) = kwargs.items()
    with pytest.raises(ValueError, match=f'{name}.*{value}'):
        BurnInMeanTeacherHook(**kwargs)


def test_a_detector_that_ignores_the_phases_is_refused(make_runner) -> None:
    model = Semi()
    del model.unsup_scale
    hook = BurnInMeanTeacherHook(ramp_iters=5)
    with pytest.raises(ValueError, match='ramp_iters=5'):
        hook.before_train(make_runner(hook, model=model))
    plain = BurnInMeanTeacherHook()
    plain.before_train(make_runner(plain, model=model))


def test_two_sources_of_a_teacher_are_refused(make_runner) -> None:
    """Weights of ``load_from`` come last and would replace those of ``teacher_checkpoint``."""
    hook = BurnInMeanTeacherHook(burn_in_iters=3)
    runner = make_runner(hook, _load_from='other.pth')
    runner.model.teacher_checkpoint = 'given.pth'
    with pytest.raises(ValueError, match=r"load_from='other\.pth'.*'given\.pth'"):
        hook.before_train(runner)
    # A resumed run has its own teacher, and mmengine names its checkpoint in the same place.
    runner.iter = 1
    hook.before_train(runner)


@pytest.mark.parametrize('phases', [{}, dict(burn_in_iters=3), dict(supervised_iters=3)], ids=str)
@pytest.mark.parametrize('semi', [False, True])
def test_a_loaded_teacher_stays_unless_it_is_trained_anew(
    make_runner, monkeypatch, semi: bool, phases: dict[str, int]
) -> None:
    monkeypatch.setattr(module, 'forget_labelling', lambda *args: None)
    hook = BurnInMeanTeacherHook(**phases)
    runner = make_runner(hook, _load_from='semi.pth')
    names = runner.model.state_dict() if semi else Net().state_dict()
    hook.after_load_checkpoint(runner, dict(state_dict=names))
    hook.before_train(runner)
    kept = semi and 'supervised_iters' not in phases
    assert same(runner.model.student, runner.model.teacher) != kept


def test_the_teacher_moves_every_interval(make_runner) -> None:
    hook = BurnInMeanTeacherHook(momentum=0.5, interval=3)
    runner = make_runner(hook)
    hook.before_train(runner)
    moved = []
    for _ in range(7):
        before = runner.model.teacher.conv.weight.clone()
        step(hook, runner)
        moved.append(not torch.equal(before, runner.model.teacher.conv.weight))
    assert moved == [False, False, True, False, False, True, False]


@pytest.mark.parametrize('accumulative_counts', [1, 4])
def test_the_teacher_follows_steps_of_the_optimizer(make_runner, accumulative_counts: int) -> None:
    """The same 12 steps of the student bring the teacher to the same place."""
    hook = BurnInMeanTeacherHook(momentum=0.1, interval=2)
    model = Semi()
    optimizer = torch.optim.SGD(model.student.parameters(), lr=0.1)
    wrapper = OptimWrapper(optimizer, accumulative_counts=accumulative_counts)
    iters = 12 * accumulative_counts
    wrapper.initialize_count_status(model, 0, iters)
    runner = make_runner(hook, model=model, optim_wrapper=wrapper)
    with torch.no_grad():
        model.student.conv.weight.zero_()
    hook.before_train(runner)
    for i in range(iters):
        wrapper.update_params(-model.student.conv.weight.sum())
        hook.after_train_iter(runner, i)
        runner.iter += 1
    student, teacher = torch.tensor(0.0), torch.tensor(0.0)
    for step in range(1, 13):
        student = student + 0.1
        if step % 2 == 0:
            teacher = 0.9 * teacher + 0.1 * student
    weight = model.teacher.conv.weight
    torch.testing.assert_close(weight, teacher.expand_as(weight))
