"""Processes that cannot reach each other: each machine says why, and none waits for ever."""

import re

from tests.harness.processes import complaints, run_program

PROGRAM = """
import datetime, socket
from eca_zoo.harness.machine import connection
os.environ.pop('GLOO_SOCKET_IFNAME', None)

def validate(rank, host):
    socket.gethostname = lambda: host
    return main(['validate', '-m', 'test_eca_resnet', '--device', 'cpu', '--data-dir', '/nowhere'])
"""


def test_machines_whose_names_stand_for_the_loopback_say_so_and_end(tmp_path):
    done = run_program(
        tmp_path / 'program.py',
        PROGRAM
        + """
def on_two_machines(rank):
    # Four processes, the first and the third one of them the first of their machine.
    os.environ['LOCAL_RANK'] = str(rank % 2)
    return validate(rank, f'node{rank // 2}.invalid')

print(*launch(4, on_two_machines), flush=True)
""",
    )
    assert done.stdout == '1 1 1 1\n'
    first, second = complaints(done.stderr)
    assert first == second
    assert re.fullmatch(
        r'eca-zoo validate: error: process 0 on node0\.invalid cannot be reached from other machines: the name '
        r'node0\.invalid stands for 127\.0\.0\.1 there; set GLOO_SOCKET_IFNAME on each machine to the network '
        r'interface between them( \(there: [^)]+\))?',
        first,
    )


def test_a_process_that_does_not_come_is_named(tmp_path):
    done = run_program(
        tmp_path / 'program.py',
        PROGRAM
        + """
connection._PATIENCE = datetime.timedelta(milliseconds=100)
print(*launch(2, lambda rank: 3 if rank else validate(rank, 'node0')), flush=True)
""",
    )
    assert done.stdout == '1 3\n'
    # Torch has logged the time-out with its own stack before.
    line = done.stderr.splitlines()[-1]
    assert line.startswith('eca-zoo validate: error: process 0 on node0 waits for process 1 in vain (')
    assert line.endswith('); its own log says why')


def test_a_process_without_torchrun_is_told_of_it(tmp_path):
    done = run_program(
        tmp_path / 'program.py',
        PROGRAM
        + """
def alone(rank):
    os.environ |= {'RANK': '0', 'WORLD_SIZE': '2'}
    del os.environ['MASTER_ADDR']
    return validate(rank, 'node0')

print(*launch(1, alone), flush=True)
""",
    )
    assert done.stdout == '1\n'
    [line] = complaints(done.stderr)
    assert line.startswith('eca-zoo validate: error: process 0 on node0 does not find the others: ')
    assert line.endswith('environment variable MASTER_ADDR expected, but not set; start with torchrun')
