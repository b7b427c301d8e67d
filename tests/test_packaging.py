"""What a wheel carries, and what ``make`` does to an environment.

Wheels are built from a copy of the sources by the backend itself, without network. The
environment's Python is replaced by a script that writes down what it is asked to do.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from email.parser import Parser
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from mmdet_softpl._version import __version__

SOURCES = (
    'mmdet_softpl',
    'configs',
    'tools',
    'setup.py',
    'pyproject.toml',
    'MANIFEST.in',
    'LICENSE',
    'CITATION.cff',
    'README.md',
    'model-index.yml',
)


def build(kind: str, source: Path, out: Path) -> Path:
    """Run ``build_wheel`` or ``build_sdist`` of setuptools in ``source``."""
    out.mkdir(exist_ok=True)
    code = f'import setuptools.build_meta as b; b.build_{kind}({str(out)!r})'
    process = subprocess.run(
        [sys.executable, '-c', code], cwd=source, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr[-2000:]
    return max(out.iterdir(), key=lambda path: path.stat().st_mtime_ns)


@pytest.fixture(scope='module')
def source(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the package is built from, with a config that has gone from a last build."""
    copy = tmp_path_factory.mktemp('source')
    for name in SOURCES:
        if (repository / name).is_dir():
            ignored = shutil.ignore_patterns('__pycache__')
            shutil.copytree(repository / name, copy / name, ignore=ignored)
        else:
            shutil.copy(repository / name, copy / name)
    stale = copy / 'build' / 'lib' / 'mmdet_softpl' / '.mim' / 'configs' / 'stale.py'
    stale.parent.mkdir(parents=True)
    stale.touch()
    return copy


@pytest.fixture(scope='module')
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build('wheel', source, tmp_path_factory.mktemp('wheel'))


@pytest.fixture(scope='module')
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel is installed into."""
    target = tmp_path_factory.mktemp('site')
    command = [sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--no-index']
    subprocess.run([*command, '--target', str(target), str(wheel)], check=True)
    return target


def below(root: Path) -> set[str]:
    """Python files under ``root``, relative to it."""
    files = root.rglob('*.py')
    return {f.relative_to(root).as_posix() for f in files if '__pycache__' not in f.parts}


def metafiles(repository: Path) -> list[Path]:
    return sorted((repository / 'configs').rglob('metafile.yml'))


def test_wheel_has_what_mim_wants(wheel: Path, repository: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    mim = {name.removeprefix('mmdet_softpl/.mim/') for name in names if '/.mim/' in name}
    configs = {f'configs/{name}' for name in below(repository / 'configs')}
    assert configs, 'there are no configs to ship'
    configs |= {f'configs/{path.parent.name}/{path.name}' for path in metafiles(repository)}
    assert mim == configs | {'model-index.yml', 'tools/train.py', 'tools/test.py'}
    assert {f'mmdet_softpl/{name}' for name in below(repository / 'mmdet_softpl')} <= names
    assert not any(name.startswith(('tests/', 'configs/', 'tools/')) for name in names)


def test_mim_finds_every_config_by_its_name(installed: Path) -> None:
    """What `mim search` reads: the index, and the metafiles that it imports, as in the wheel."""
    mim = installed / 'mmdet_softpl' / '.mim'
    index = yaml.safe_load((mim / 'model-index.yml').read_text())
    assert set(index) == {'Import'}
    assert {mim / name for name in index['Import']} == set(mim.rglob('metafile.yml'))
    names = []
    for imported in index['Import']:
        content = yaml.safe_load((mim / imported).read_text())
        collections = {collection['Name'] for collection in content['Collections']}
        for model in content['Models']:
            names.append(model['Name'])
            assert model['In Collection'] in collections
            assert (mim / model['Config']).is_file()
            # `mim search --config` lowers what it is given.
            assert model['Name'] == Path(model['Config']).stem == model['Name'].lower()
            # Nothing has been trained at full length yet.
            assert not {'Results', 'Weights'} & set(model)
    shipped = {
        path.stem
        for path in (mim / 'configs').glob('*/*.py')
        if path.parent.name != 'demo' and 'custom' not in path.stem
    } - {path.stem for path in (mim / 'configs' / '_base_').rglob('*.py')}
    assert sorted(names) == sorted(shipped)


def test_metadata(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    info = f'mmdet_softpl-{__version__}.dist-info'
    metadata = Parser().parsestr(archive.read(f'{info}/METADATA').decode())
    assert metadata['Version'] == __version__
    assert metadata['License-Expression'] == 'Apache-2.0'
    assert metadata['Description-Content-Type'] == 'text/markdown'
    assert 'make demo' in metadata.get_payload()
    requirements = metadata.get_all('Requires-Dist', [])
    hard = [line.split(';')[0] for line in requirements if 'extra ==' not in line]
    # Installing us must not install, let alone replace, a stack.
    assert not any(line.startswith(('torch', 'mm', 'onedl', 'setuptools')) for line in hard)
    extras = set(metadata.get_all('Provides-Extra', []))
    assert {'openmmlab', 'onedl', 'lvis', 'tune', 'dev'} <= extras
    # mmengine imports pkg_resources; of an extra that leaves it to chance `doctor` would complain.
    for stack in ('openmmlab', 'onedl'):
        of_stack = [line for line in requirements if f'extra == "{stack}"' in line]
        assert any(line.startswith('setuptools<81') for line in of_stack)
    assert (
        'softpl = mmdet_softpl.__main__:main' in archive.read(f'{info}/entry_points.txt').decode()
    )


def test_wheel_resolves_its_own_configs(installed: Path, repository: Path, tmp_path: Path) -> None:
    code = """
