"""Runs that are killed or asked to stop: the same command continues them to the table of an undisturbed run."""

import signal

import pytest

from tests.harness.image_sets import MODEL, write_folder
from tests.harness.processes import ROOT, complaints, run_program

# Runs `eca-zoo validate` undisturbed, then again with an end at each of the given steps of its work, then to its end.
PROGRAM = """
sys.path.insert(0, {root!r})
import subprocess
from scripts.end_at import Steps, end_at

folder, out = Path({folder!r}), Path({out!r})
command = ['validate', '-m', 'MODEL', 'test_eca_resnet', '--num-classes', '10', '--data-dir', str(folder), '-b', '2',
           '-j', '{workers}', '--device', 'cpu', '--record-every', '0', '--results-format', 'json']

def validate(name, step, number):
    def run(rank):
        if {group}:
            # As timeout does: the process, and then its group with the processes that decode for it.
            os.setpgid(0, 0)
            kill = f'kill -{{number}} {{os.getpid()}} -{{os.getpid()}}'
            Steps(step, lambda _: subprocess.run(['sh', '-c', kill], check=True, start_new_session=True))
        else:
            end_at(step, number)
        files = [f'--{{key}}={{out / name}}{{suffix}}' for key, suffix in FILES.items()]
        return main([*command, *files])
    return launch(1, run)[0]

FILES = {{'run-dir': '', 'results-file': '.json', 'save-predictions': '.parquet'}}
codes = [validate('whole', 0, 0)]
codes += [validate('killed', step, number) for step, number in {ends!r}]
codes += [validate('killed', 0, 0)]
print('CODES', *codes)
""".replace('MODEL', MODEL)


def ends_of(tmp_path, ends: list[tuple[int, int]], workers: int, group: bool = False) -> tuple[list[int], str]:
    """Exit codes of runs that were ended at a step by a signal, to the process or its group, and what they said."""
    folder = write_folder(tmp_path / 'digits', count=40)
    values = {'root': str(ROOT), 'folder': str(folder), 'out': str(tmp_path)}
    program = PROGRAM.format(**values, workers=workers, ends=ends, group=group)
    done = run_program(tmp_path / 'program.py', program)
    [line] = [line for line in done.stdout.splitlines() if line.startswith('CODES')]
    whole, *codes, last = [int(code) for code in line.split()[1:]]
    assert whole == last == 0
    for suffix in ('json', 'parquet'):
        whole, killed = (tmp_path / f'{name}.{suffix}' for name in ('whole', 'killed'))
        assert killed.read_bytes() == whole.read_bytes()
    return codes, done.stderr


def test_a_run_that_is_killed_again_and_again_gives_the_table_of_an_undisturbed_one(tmp_path):
    # A batch is two times eight steps: before and after the bytes and the name of its predictions, and its record.
    steps = [1, 17, 26, 35, 44, 53]
    codes, _ = ends_of(tmp_path, [(step, int(signal.SIGKILL)) for step in steps], workers=2)
    assert codes == [-signal.SIGKILL] * len(steps)


@pytest.mark.parametrize(('workers', 'group'), [(0, False), (2, True)], ids=['process', 'group'])
def test_a_run_that_is_asked_to_stop_says_how_to_continue_and_ends_as_the_shell_expects(tmp_path, workers, group):
    signals = [signal.SIGINT, signal.SIGTERM, signal.SIGINT]
    ends = [(step, int(number)) for step, number in zip((9, 60, 31), signals, strict=True)]
    codes, stderr = ends_of(tmp_path, ends, workers, group)
    assert codes == [130, 143, 130]
    assert complaints(stderr) == [
        f'eca-zoo validate: error: stopped by {number.name}; what was counted is in {tmp_path / "killed"}; the same '
        'command continues'
        for number in signals
    ]
    assert 'INFO: test_eca_resnet: continuing at ' in stderr
