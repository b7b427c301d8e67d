"""``doctor``: what is installed, and whether training would work with it.

Each check looks at one thing and never raises: a broken installation is what the command
is for. A failed check comes with its remedy.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import io
import json
import platform
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass

from mmdet_softpl.installed_stack import release, stack, untested
from mmdet_softpl.safe_checkpoints import allow_mmengine_checkpoints

NAME = 'doctor'
HELP = 'show the installed stack and check that training would work'

OK, WARN, FAIL = 'ok', 'warn', 'fail'


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        check: what was looked at.
        status: ``'ok'``, ``'warn'`` (training works, something else may not) or ``'fail'``
            (training would fail).
        detail: what was found.
        remedy: what to do about it; empty when there is nothing to do.
    """

    check: str
    status: str
    detail: str
    remedy: str = ''


def diagnose() -> list[Finding]:
    """Run all checks, the lower layers first."""
    findings = []
    for name, check in _CHECKS.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                finding = check(name)
        except Exception as error:  # whatever an installation can break with is a finding
            finding = Finding(
                name,
                FAIL,
                _describe(error),
                _missing_module(error) or 'install it again in a fresh environment',
            )
        findings.append(finding)
    return findings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = 'example: python -m mmdet_softpl doctor'
    parser.add_argument('--json', action='store_true', help='print a JSON object')


def run(args: argparse.Namespace) -> int:
    """Print the findings; 1 when training would fail."""
    # What a package prints on its import is no finding, and must not stand before a json.
    with contextlib.redirect_stdout(sys.stderr):
        findings = diagnose()
    failed = any(finding.status == FAIL for finding in findings)
    if args.json:
        report = {
            'stack': stack(),
            'findings': [asdict(finding) for finding in findings],
            'can_train': not failed,
        }
        print(json.dumps(report, indent=2))
    else:
        width = max(len(finding.check) for finding in findings)
        for finding in findings:
            print(f'{finding.status:4}  {finding.check:{width}}  {finding.detail}')
            if finding.remedy:
                print(f'{"":4}  {"":{width}}  -> {finding.remedy}')
        print('Training would fail.' if failed else 'Training should work.')
    return int(failed)


def _python(name: str) -> Finding:
    version = platform.python_version()
    if (3, 10) <= sys.version_info[:2] <= (3, 12):
        return Finding(name, OK, version)
    return Finding(name, WARN, f'{version} is not tested', 'use Python 3.10, 3.11 or 3.12')


def _torch(name: str) -> Finding:
    if not _is_installed('torch'):
        return Finding(name, FAIL, 'not installed', 'install torch >= 2.1')
    import torch

    if release(torch.__version__) < (2, 1):
        return Finding(name, FAIL, f'{torch.__version__} is too old', 'install torch >= 2.1')
    return Finding(name, OK, torch.__version__)


def _numpy(name: str) -> Finding:
    import numpy as np
    import torch

    try:
        torch.from_numpy(np.zeros(1)).numpy()
    except (RuntimeError, ImportError) as error:
        return Finding(
            name,
            FAIL,
            f'torch {torch.__version__} does not work with numpy {np.__version__}: '
            f'{_describe(error)}',
            'pip install "numpy<2", or install torch >= 2.3',
        )
    return Finding(name, OK, np.__version__)


def _gpu(name: str) -> Finding:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Finding(name, OK, f'{", ".join(names)} (CUDA {torch.version.cuda})')
    if shutil.which('nvidia-smi'):
        return Finding(
            name,
            WARN,
            f'nvidia-smi is there, but torch {torch.__version__} sees no GPU',
            'training uses the CPU; for the GPU install a CUDA build of torch for its driver',
        )
    return Finding(name, OK, 'none; training uses the CPU')


def _torchvision(name: str) -> Finding:
    if not _is_installed('torchvision'):
        faster = '; on this GPU its NMS and RoIAlign are faster than ours' if _linux_gpu() else ''
        return Finding(
            name,
            WARN,
            "not installed: our ops do without it, but a config with init_cfg=dict(type='Pretrained"
            "', checkpoint='torchvision://...'), as most of mmdet's have, imports it" + faster,
            'pip install the torchvision that belongs to your torch, or give the URL or the file '
            'of the weights as checkpoint',
        )
    try:
        import torchvision
        from torchvision.ops import nms  # noqa: F401
    except Exception as error:  # a mismatch with torch shows as RuntimeError or OSError
        # MMEngine asks for the version when a training begins, and takes no other error for
        # an absent package.
        stops = 'torchvision' not in sys.modules and not isinstance(error, ModuleNotFoundError)
        return Finding(
            name,
            FAIL if stops else WARN,
            f'broken: {_describe(error)}',
            'it was built for another torch: install the one that belongs to yours, '
            'or pip uninstall torchvision',
        )
    return Finding(name, OK, torchvision.__version__)


def _linux_gpu() -> bool:
    if platform.system() != 'Linux' or not _is_installed('torch'):
        return False
    import torch

    return torch.cuda.is_available()


def _opencv(name: str) -> Finding:
    try:
        import cv2
    except ImportError as error:
        return Finding(
            name,
            FAIL,
            _describe(error),
            'pip uninstall -y opencv-python; pip install opencv-python-headless',
        )
    return Finding(name, OK, cv2.__version__)


