"""The command as a user meets it: help, exit codes, one line for wrong input."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(sys.executable).with_name('eca-zoo')


def eca_zoo(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [SCRIPT, *arguments], capture_output=True, text=True, cwd=cwd, env=os.environ | {'COLUMNS': '120'}
    )


def test_help_names_every_command():
    result = eca_zoo('--help')
    assert result.returncode == 0
    for command in ('convert', 'fetch', 'verify', 'list', 'publish', 'validate', 'benchmark', 'export', 'leaderboard'):
        assert f'    {command}' in result.stdout, command


def test_version_is_that_of_the_package():
    assert eca_zoo('--version').stdout == 'eca-zoo 0.1.0\n'


def test_no_command_prints_the_help_and_exits_2():
    result = eca_zoo()
    assert result.returncode == 2
    assert result.stdout.startswith('usage: eca-zoo')


@pytest.mark.parametrize('arguments', [['nonsense'], ['list', '--format', 'xml'], ['validate', '--batch-size', 'many']])
def test_wrong_usage_exits_2(arguments):
    result = eca_zoo(*arguments)
    assert result.returncode == 2
    assert 'error: ' in result.stderr


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            ['validate', '--model', 'eca_resnet5', '--data-dir', '.'],
            "eca-zoo validate: error: 'eca_resnet5' is no model that timm knows; "
            'the nearest names are eca_resnet50, eca_resnet152, ecaresnet50t\n',
        ),
        (
            ['verify', 'nope'],
            "eca-zoo verify: error: no checkpoint is called 'nope'; eca-zoo list shows what there is\n",
        ),
        (
            ['fetch', 'eca_resnet18'],
            'eca-zoo fetch: error: eca_resnet18.k3577_in1k needs conversion: no hash of its weights is known; download '
            "the authors' file eca_resnet18_k3577.pth.tar from "
            'https://drive.google.com/file/d/1LMRFRTyzVifGBi2MUpTuYEWW44S8mwyl '
            'and run: eca-zoo convert eca_resnet18_k3577.pth.tar\n',
        ),
    ],
)
def test_wrong_input_is_one_line_without_a_traceback_and_exits_2(arguments, message, tmp_path):
    result = eca_zoo(*arguments, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (2, message)
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback():
    result = eca_zoo('verify', 'nope', '--debug')
    assert result.returncode != 0
    assert 'Traceback' in result.stderr


COMMANDS = pytest.mark.parametrize('command', [[SCRIPT], [sys.executable, '-m', 'eca_zoo']], ids=['script', 'module'])


@COMMANDS
def test_a_broken_local_manifest_is_refused_in_one_line_that_names_file_and_key(command, tmp_path):
    (tmp_path / 'weights_manifest.yaml').write_text('version: 1\nmodels:\n  eca_resnet18.mine: {num_clases: 3}\n')
    result = subprocess.run(
        [*command, 'list'], capture_output=True, text=True, env=os.environ | {'ECA_ZOO_HOME': str(tmp_path)}
    )
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert str(tmp_path / 'weights_manifest.yaml') in line
    assert 'models.eca_resnet18.mine' in line


def test_a_broken_local_manifest_does_not_keep_the_package_from_being_imported(tmp_path):
    path = tmp_path / 'weights_manifest.yaml'
    path.write_text('version: 1\nmodels:\n  eca_resnet18.mine: {num_clases: 3}\n')
    program = [sys.executable, '-c', 'import timm, eca_zoo; print(timm.is_model("eca_resnet18"))']
    environment = os.environ | {'ECA_ZOO_HOME': str(tmp_path)}
    result = subprocess.run(program, capture_output=True, text=True, env=environment)
    assert (result.returncode, result.stdout) == (0, 'True\n')
    assert result.stderr.startswith(f'{path}: models.eca_resnet18.mine')


@COMMANDS
def test_help_imports_no_torch(command):
    environment = os.environ | {'PYTHONPROFILEIMPORTTIME': '1'}
    result = subprocess.run([*command, '--help'], capture_output=True, text=True, env=environment)
    assert result.returncode == 0
    imported = {line.split('|')[-1].strip() for line in result.stderr.splitlines()}
    assert 'argparse' in imported
    assert not imported & {'torch', 'timm', 'pandas', 'yaml', 'numpy'}
