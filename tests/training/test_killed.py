"""Trainings that are killed or asked to stop: the same command goes on, and ends in the same bits."""

import os
import signal

import pytest
import torch

from eca_zoo.cli import main
from eca_zoo.training.step import Stepper
from eca_zoo.training.tasks.classification import ClassificationTask
from tests.harness.processes import ROOT, run_program
from tests.training.helpers import assert_equal_bits, write_recipe, write_splits

# Within a step, within a validation, and around everything that gets onto the disk.
POINTS = ['torch.autograd:backward', 'eca_zoo.harness.accuracy.passes:Pass._step']
PROGRAM = """
sys.path.insert(0, {root!r})
import eca_zoo.api
from scripts.end_at import end_at

out, points = Path({out!r}), {points!r}
command = ['train', {recipe!r}, '--data-dir', {data!r}, '--device', 'cpu', '--save-every', '1steps',
           '--log-interval', '2', '-j']

def train(name, step=0, workers=0, count=1, victim=0):
    def run(rank):
        steps = end_at(step if rank == victim else 0, points=points)
        code = main([*command, str(workers), '--run-dir', str(out / name)])
        (out / 'steps').write_text(' '.join(steps.names)) if rank == victim else None
        return code
    return launch(count, run)

print('CODES', train('whole'))
names = (out / 'steps').read_text().split()
kinds = {{name: [number + 1 for number, found in enumerate(names) if found == name] for name in set(names)}}
assert set(kinds) == {{'fsync', 'rename', 'backward', '_step'}}, set(kinds)
# A run that goes on begins to count anew; it has another number of processes that decode each time.
chosen = [kinds['backward'][3], kinds['_step'][1], kinds['fsync'][4], kinds['rename'][9]]
print('CODES', [train('killed', step, workers=number % 2)[0] for number, step in enumerate(chosen)])
print('CODES', train('killed'))

print('CODES', train('two', count=2, victim=1))
names = (out / 'steps').read_text().split()
codes = train('two killed', names.index('backward') + 3, count=2, victim=1)
# A process that lost the other one fails by itself, or would be ended by torchrun.
print('CODES', [codes[0] != 0, codes[1]])
print('CODES', train('two killed', count=2))
"""


def test_runs_that_are_killed_in_steps_validations_and_saves_end_in_the_same_bits(tmp_path):
    program = PROGRAM.format(
        root=str(ROOT), out=str(tmp_path), data=str(write_splits(tmp_path / 'digits')),
        recipe=str(write_recipe(tmp_path)), points=POINTS,
    )  # fmt: skip
    lines = run_program(tmp_path / 'program.py', program).stdout.splitlines()
    assert [line.removeprefix('CODES ') for line in lines if line.startswith('CODES')] == [
        '[0]', '[-9, -9, -9, -9]', '[0]', '[0, 0]', '[True, -9]', '[0, 0]',
    ]  # fmt: skip
    assert_equal_bits(tmp_path / 'whole', tmp_path / 'killed')
    assert_equal_bits(tmp_path / 'two', tmp_path / 'two killed')


@pytest.mark.parametrize(
    'device',
    [
        'cpu',
        pytest.param(
            'cuda',
            marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')],
        ),
    ],
)
def test_a_run_that_is_asked_to_stop_saves_and_returns_what_a_scheduler_requeues(tmp_path, monkeypatch, device):
    monkeypatch.setenv('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    data, recipe = write_splits(tmp_path / 'digits'), write_recipe(tmp_path)
    calls = {'step': 0, 'validate': 0}

    def train(name: str, ends_at: tuple[str, int] = ('', 0), number: int = signal.SIGTERM) -> int:
        calls.update(step=0, validate=0)

        def ending(kind: str, function):
            def counted(*arguments):
                calls[kind] += 1
                if (kind, calls[kind]) == ends_at:
                    os.kill(os.getpid(), number)
                return function(*arguments)

            return counted

        with monkeypatch.context() as patch:
            patch.setattr(Stepper, 'step', ending('step', Stepper.step))
            patch.setattr(ClassificationTask, 'validate', ending('validate', ClassificationTask.validate))
            return main(
                ['train', str(recipe), '--data-dir', str(data), '--device', device, '--deterministic', '-j', '0',
                 '--run-dir', str(tmp_path / name)]
            )  # fmt: skip

    assert train('whole') == 0
    assert train('stopped', ('step', 2)) == 143
    assert train('stopped', ('validate', 2), signal.SIGINT) == 130
    assert train('stopped') == 0
    assert calls['step'] < 6
    assert_equal_bits(tmp_path / 'whole', tmp_path / 'stopped')
