#!/bin/sh
# Make .venv-compiled: the environment of `make test` with mmcv compiled from source in the place of
# mmcv-lite, to run the suite on mmcv's own ops. Needs a C++ compiler, and the first time 7 to 12
# minutes on two cores; pip keeps the wheel it built, so the next time takes seconds.
# PYTHON=... chooses the interpreter.
set -eu
cd "$(dirname "$0")/.."
env=.venv-compiled
python=$env/bin/python

if $python -c 'import mmcv._ext, mmdet, mmdet_softpl, pytest, xdist, netcal' 2>/dev/null; then
    echo "$env is complete"
    exit 0
fi
command -v "${CXX:-c++}" >/dev/null || {
    echo "make_compiled_env: no C++ compiler (${CXX:-c++}): install one, or use make test" >&2
    exit 1
}

# tools/bootstrap.py knows where torch comes from and what the suite needs; here for our folder.
bootstrap() {
    "${PYTHON:-python3}" - "$1" <<'END'
import sys
from pathlib import Path

sys.path.insert(0, 'tools')
import bootstrap

bootstrap.VENV = Path('.venv-compiled').resolve()
bootstrap.PYTHON = bootstrap.VENV / 'bin' / 'python'
if sys.argv[1] == 'before mmcv':
    bootstrap.make_venv()
    # mmcv's setup.py needs the first one, ninja makes the build parallel.
    bootstrap.pip('install', bootstrap.SETUPTOOLS, 'wheel', 'ninja')
    if 'torch' not in bootstrap.distributions():
        bootstrap.install_torch(
            bootstrap.torch_attempts(sys.platform, bootstrap.has_nvidia_gpu())
        )
else:
    bootstrap.install('test')
END
}

bootstrap 'before mmcv'
if ! $python -c 'import mmcv._ext' 2>/dev/null; then
    $python -m pip uninstall -q -y mmcv-lite
    echo 'compiling mmcv 2.1.0: 77 files, 7 to 12 minutes on two cores unless pip has the wheel'
    # Debug information doubles the time. Without build isolation it meets the torch above.
    PATH="$PWD/$env/bin:$PATH" CFLAGS=-g0 \
        $python -m pip install --no-build-isolation 'mmcv==2.1.0'
fi
bootstrap 'after mmcv'
$python -c 'import mmdet_softpl.ops as ops; print(ops.describe()); assert ops.active() == "compiled"'