import json, sys
from pathlib import Path
from mmengine.config import Config
from mmdet_softpl.shipped_configs import config_names, config_path, config_root
root = config_root()
for path in sorted(root.rglob('*.py')):
    Config.fromfile(path)
print(json.dumps([str(root), config_names()]))
"""
    environment = os.environ | {'PYTHONPATH': str(installed)}
    process = subprocess.run(
        [sys.executable, '-c', code], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr[-2000:]
    root, names = json.loads(process.stdout.splitlines()[-1])
    assert Path(root) == installed / 'mmdet_softpl' / '.mim' / 'configs'
    expected = below(repository / 'configs')
    assert set(names) == {name for name in expected if not name.startswith('_base_/')}


def test_script_of_mim_is_the_hosts(installed: Path, tmp_path: Path) -> None:
    path = installed / 'mmdet_softpl' / '.mim' / 'tools' / 'train.py'
    process = subprocess.run(
        [sys.executable, str(path), '--help'],
        env=os.environ | {'PYTHONPATH': str(installed)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    # torch.distributed.launch passes the first, older launchers the second.
    assert '--local-rank' in process.stdout and '--local_rank' in process.stdout


@pytest.mark.parametrize('script', ['train', 'test'])
def test_script_of_mim_takes_the_name_of_a_config(
    installed: Path, tmp_path: Path, script: str
) -> None:
    """As `mim run` gives it; a file of the user goes before."""
    name = 'calibrated-soft-teacher_mask-rcnn_r18_longtail-shapes.py'
    (tmp_path / 'mine.py').write_text('')
    path = installed / 'mmdet_softpl' / '.mim' / 'tools' / f'{script}.py'
    code = (
        'import json, runpy, sys\n'
        'run = runpy.run_path\n'
        'runpy.run_path = lambda *args, **kwargs: print(json.dumps(sys.argv[1:]))\n'
        'sys.argv = ["script", *sys.argv[2:]]\n'
        f'run({str(path)!r}, run_name="__main__")\n'
    )

    def arguments(*given: str) -> list[str]:
        process = subprocess.run(
            [sys.executable, '-c', code, '', *given],
            env=os.environ | {'PYTHONPATH': str(installed)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(process.stdout.splitlines()[-1])

    shipped, *rest = arguments(name, '--work-dir', name)
    assert Path(shipped).is_relative_to(installed) and Path(shipped).name == name
    assert rest == ['--work-dir', name]
    for given in ('mine.py', 'unknown.py', '--help'):
        assert arguments(given) == [given]


def test_sdist_can_build_the_wheel(source: Path, wheel: Path, tmp_path: Path) -> None:
    # A part of the suite would be there without the rest.
    (source / 'tests').mkdir()
    (source / 'tests' / 'test_of_a_part.py').touch()
    archive = build('sdist', source, tmp_path / 'sdist')
    shutil.rmtree(source / 'tests')
    with tarfile.open(archive) as opened:
        assert not [name for name in opened.getnames() if 'test_of_a_part' in name]
        opened.extractall(tmp_path, filter='data')
    again = build('wheel', tmp_path / archive.name.removesuffix('.tar.gz'), tmp_path / 'wheel')
    assert set(zipfile.ZipFile(again).namelist()) == set(zipfile.ZipFile(wheel).namelist())


# ---- tools/bootstrap.py ----------------------------------------------------------------


@pytest.fixture
def bootstrap(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module that works on an environment in ``tmp_path``."""
    path = repository / 'tools' / 'bootstrap.py'
    spec = importlib.util.spec_from_file_location('bootstrap_under_test', path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shutil.copy(repository / 'pyproject.toml', tmp_path)
    monkeypatch.setattr(module, 'ROOT', tmp_path)
    monkeypatch.setattr(module, 'VENV', tmp_path / '.venv')
    monkeypatch.setattr(module, 'PYTHON', tmp_path / '.venv' / 'bin' / 'python')
    monkeypatch.setattr(module, 'has_nvidia_gpu', lambda: False)
    monkeypatch.setattr(sys, 'platform', 'linux')
    monkeypatch.setattr(sys, 'argv', ['bootstrap.py', 'run'])
    return module


# Answers `-c` and `-W ignore -c`; logs the arguments of pip, fails those that hold a word of
# the file `refused`, remembers a torch. `dists` is what `importlib.metadata` would list.
FAKE_PYTHON = """#!/bin/bash
here=$(dirname "$0")
if [ "$1" = -W ]; then exit "$(cat "$here/import")"; fi
if [ "$1" = -c ]; then
    case "$2" in *distributions*) cat "$here/dists";; *cv2*) eval "$(cat "$here/cv2")";; esac
    exit
fi
echo "$*" >> "$here/log"
for word in $(cat "$here/refused"); do
    case "$* " in *"$word "*) echo "ERROR: no matching distribution for $word" >&2; exit 1;; esac
done
case "$*" in *" torch"*) echo torch >> "$here/dists";; esac
"""


@pytest.fixture
def fake(bootstrap: ModuleType) -> Callable[..., Path]:
    """Makes the fake environment; returns the folder with its log."""

    def make(
        dists: str = 'pip setuptools', refused: str = '', cv2: str = '', imports: str = '0'
    ) -> Path:
        folder = bootstrap.PYTHON.parent
        folder.mkdir(parents=True)
        contents = dict(dists=dists, refused=refused, log='', cv2=cv2)
        contents['import'] = imports
        for name, content in contents.items():
            (folder / name).write_text(content + '\n' if content else '')
        bootstrap.PYTHON.write_text(FAKE_PYTHON)
        bootstrap.PYTHON.chmod(0o755)
        return folder

    return make


def torch_calls(folder: Path) -> list[str]:
    lines = (folder / 'log').read_text().splitlines()
    return [line for line in lines if re.search(' torch[=>]', line)]


def test_cpu_machine_never_asks_for_cuda(bootstrap: ModuleType) -> None:
    attempts = bootstrap.torch_attempts('linux', gpu=False)
    assert attempts[0] == ['torch==2.13.0+cpu']
    assert all('+cpu' in a[0] or bootstrap.CPU_INDEX in a for a in attempts)
    assert all('--extra-index-url' not in a for a in attempts)


@pytest.mark.parametrize(('platform', 'gpu'), [('linux', True), ('darwin', False)])
def test_gpu_and_mac_take_the_plain_torch(bootstrap: ModuleType, platform: str, gpu: bool) -> None:
    assert bootstrap.torch_attempts(platform, gpu)[0] == ['torch==2.13.0']


@pytest.mark.parametrize(
    ('refused', 'calls'),
    [('', 1), ('torch==2.13.0+cpu', 2), ('torch==2.13.0+cpu torch==2.13.0', 3)],
)
def test_torch_falls_through(
    bootstrap: ModuleType, fake, refused: str, calls: int, capfd: pytest.CaptureFixture
) -> None:
    # The refusal of 'torch==2.13.0' is that of an index: the word is followed by a space.
    folder = fake(refused=refused)
    assert bootstrap.main() == 0
    found = torch_calls(folder)
    assert len(found) == calls
    assert ('download.pytorch.org' in found[-1]) == (calls > 1)
    assert 'ERROR' not in capfd.readouterr().err


def test_no_torch_at_all_is_explained(bootstrap: ModuleType, fake) -> None:
    folder = fake(refused='torch==2.13.0+cpu https://download.pytorch.org/whl/cpu')
    with pytest.raises(SystemExit) as failure:
        bootstrap.main()
    message = str(failure.value)
    assert message.count('ERROR: no matching distribution') == 3
    assert 'pip install torch' in message
    assert len(torch_calls(folder)) == 3
    assert not list(bootstrap.VENV.glob('.bootstrap-*'))


def test_up_to_date_environment_is_left_alone(bootstrap: ModuleType, fake) -> None:
    folder = fake()
    assert bootstrap.main() == 0
    (folder / 'log').write_text('')
    started = time.monotonic()
    assert bootstrap.main() == 0
    assert time.monotonic() - started < 1
    assert (folder / 'log').read_text() == ''
    (bootstrap.ROOT / 'pyproject.toml').open('a').write('\n# changed\n')
    assert bootstrap.main() == 0
    assert (folder / 'log').read_text() != ''


@pytest.mark.parametrize(
    ('dists', 'wanted', 'unwanted'),
    [
        ('torch', ['mmcv-lite==2.1.0', 'mmdet==3.3.0', 'mmengine==0.10.7'], ['torch==']),
        ('torch mmcv', ['mmdet==3.3.0'], ['mmcv-lite']),
        (
            'torch onedl-mmcv onedl-mmengine onedl-mmdetection',
            ['-e'],
            ['mmcv-lite', 'mmdet==', 'mmengine=='],
        ),
    ],
)
def test_what_is_there_stays(
    bootstrap: ModuleType, fake, dists: str, wanted: list[str], unwanted: list[str]
) -> None:
    folder = fake(dists=dists.replace(' ', '\n'))
    assert bootstrap.main() == 0
    log = (folder / 'log').read_text()
    assert all(word in log for word in wanted)
    assert not any(word in log for word in unwanted)


def test_stages_have_their_own_packages(
    bootstrap: ModuleType, fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fake()
    assert bootstrap.main() == 0
    assert '[test]' not in (folder / 'log').read_text()
    monkeypatch.setattr(sys, 'argv', ['bootstrap.py', 'test'])
    assert bootstrap.main() == 0
    assert f'-e {bootstrap.ROOT}[test]' in (folder / 'log').read_text()


@pytest.mark.parametrize('broken', [dict(refused='mmdet==3.3.0'), dict(imports='1')])
def test_failure_leaves_no_stamp(
    bootstrap: ModuleType, fake, broken: dict[str, str], capsys: pytest.CaptureFixture
) -> None:
    fake(**broken)
    assert bootstrap.main() == 1
    assert 'failed with status 1' in capsys.readouterr().out
    assert not list(bootstrap.VENV.glob('.bootstrap-*'))


def test_opencv_without_display_libraries(bootstrap: ModuleType, fake) -> None:
    folder = fake(cv2='echo "ImportError: libGL.so.1: cannot open" >&2; exit 1')
    assert bootstrap.main() == 0
    assert 'opencv-python-headless' in (folder / 'log').read_text()


def test_broken_environment_is_made_again(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interpreter that an environment was made with may have gone."""
    bootstrap.PYTHON.parent.mkdir(parents=True)
    bootstrap.PYTHON.symlink_to('/nonexistent/python3')
    made = []
    monkeypatch.setattr(bootstrap.subprocess, 'run', lambda command, **_: made.append(command))
    bootstrap.make_venv()
    assert made == [[sys.executable, '-m', 'venv', '--clear', bootstrap.VENV]]


# ---- Makefile --------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which('make') is None, reason='needs make')
@pytest.mark.parametrize(
    ('interpreters', 'chosen'),
    [
        ({'python3': 'works'}, 'python3'),
        ({'python3': 'shim', 'python3.12': 'shim', 'python3.11': 'works'}, 'python3.11'),
        ({'python3': 'too new or too old', 'python3.10': 'works'}, 'python3.10'),
        ({'python3': 'shim'}, None),
    ],
)
def test_makefile_finds_an_interpreter(
    repository: Path, tmp_path: Path, interpreters: dict[str, str], chosen: str | None
) -> None:
    shutil.copy(repository / 'Makefile', tmp_path)
    (tmp_path / 'tools').mkdir()
    (tmp_path / 'tools' / 'bootstrap.py').touch()
    scripts = {
        'works': '[ "$1" = -c ] || echo "CHOSEN $(basename $0) $*"',
        'shim': 'echo "pyenv: command not found" >&2; exit 127',
        'too new or too old': 'exit 1',
    }
    binaries = tmp_path / 'bin'
    binaries.mkdir()
    basename = shutil.which('basename')
    assert basename is not None
    (binaries / 'basename').symlink_to(basename)
    for name, behaviour in interpreters.items():
        (binaries / name).write_text(f'#!/bin/bash\n{scripts[behaviour]}\n')
        (binaries / name).chmod(0o755)
    process = subprocess.run(
        [str(shutil.which('make')), 'lint'],
        cwd=tmp_path,
        env={'PATH': str(binaries)},
        capture_output=True,
        text=True,
    )
    if chosen is None:
        assert 'No Python 3.10, 3.11 or 3.12' in process.stderr and process.returncode
        assert 'CHOSEN' not in process.stdout
    else:
        assert f'CHOSEN {chosen} tools/bootstrap.py lint' in process.stdout


def test_continuous_integration_runs_make_test(repository: Path) -> None:
    script = repository / '.ci' / 'run'
    assert os.access(script, os.X_OK)
    assert 'make test' in script.read_text()
