"""The dispatcher, with a command made up for the purpose and the real ones."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import types
import warnings
from pathlib import Path

import mmcv
import mmdet
import pytest

from mmdet_softpl import __main__ as entry
from mmdet_softpl.__main__ import main
from mmdet_softpl._version import __version__
from mmdet_softpl.cli import commands
from mmdet_softpl.installed_stack import stack


def fake_command(outcome: int | BaseException) -> types.SimpleNamespace:
    def run(args: argparse.Namespace) -> int:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return types.SimpleNamespace(
        NAME='fake', HELP='does as told', add_arguments=lambda parser: None, run=run
    )


@pytest.fixture
def outcome(monkeypatch: pytest.MonkeyPatch):
    def install(result: int | BaseException) -> None:
        monkeypatch.setattr(entry, 'commands', lambda: [fake_command(result)])

    return install


def test_warnings_are_sentences_said_once(monkeypatch, capsys) -> None:
    def run(args: argparse.Namespace) -> int:
        warnings.warn('pkg_resources is deprecated as an API', UserWarning, stacklevel=1)
        warnings.warn('something else', UserWarning, stacklevel=1)
        warnings.warn_explicit('something else', UserWarning, 'elsewhere.py', 1)
        return 0

    command = fake_command(0)
    command.run = run
    monkeypatch.setattr(entry, 'commands', lambda: [command])
    assert main(['fake']) == 0
    assert capsys.readouterr().err == 'warning: something else\n'
    with pytest.warns(UserWarning) as caught:
        assert main(['--debug', 'fake']) == 0
    assert [str(warning.message) for warning in caught] == ['something else'] * 2


@pytest.mark.parametrize('place', ['command', 'help'])
def test_a_reader_that_has_gone_is_no_error(
    outcome, place: str, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    """Also while a help is printed, which argparse lets pass before Python 3.11."""
    outcome(BrokenPipeError())

    def broken() -> argparse.ArgumentParser:
        raise BrokenPipeError

    if place == 'help':
        monkeypatch.setattr(entry, 'build_parser', broken)
    closed = []
    monkeypatch.setattr(entry.os, 'dup2', lambda new, old: closed.append(old))
    assert main(['fake']) == 1
    assert len(closed) == 1 and capfd.readouterr().err == ''


@pytest.mark.parametrize('status', [0, 1, 5])
def test_status_is_the_commands(outcome, status: int) -> None:
    outcome(status)
    assert main(['fake']) == status


@pytest.mark.parametrize(
    'error', [ValueError('val.json: no class'), FileNotFoundError('val.json is missing')]
)
def test_bad_input_is_one_message(outcome, error: Exception, capsys) -> None:
    outcome(error)
    assert main(['fake']) == 2
    captured = capsys.readouterr()
    assert captured.out == ''
    assert captured.err.startswith(f'softpl fake: {error}\n')
    assert 'Traceback' not in captured.err


def test_a_missing_package_is_one_message(outcome, capsys) -> None:
    for name, known in (('mmengine.runner', True), ('mine', False)):
        outcome(ModuleNotFoundError(f'No module named {name!r}', name=name))
        assert main(['fake']) == 2
        message = capsys.readouterr().err
        assert message.startswith(f'softpl fake: No module named {name!r}\n')
        assert ('mmdet_softpl doctor' in message) == known and 'Traceback' not in message


@pytest.mark.skipif(stack()['mmdet']['origin'] == 'onedl', reason='it refuses none')
def test_versions_that_mmdet_refuses_are_one_message(monkeypatch, capsys) -> None:
    def run(args: argparse.Namespace) -> int:
        monkeypatch.setattr(mmcv, '__version__', '2.2.0')
        importlib.reload(mmdet)
        return 0

    command = fake_command(0)
    command.run = run
    monkeypatch.setattr(entry, 'commands', lambda: [command])
    assert main(['fake']) == 2
    message = capsys.readouterr().err
    assert message.startswith('softpl fake: MMCV==2.2.0 is used but incompatible')
    assert 'mmdet_softpl doctor' in message


def test_a_torchvision_of_another_torch_is_one_message(outcome, capsys) -> None:
    """mmengine asks every installed one for its version when a training begins."""
    outcome(RuntimeError('operator torchvision::nms does not exist'))
    assert main(['fake']) == 2
    message = capsys.readouterr().err
    assert message.startswith('softpl fake: operator torchvision::nms does not exist')
    assert 'mmdet_softpl doctor' in message


@pytest.mark.parametrize('encoding', ['ascii', 'utf-8'])
def test_a_name_that_the_locale_cannot_print_ends_nothing(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = fake_command(0)
    command.run = lambda args: print('Schlüssel') or 0
    monkeypatch.setattr(entry, 'commands', lambda: [command])
    printed = tmp_path / 'out.txt'
    with printed.open('w', encoding=encoding) as stream:
        monkeypatch.setattr(sys, 'stdout', stream)
        assert main(['fake']) == 0
    expected = 'Schl\\xfcssel' if encoding == 'ascii' else 'Schlüssel'
    assert printed.read_text(encoding='utf-8').strip() == expected


@pytest.mark.parametrize('origin', ['onedl', 'openmmlab'])
def test_what_a_stack_prints_on_its_import_stays_out_of_a_json(
    origin: str, monkeypatch, capsys
) -> None:
    command = fake_command(0)
    command.add_arguments = lambda parser: parser.add_argument('--json', action='store_true')
    monkeypatch.setattr(entry, 'commands', lambda: [command])
    monkeypatch.setattr(entry, 'stack', lambda: dict(mmdet=dict(origin=origin)))

    def load(name: str) -> None:
        print(f'{name} says something')
        raise ImportError('and is broken, which the command will say better')

    monkeypatch.setattr(entry.importlib, 'import_module', load)
    assert main(['fake', '--json']) == 0
    printed = capsys.readouterr()
    assert printed.out == ''
    assert ('mmdet.datasets says something' in printed.err) == (origin == 'onedl')


@pytest.mark.parametrize('arguments', [['--debug', 'fake'], ['fake', '--debug']])
def test_debug_shows_the_traceback(outcome, arguments: list[str]) -> None:
    outcome(ValueError('bad'))
    with pytest.raises(ValueError, match='bad'):
        main(arguments)


@pytest.mark.parametrize('kind', [AttributeError, AssertionError, RuntimeError])
def test_a_defect_of_ours_is_not_hidden(outcome, kind: type[Exception]) -> None:
    outcome(kind('defect'))
    with pytest.raises(kind):
        main(['fake'])


def test_interrupt(outcome, capsys) -> None:
    outcome(KeyboardInterrupt())
    assert main(['fake']) == 130
    # Of commands that go on the tests are their own.
    assert capsys.readouterr().err == 'interrupted\n'


@pytest.mark.parametrize('arguments', [[], ['unknown'], ['fake', '--unknown']])
def test_usage_errors(outcome, arguments: list[str]) -> None:
    outcome(0)
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2


def test_every_file_is_a_command() -> None:
    folder = Path(entry.__file__).parent / 'cli'
    files = {path.stem for path in folder.glob('*.py')} - {'__init__'}
    found = {command.NAME.replace('-', '_') for command in commands()}
    assert found == files
    assert {'config_path', 'doctor', 'export'} <= found
    assert all(command.HELP and '\n' not in command.HELP for command in commands())


def test_help_imports_nothing_heavy(repository: Path) -> None:
    code = (
        'import sys, contextlib, io\n'
        'from mmdet_softpl.__main__ import main\n'
        'with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:\n'
        '    main(["--help"])\n'
        'assert "doctor" in out.getvalue()\n'
        'heavy = {"torch", "mmengine", "mmcv", "mmdet", "numpy", "matplotlib", "rich"}\n'
        'print(sorted(heavy & set(sys.modules)))'
    )
    process = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, cwd=repository
    )
    assert process.stdout.strip() == '[]', process.stderr


def test_module_and_version(repository: Path) -> None:
    command = [sys.executable, '-m', 'mmdet_softpl', '--version']
    process = subprocess.run(command, capture_output=True, text=True, cwd=repository)
    assert process.stdout.strip() == __version__


def test_closed_pipe_is_quiet(repository: Path) -> None:
    command = f'{sys.executable} -m mmdet_softpl doctor --help | true'
    process = subprocess.run(
        ['bash', '-c', command], capture_output=True, text=True, cwd=repository
    )
    assert 'Traceback' not in process.stderr


@pytest.mark.parametrize('command', commands(), ids=lambda command: command.NAME)
def test_every_help_has_an_example(command: types.ModuleType, capsys) -> None:
    with pytest.raises(SystemExit):
        main([command.NAME, '--help'])
    assert 'example' in capsys.readouterr().out
