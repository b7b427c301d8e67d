import pytest

from mmdet_softpl.ops import active, stand_in


def test_other_ops_exist_and_raise_when_called():
    op = stand_in.modulated_deform_conv_forward
    with pytest.raises(RuntimeError, match=r"'modulated_deform_conv_forward' is not compiled: "):
        op(1, two=2)
    with pytest.raises(RuntimeError, match=r'pip install mmcv==2\.1\.0'):
        op()


def test_private_names_do_not_exist():
    assert not hasattr(stand_in, '__wrapped__')
    assert not hasattr(stand_in, '_private')


def test_versions_are_strings_for_environment_reports():
    assert 'stand-in' in stand_in.get_compiler_version()
    assert 'stand-in' in stand_in.get_compiling_cuda_version()


@pytest.mark.skipif(active() not in ('torch', 'torchvision'), reason='needs mmcv-lite')
def test_through_mmcv():
    from mmcv.ops import RoIPool
    from mmcv.utils import collect_env
    from torch import rand

    with pytest.raises(RuntimeError, match="'roi_pool_forward' is not compiled"):
        RoIPool(2, 1.0)(rand(1, 1, 4, 4), rand(1, 5))
    assert 'stand-in' in collect_env()['MMCV Compiler']
