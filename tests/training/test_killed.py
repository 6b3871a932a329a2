"""Trainings that are killed or asked to stop: the same command goes on, and ends in the same bits."""

import signal

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

def train(name, step=0, number=9, workers=0, count={processes}):
    def run(rank):
        steps = end_at(step if rank == {victim} else 0, number, points)
        code = main([*command, str(workers), '--run-dir', str(out / name)])
        (out / 'steps').write_text(' '.join(steps.names)) if rank == {victim} else None
        return code
    return launch(count, run)

print('CODES', train('whole'))
names = (out / 'steps').read_text().split()
"""


def program(tmp_path, body: str, processes: int = 1, victim: int = 0) -> list[str]:
    data, recipe = write_splits(tmp_path / 'digits'), write_recipe(tmp_path)
    text = PROGRAM.format(
        root=str(ROOT), out=str(tmp_path), data=str(data), recipe=str(recipe), processes=processes, victim=victim,
        points=POINTS,
    )  # fmt: skip
    done = run_program(tmp_path / 'program.py', text + body)
    return [line.removeprefix('CODES ') for line in done.stdout.splitlines() if line.startswith('CODES')]


def test_a_run_that_is_killed_in_steps_validations_and_saves_ends_in_the_same_bits(tmp_path):
    # With another number of worker processes each time. A run that goes on begins to count anew.
    body = """
kinds = {name: [number + 1 for number, found in enumerate(names) if found == name] for name in set(names)}
assert set(kinds) == {'fsync', 'rename', 'backward', '_step'}, set(kinds)
chosen = [kinds['backward'][3], kinds['_step'][1], kinds['fsync'][4], kinds['rename'][9], kinds['fsync'][7]]
for number, step in enumerate(chosen):
    print('CODES', train('killed', step, workers=number % 2))
print('CODES', train('killed'))
"""
    whole, *killed, last = program(tmp_path, body)
    assert whole == last == '[0]'
    assert killed == ['[-9]'] * 5
    assert_equal_bits(tmp_path / 'whole', tmp_path / 'killed')


def test_a_run_that_is_asked_to_stop_saves_and_returns_what_a_scheduler_requeues(tmp_path):
    body = f"""
step = names.index('backward') + 1
print('CODES', train('killed', step, {int(signal.SIGTERM)}))
print('CODES', train('killed', names.index('_step') + 1, {int(signal.SIGINT)}))
print('CODES', train('killed'))
"""
    assert program(tmp_path, body) == ['[0]', '[143]', '[130]', '[0]']
    assert_equal_bits(tmp_path / 'whole', tmp_path / 'killed')


def test_two_processes_of_which_one_is_killed_end_in_the_same_bits(tmp_path):
    # A process that lost the other one fails by itself, or would be ended by torchrun.
    body = """
codes = train('killed', names.index('backward') + 3)
print('CODES', codes[1], codes[0] != 0)
print('CODES', train('killed'))
"""
    assert program(tmp_path, body, 2, 1) == ['[0, 0]', '-9 True', '[0, 0]']
    assert_equal_bits(tmp_path / 'whole', tmp_path / 'killed')
