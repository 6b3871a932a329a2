"""The SLURM scripts: what they hand to srun, which cannot run here."""

import os
import subprocess
from pathlib import Path

import pytest

from eca_zoo.cli import main
from tests.harness.processes import ROOT

VARIABLES = {'SLURM_JOB_NODELIST': 'node[1-2]', 'SLURM_JOB_NUM_NODES': '2', 'SLURM_JOB_ID': '7'}
ARRAY = {'SLURM_ARRAY_TASK_ID': '1', 'SLURM_ARRAY_TASK_COUNT': '2'}


def started(script: str, arguments: list[str], folder: Path, **variables: str) -> list[str]:
    """The arguments of srun when SLURM runs ``script``."""
    for name, body in (('srun', 'printf "%s\\n" "$@"'), ('scontrol', 'echo node1; echo node2')):
        (folder / name).write_text(f'#!/bin/bash\n{body}\n')
        (folder / name).chmod(0o755)
    environment = {**os.environ, **VARIABLES, **variables, 'PATH': f'{folder}:{os.environ["PATH"]}'}
    command = ['bash', str(ROOT / 'scripts' / 'slurm' / script), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ('script', 'variables'),
    [('leaderboard.sbatch', {}), ('models_array.sbatch', ARRAY), ('train.sbatch', {})],
    ids=lambda value: str(value),
)
def test_srun_is_told_of_the_cores_and_the_package_understands_the_rest(script, variables, tmp_path):
    models = tmp_path / 'models.txt'
    models.write_text('a\nb\nc\n')
    first = {'leaderboard.sbatch': 'imagenet', 'train.sbatch': 'eca_resnet'}.get(script, str(models))
    given = started(script, [first, 'data', str(tmp_path)], tmp_path, SLURM_CPUS_PER_TASK='32', **variables)
    before = given[: given.index('torchrun')]
    assert '--cpus-per-task=32' in before
    assert '--cpu-bind=verbose' in before
    command = given[given.index('eca_zoo') + 1 :]
    with pytest.raises(SystemExit) as ended:
        main([*command, '--help'])
    assert ended.value.code == 0
    if variables:
        assert (tmp_path / 'models-1.txt').read_text() == 'a\nc\n'
