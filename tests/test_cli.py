"""The command as a user meets it: help, exit codes, one line for wrong input."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eca_zoo.cli import COMMANDS, build_parser, main
from tests.harness.image_sets import MODEL, write_folder
from tests.spawning import run_python

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
    assert eca_zoo('--version').stdout == eca_zoo('-V').stdout == 'eca-zoo 0.2.0\n'


@pytest.mark.parametrize(
    ('word', 'remedy'),
    [
        ('valdate', 'the nearest is validate'),
        ('leaderbord', 'the nearest is leaderboard'),
        ('xyz', 'there are convert, '),
    ],
)
def test_an_unknown_command_names_the_nearest(word, remedy, capsys):
    with pytest.raises(SystemExit) as stop:
        main([word, '--model', 'x'])
    assert stop.value.code == 2
    assert f'eca-zoo: error: there is no command {word!r}; {remedy}' in capsys.readouterr().err


def test_all_commands_are_known_to_the_parser():
    (subparsers,) = [action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    assert sorted(subparsers.choices) == sorted(COMMANDS)


@pytest.mark.parametrize('command', ['fetch', 'verify', 'list', 'benchmark --bench profile'])
def test_names_are_accepted_with_and_without_the_flag(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    outputs = []
    for words in (['test_eca_resnet'], ['--model', 'test_eca_resnet'], ['-m', 'test_eca_resnet']):
        assert main([*command.split(), *words]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] == outputs[2] != ''


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (['export'], 'no name is given; export takes one network, such as eca_resnet50'),
        (['export', 'a', '-m', 'b'], 'a, b are 2 names; export takes one network, such as eca_resnet50'),
        (['fetch'], 'no checkpoint is named; give at least one, such as eca_resnet50, or all'),
        (['benchmark'], 'no model is named; give at least one, such as eca_resnet50'),
        (['validate', '/tmp'], 'no model is named; give at least one, such as eca_resnet50'),
    ],
)
def test_a_name_that_is_missing_or_too_many_is_said(words, said, capsys):
    assert main(words) == 2
    assert capsys.readouterr().err == f'eca-zoo {words[0]}: error: {said}\n'


def test_a_shell_completes_commands_flags_and_names(tmp_path):
    pytest.importorskip('shtab')
    script = tmp_path / 'completion'
    script.write_text(eca_zoo('--print-completion', 'bash').stdout)

    def completed(*words: str) -> list[str]:
        line = ' '.join(f"'{word}'" for word in words)
        state = f'COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}'
        program = f'source {script}; {state}; _shtab_eca_zoo; echo "${{COMPREPLY[@]}}"'
        done = subprocess.run(['bash', '-c', program], capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert completed('eca-zoo', 'va') == ['validate']
    assert '--checkpoint' in completed('eca-zoo', 'export', '--che')
    assert completed('eca-zoo', 'fetch', 'eca_mobile') == ['eca_mobilenetv2', 'eca_mobilenetv2.k13_in1k']


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


WAYS = pytest.mark.parametrize('command', [[SCRIPT], [sys.executable, '-m', 'eca_zoo']], ids=['script', 'module'])


@pytest.mark.parametrize('command', ['validate', 'leaderboard'])
def test_a_name_that_no_encoding_has_is_shown_and_written_with_an_escape(command, tmp_path):
    data = Path(os.fsdecode(os.fsencode(tmp_path) + b'/d\xe9'))
    try:
        write_folder(data, names=[*'012345678', os.fsdecode(b'\xe9')])
    except OSError:
        pytest.skip('this file system has no such names')
    (tmp_path / 'mine.yaml').write_text('version: 1\nmodels: [test_eca_resnet.digits]\ndata: {name: d}\n')
    arguments = {
        'validate': ['-m', MODEL, '-j', '0', '--per-class', 'c.csv', '--save-predictions', 'p.parquet'],
        'leaderboard': ['mine.yaml', '--out', str(data / 'run')],
    }
    result = subprocess.run(
        [SCRIPT, command, *arguments[command], '--data-dir', str(data)], capture_output=True, cwd=tmp_path,
        env=os.environ | {'PYTHONIOENCODING': 'ascii', 'COLUMNS': '120'},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    if command == 'leaderboard':
        assert b'd\\udce9/run/leaderboard.csv' in result.stdout
    else:
        assert '9,\\udce9,' in (tmp_path / 'c.csv').read_text()


@WAYS
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
    program = 'import timm, eca_zoo; print(timm.is_model("eca_resnet18"))'
    result = run_python('-c', program, env=os.environ | {'ECA_ZOO_HOME': str(tmp_path)})
    assert (result.returncode, result.stdout) == (0, 'True\n')
    assert result.stderr.startswith(f'{path}: models.eca_resnet18.mine')


@WAYS
def test_help_imports_no_torch(command):
    environment = os.environ | {'PYTHONPROFILEIMPORTTIME': '1'}
    result = subprocess.run([*command, '--help'], capture_output=True, text=True, env=environment)
    assert result.returncode == 0
    imported = {line.split('|')[-1].strip() for line in result.stderr.splitlines()}
    assert 'argparse' in imported
    assert not imported & {'torch', 'timm', 'pandas', 'yaml', 'numpy'}
