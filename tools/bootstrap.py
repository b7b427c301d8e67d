"""Make ``.venv/`` and install what is missing in it, and nothing else.

    python3 tools/bootstrap.py STAGE        (STAGE: run, test or lint)

Called by the Makefile; standard library only, Python 3.10 to 3.12. An environment that is
up to date costs a comparison of stamps. What is there already is left alone: any torch, a
compiled mmcv, a whole onedl stack.

torch without CUDA: on Linux the package index serves a torch with gigabytes of CUDA
libraries. Without a GPU we ask for the ``+cpu`` build, first wherever pip is configured to
look, then in PyTorch's own index of CPU wheels. The CUDA build is never a fallback.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / '.venv'
PYTHON = VENV / 'bin' / 'python'

# The stack that the tests run on; pyproject.toml allows more.
TORCH = '2.13.0'
CPU_INDEX = 'https://download.pytorch.org/whl/cpu'
SETUPTOOLS = 'setuptools>=77,<81'
# import name -> (what we install, distributions that provide it as well)
STACK = {
    'mmengine': ('mmengine==0.10.7', ('mmengine', 'mmengine-lite', 'onedl-mmengine')),
    'mmcv': ('mmcv-lite==2.1.0', ('mmcv-lite', 'mmcv', 'onedl-mmcv')),
    'mmdet': ('mmdet==3.3.0', ('mmdet', 'onedl-mmdetection')),
}
# stage -> extras of pyproject.toml
STAGES = {'run': '', 'test': '[test]', 'lint': '[lint]'}

LIST_DISTRIBUTIONS = (
    'import importlib.metadata as m;'
    'print(*{d.metadata["Name"].lower().replace("_", "-") for d in m.distributions()})'
)


def main() -> int:
    """Bring the environment up to the stage named on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('stage', choices=STAGES)
    stage = parser.parse_args().stage

    stamp = VENV / f'.bootstrap-{stage}'
    wanted = fingerprint()
    if runs(PYTHON) and stamp.is_file() and stamp.read_text() == wanted:
        return 0
    started = time.monotonic()
    try:
        make_venv()
        install(stage)
    except subprocess.CalledProcessError as error:
        say(f'this command failed with status {error.returncode}: {" ".join(map(str, error.cmd))}')
        return 1
    write_stamp(stamp, wanted)
    say(f'the environment for `{stage}` is ready after {time.monotonic() - started:.0f} s')
    return 0


def fingerprint() -> str:
    """Of everything that decides what is installed."""
    digest = hashlib.sha256()
    for path in (ROOT / 'pyproject.toml', Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def make_venv() -> None:
    """Create ``.venv/`` unless its interpreter runs; one that does not is replaced."""
    if not runs(PYTHON):
        say(f'creating {VENV.name}/ with {sys.executable} ({sys.version.split()[0]})')
        subprocess.run([sys.executable, '-m', 'venv', '--clear', VENV], check=True)


def install(stage: str) -> None:
    """Install setuptools, torch, then everything else in one go."""
    # First, for the build of our own package without isolation, and because torch alone
    # would bring a release that is too new for mmengine.
    pip('install', SETUPTOOLS)
    present = distributions()
    if 'torch' not in present:
        install_torch(torch_attempts(sys.platform, has_nvidia_gpu()))
    missing = [
        requirement
        for requirement, providers in STACK.values()
        if not present.intersection(providers)
    ]
    if missing:
        say('installing the MMDetection stack; with torch about a minute on two cores')
    pip('install', '--no-build-isolation', SETUPTOOLS, *missing, '-e', f'{ROOT}{STAGES[stage]}')
    replace_opencv_without_display()
    compile_what_is_used()


def torch_attempts(platform: str, gpu: bool) -> list[list[str]]:
    """Arguments of pip that get torch, in the order in which to try them.

    Args:
        platform: ``sys.platform``.
        gpu: whether there is an NVIDIA GPU.
    """
    if gpu or not platform.startswith('linux'):
        return [[f'torch=={TORCH}'], ['torch>=2.1']]
    return [
        [f'torch=={TORCH}+cpu'],
        [f'torch=={TORCH}', '--index-url', CPU_INDEX],
        ['torch>=2.1', '--index-url', CPU_INDEX],
    ]


def install_torch(attempts: list[list[str]]) -> None:
    """Try the attempts in order.

    Raises:
        SystemExit: none of them worked; the message holds pip's own words of each.
    """
    complaints = []
    for arguments in attempts:
        say(f'installing {" ".join(arguments)}')
        command = pip_command('install', *arguments)
        # pip shows progress on stdout and complaints on stderr; those of an attempt that the
        # next one makes good would only alarm.
        result = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        if result.returncode == 0:
            return
        complaints.append(f'$ {" ".join(map(str, command))}\n{result.stderr.strip()}')
    raise SystemExit(
        '\n\n'.join(complaints)
        + f'\n\nbootstrap: no torch could be installed. Install one (>= 2.1) yourself with\n'
        f'  {PYTHON} -m pip install torch ...\nand run make again; it is then left alone.'
    )


def has_nvidia_gpu() -> bool:
    """Whether the driver answers, not merely whether its tool is there."""
    tool = shutil.which('nvidia-smi')
    return tool is not None and subprocess.run([tool, '-L'], capture_output=True).returncode == 0


def replace_opencv_without_display() -> None:
    """mmcv pulls in opencv-python, which needs libGL; servers often have none."""
    check = subprocess.run([PYTHON, '-c', 'import cv2'], capture_output=True, text=True)
    if check.returncode and '.so' in check.stderr:
        say('opencv-python lacks a system library here; installing opencv-python-headless')
        pip('uninstall', '-y', 'opencv-python')
        pip('install', 'opencv-python-headless')


def compile_what_is_used() -> None:
    """Write the byte code that pip was told not to write, of the files that are imported.

    All of torch and its company is half a minute of compiling on one core, this a few
    seconds. It also shows whether the stack can be imported at all.
    """
    environment = {k: v for k, v in os.environ.items() if k != 'PYTHONDONTWRITEBYTECODE'}
    command = [str(PYTHON), '-W', 'ignore', '-c', 'import mmdet_softpl, mmdet.apis']
    subprocess.run(command, check=True, cwd=ROOT, env=environment)


def distributions() -> set[str]:
    """Names of what is installed in ``.venv/``."""
    command: list[str | Path] = [PYTHON, '-c', LIST_DISTRIBUTIONS]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


def runs(python: Path) -> bool:
    """Whether an interpreter is there and starts (its base may have been removed)."""
    if not python.exists():
        return False
    return subprocess.run([python, '-c', ''], capture_output=True).returncode == 0


def pip_command(*arguments: str) -> list[str]:
    options = ['--disable-pip-version-check']
    if arguments[0] == 'install':
        arguments = ('install', '--no-compile', *arguments[1:])
    return [str(PYTHON), '-m', 'pip', *options, *arguments]


def pip(*arguments: str) -> None:
    subprocess.run(pip_command(*arguments), check=True)


def write_stamp(stamp: Path, content: str) -> None:
    temporary = stamp.with_suffix('.tmp')
    temporary.write_text(content)
    os.replace(temporary, stamp)


def say(text: str) -> None:
    print(f'bootstrap: {text}', flush=True)


if __name__ == '__main__':
    sys.exit(main())