def _setuptools(name: str) -> Finding:
    version = stack()['setuptools']['version']
    if importlib.util.find_spec('pkg_resources') is None:
        return Finding(
            name,
            FAIL,
            f'{version or "not installed"}: without pkg_resources mmengine cannot resolve '
            '`mmdet::` configs',
            'pip install "setuptools<81"',
        )
    if version is not None and release(version) >= (81, 0):
        return Finding(
            name,
            WARN,
            f'{version} still has pkg_resources, which mmengine needs; the next ones do not',
            'pip install "setuptools<81"',
        )
    return Finding(name, OK, str(version))


def _provider(name: str) -> Finding:
    """One of mmengine, mmcv and mmdet: installed, once, and in a tested version."""
    found = stack()
    version, distribution = found[name]['version'], found[name]['distribution']
    if version is None or distribution is None:
        install = {'mmengine': 'mmengine==0.10.7', 'mmcv': 'mmcv-lite==2.1.0'}
        requirement = install.get(name, 'mmdet==3.3.0')
        return Finding(name, FAIL, 'not installed', f'pip install {requirement}')
    if ' + ' in distribution:
        return Finding(
            name,
            WARN,
            f'{distribution} are both installed and overwrite the files of each other',
            f'pip uninstall -y {distribution.replace(" + ", " ")}, then install one of them',
        )
    asserted = name == 'mmcv' and found['mmdet']['distribution'] == 'mmdet'
    if asserted and not (2, 0) <= release(version) < (2, 2):
        return Finding(
            name,
            FAIL,
            f'{distribution} {version}, but mmdet asserts mmcv >= 2.0 and < 2.2 on import',
            f'pip install "{distribution}==2.1.0"',
        )
    for sentence in untested(found):
        if sentence.startswith((f'{name} ', f'{distribution} ')):
            return Finding(name, WARN, sentence, 'nothing, as long as everything else is well')
    return Finding(name, OK, f'{distribution} {version}')


def _ops(name: str) -> Finding:
    from mmdet_softpl import ops

    if ops.active() == 'missing':
        remedy = 'pip install mmcv-lite==2.1.0'
        try:
            importlib.import_module('mmcv')
        except Exception as error:  # of mmcv itself, or of what it needs
            remedy = _missing_module(error) or remedy
        return Finding(name, FAIL, ops.describe(), remedy)
    return Finding(name, OK, f'{ops.active()}: {ops.describe()}')


def _missing_module(error: Exception) -> str:
    """What to do where a module of another package is missing; empty for any other error."""
    if not isinstance(error, ModuleNotFoundError) or error.name in (None, 'mmcv', 'mmcv._ext'):
        return ''
    return f'install the package of the module {error.name!r}'


def _part_of_mmdet(name: str) -> Finding:
    try:
        importlib.import_module(name)
    except Exception as error:  # mmdet asserts versions while it is imported
        remedy = ', or '.join(filter(None, ['see the failed checks above', _missing_module(error)]))
        return Finding(name, FAIL, _describe(error), remedy)
    return Finding(name, OK, f'{name} can be imported')


def _resume(name: str) -> Finding:
    """Save and load what makes mmengine's checkpoints fail."""
    import torch
    from mmengine.logging import HistoryBuffer

    allow_mmengine_checkpoints()
    file = io.BytesIO()
    torch.save(HistoryBuffer([1.0], [1]), file)
    file.seek(0)
    try:
        torch.load(file)
    except Exception as error:  # pickle raises what it likes
        return Finding(
            name,
            FAIL,
            f'a checkpoint of mmengine cannot be loaded: {_describe(error)}',
            'set TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 for checkpoints that you trust',
        )
    return Finding(name, OK, 'checkpoints of mmengine can be loaded')


def _evaluation(name: str) -> Finding:
    version = stack()['faster-coco-eval']['version']
    for module in ('faster_coco_eval', 'pycocotools'):
        try:
            importlib.import_module(module)
        except ImportError as error:
            remedy = f'pip install {module.replace("_", "-")}'
            return Finding(name, FAIL, _describe(error), remedy)
    return Finding(name, OK, f'faster-coco-eval {version}')


def _lvis(name: str) -> Finding:
    if not _is_installed('lvis'):
        return Finding(
            name,
            OK,
            'not installed; only data sets of type LVISV1Dataset need it (pip install lvis)',
        )
    import numpy as np

    if hasattr(np, 'float'):
        return Finding(name, OK, 'works with this numpy')
    return Finding(
        name,
        WARN,
        f"its evaluation uses np.float, which numpy {np.__version__} no longer has: mmdet's "
        'LVISMetric crashes at the end of an evaluation',
        "use type='mmdet_softpl.LongTailMetric', which does not need it",
    )


_CHECKS: dict[str, Callable[[str], Finding]] = {
    'python': _python,
    'torch': _torch,
    'numpy': _numpy,
    'gpu': _gpu,
    'torchvision': _torchvision,
    'opencv': _opencv,
    'setuptools': _setuptools,
    'mmengine': _provider,
    'mmcv': _provider,
    'mmdet': _provider,
    'ops': _ops,
    'mmdet.models': _part_of_mmdet,
    'mmdet.datasets': _part_of_mmdet,
    'resume': _resume,
    'evaluation': _evaluation,
    'lvis': _lvis,
}


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _describe(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f'{type(error).__name__}: {lines[0] if lines else "no message"}'
