"""Runs that are killed or asked to stop: the same command continues them to the table of an undisturbed run."""

from tests.harness.image_sets import MODEL, write_folder
from tests.harness.processes import run_program

# Forks `eca-zoo validate`, ends it after a while, and continues until it is through; prints the ends and the counts.
PROGRAM = """
import random, signal, time

folder, out = Path({folder!r}), Path({out!r})
generator = random.Random({seed})
command = ['validate', '-m', 'MODEL', 'test_eca_resnet', '--num-classes', '10', '--data-dir', str(folder), '-b', '2',
           '-j', '{workers}', '--device', 'cpu', '--record-every', '0', '--results-format', 'json']

def validate(name, *more):
    return main([*command, '--run-dir', str(out / name), '--results-file', str(out / f'{{name}}.json'), *more])

def journal_size():
    return sum(path.stat().st_size for path in (out / 'killed').glob('journal-*'))

def end_when_it_has_written(signals, size):
    def run(rank):
        return validate('killed', '--save-predictions', str(out / 'killed.parquet'))
    child = os.fork()
    if not child:
        code = run(0)
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if journal_size() >= size:
            time.sleep(generator.uniform(0, 0.05))
            os.kill(child, signals[len(ends) % len(signals)])
            _, status = os.waitpid(child, 0)
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)

assert launch(1, lambda rank: validate('whole', '--save-predictions', str(out / 'whole.parquet'))) == [0]
ends = []
while (code := end_when_it_has_written([{signals}], journal_size() + {step})) != 0:
    ends.append(code)
    assert len(ends) < 100
print('ENDS', *ends)
""".replace('MODEL', MODEL)


def ends_of(tmp_path, **values) -> tuple[list[int], str]:
    """Exit codes of the runs that did not get through, and what they wrote to stderr."""
    folder = write_folder(tmp_path / 'digits')
    done = run_program(tmp_path / 'program.py', PROGRAM.format(folder=str(folder), out=str(tmp_path), **values))
    [line] = [line for line in done.stdout.splitlines() if line.startswith('ENDS')]
    for suffix in ('json', 'parquet'):
        whole, killed = (tmp_path / f'{name}.{suffix}' for name in ('whole', 'killed'))
        assert killed.read_bytes() == whole.read_bytes()
    return [int(code) for code in line.split()[1:]], done.stderr


def test_a_run_that_is_killed_again_and_again_gives_the_table_of_an_undisturbed_one(tmp_path):
    ends, _ = ends_of(tmp_path, signals='signal.SIGKILL', seed=0, workers=2, step=2500)
    assert len(ends) >= 3
    assert set(ends) == {-9}


def test_a_run_that_is_asked_to_stop_says_how_to_continue(tmp_path):
    ends, stderr = ends_of(tmp_path, signals='signal.SIGINT, signal.SIGTERM', seed=0, workers=0, step=5000)
    assert len(ends) >= 2
    assert set(ends) == {130}
    for number, line in enumerate(stderr.splitlines()):
        assert line == (
            f'eca-zoo validate: error: stopped by {("SIGINT", "SIGTERM")[number % 2]}; what was counted is in '
            f'{tmp_path / "killed"}; the same command continues'
        )
