"""Signals: who is meant by one, what counts as a wish, and that nobody waits for ever."""

import os
import signal

import pytest

from eca_zoo.errors import InputError, RunError
from eca_zoo.harness.resume.signals import InterruptedRunError, stop_on_signals
from tests.harness.processes import run_program
from tests.spawning import run_python


@pytest.mark.parametrize(('number', 'code'), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_comes_twice_is_one_wish(number, code):
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with stop_on_signals(one_wish=float('inf')) as stop:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
    assert stop.signal_name == number.name
    assert InterruptedRunError('', signal_name=stop.signal_name).exit_code == code
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers


def signalled(number, error=None, **options):
    """Get a signal twice, and fail then."""
    with stop_on_signals(**options):
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        if error is not None:
            raise error


def test_ctrl_c_that_is_pressed_again_ends_the_run_at_once():
    with pytest.raises(KeyboardInterrupt):
        signalled(signal.SIGINT, one_wish=0)
    signalled(signal.SIGTERM, one_wish=0)


@pytest.mark.parametrize('error', [RunError('lost the others'), ValueError('lost the others')])
def test_what_fails_after_a_signal_is_its_consequence(error):
    with pytest.raises(InterruptedRunError) as raised:
        signalled(signal.SIGTERM, error)
    assert raised.value.exit_code == 143
    assert str(raised.value) == 'stopped by SIGTERM (lost the others); with a run directory the same command continues'


def test_wrong_input_is_no_consequence_of_a_signal():
    with pytest.raises(InputError, match='wrong all the same'):
        signalled(signal.SIGTERM, InputError('wrong all the same'))


@pytest.mark.skipif(not hasattr(signal, 'sigwaitinfo'), reason='signals do not say who sent them')
def test_a_process_that_works_for_another_is_ended_by_that_one_alone():
    program = """
import os, signal, subprocess, sys
from eca_zoo.harness.resume.signals import leave_signals_to_parent
(asked, ask), (answers, answer) = os.pipe(), os.pipe()
child = os.fork()
if not child:
    leave_signals_to_parent()
    while True:
        os.write(answer, os.read(asked, 1))
for number in (signal.SIGTERM, signal.SIGINT):
    os.write(ask, b'x'), os.read(answers, 1)
    subprocess.run([sys.executable, '-c', f'import os; os.kill({child}, {int(number)})'], check=True)
os.write(ask, b'x'), os.read(answers, 1)
os.kill(child, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = run_python('-c', program)
    assert (done.stdout, done.stderr) == ('0\n', '')


def test_a_signal_that_came_before_is_a_reason_not_to_wait():
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(InterruptedRunError) as raised, stop.ends_waiting():
            pass
    assert raised.value.exit_code == 143


def test_a_signal_ends_a_process_that_waits_for_others_and_these_notice(tmp_path):
    done = run_program(
        tmp_path / 'program.py',
        """
import contextlib, signal
from eca_zoo.errors import RunError
from eca_zoo.harness.machine.processes import gather
from eca_zoo.harness.resume.signals import stop_on_signals
waits, waiting = os.pipe()

def work(rank):
    together = False
    with stop_on_signals() as stop:

        @contextlib.contextmanager
        def while_waiting():
            with stop.ends_waiting():
                if together and not rank:
                    os.write(waiting, str(os.getpid()).encode())
                yield

        with process_group(while_waiting):
            gather(rank)
            together = True
            if rank:
                os.kill(int(os.read(waits, 9)), signal.SIGTERM)
            try:
                gather(rank)
            except RunError as error:
                print(str(error).partition(' (')[0], flush=True)
                return error.exit_code

print(*launch(2, work), flush=True)
""",
    )
    assert done.stdout.splitlines() == ['process 1 has lost the others', f'{-signal.SIGTERM} 1']
