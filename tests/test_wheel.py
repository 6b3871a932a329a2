"""The built wheel, installed into an environment that does not know the checkout, used from another directory."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('wheel')
    command = [sys.executable, '-m', 'build', '--wheel', '--no-isolation', '--outdir', str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = folder.glob('*.whl')
    return path


@pytest.fixture(scope='module')
def environment(wheel, tmp_path_factory) -> Path:
    """A new virtual environment with the wheel and, by path, the packages that it depends on."""
    folder = tmp_path_factory.mktemp('environment')
    venv.create(folder, with_pip=True)
    command = [folder / 'bin' / 'python', '-m', 'pip', 'install', '--quiet', '--no-deps', '--no-index', wheel]
    subprocess.run(command, check=True)
    (site_packages,) = folder.glob('lib/python*/site-packages')
    # A plain path entry: the editable installation of the checkout, a .pth file over there, has no effect here.
    folders = [path for path in sys.path if Path(path).name in ('site-packages', 'dist-packages')]
    (site_packages / 'dependencies.pth').write_text('\n'.join(folders) + '\n')
    return folder


def in_environment(environment: Path, folder: Path, *command: str) -> subprocess.CompletedProcess:
    variables = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    variables['ECA_ZOO_HOME'] = str(folder / 'home')
    path = environment / 'bin' / command[0]
    return subprocess.run([path, *command[1:]], cwd=folder, env=variables, capture_output=True, text=True)


def test_wheel_carries_the_package_alone_with_its_data(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split('/')[0] for name in names} == {'eca_zoo', 'eca_zoo-0.2.0.dist-info'}
    assert {
        'eca_zoo/packaged/weights_manifest.yaml',
        'eca_zoo/packaged/suites/digits.yaml',
        'eca_zoo/packaged/suites/imagenet.yaml',
        'eca_zoo/packaged/reference/ecanet_imagenet.csv',
        *(f'eca_zoo/packaged/recipes/{path.name}' for path in (ROOT / 'benchmark/recipes').iterdir()),
        'eca_zoo/packaged/checkpoints/test_eca_resnet.digits.safetensors',
    } <= set(names)


def test_installed_package_registers_and_loads_its_networks(environment, tmp_path):
    code = (
        'import timm, eca_zoo; print(eca_zoo.__file__); '
        'm = timm.create_model("test_eca_resnet", pretrained=True); print(m.num_classes, timm.is_model("eca_resnet50"))'
    )
    result = in_environment(environment, tmp_path, 'python', '-c', code)
    assert result.returncode == 0, result.stderr
    location, facts = result.stdout.splitlines()
    assert Path(location).is_relative_to(environment)
    assert facts == '10 True'


def test_installed_command_answers_from_any_directory(environment, tmp_path):
    result = in_environment(environment, tmp_path, 'eca-zoo', '--help')
    assert result.returncode == 0, result.stderr
    assert 'leaderboard' in result.stdout
    result = in_environment(environment, tmp_path, 'eca-zoo', 'verify', 'test_eca_resnet.digits')
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith('test_eca_resnet.digits  ok  ')


def test_installed_command_imports_no_torch_for_its_help(environment, tmp_path):
    script = environment / 'bin' / 'eca-zoo'
    result = in_environment(environment, tmp_path, 'python', '-X', 'importtime', str(script), '--help')
    assert result.returncode == 0
    assert not {'torch', 'timm', 'pandas', 'yaml', 'numpy'} & {
        line.split('|')[-1].strip() for line in result.stderr.splitlines()
    }
