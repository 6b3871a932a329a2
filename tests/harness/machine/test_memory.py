"""Memory on the CPU: freed tensors' memory is kept while networks run, and given back afterwards."""

import json
import os
import platform
import subprocess
import sys

import pytest
import torch

from eca_zoo.harness.machine.memory import freed_memory_kept

CPU = torch.device('cpu')
# In a process of its own, whose heap no other test has used. By the C library's own account: MiB that it maps for a
# tensor of 256 MiB, outside and inside; the fewest MiB that its heap grows for one of several more inside (where in the
# heap one comes to lie differs); and, by the system's, MiB of memory and swap that are taken inside after the tensors
# are freed, and that are given back at the end.
_SCRIPT = """
import ctypes, json, torch
from eca_zoo.harness.machine.memory import freed_memory_kept

FIELDS = ('arena', 'ordblks', 'smblks', 'hblks', 'hblkhd', 'usmblks', 'fsmblks', 'uordblks', 'fordblks', 'keepcost')

class Account(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS]

account = ctypes.CDLL(None).mallinfo2
account.restype = Account

def growth(field):
    before = getattr(account(), field)
    tensor = torch.ones(2**26)
    return (getattr(account(), field) - before) // 2**20

def taken():
    with open('/proc/self/status') as file:
        fields = dict(line.split(':', 1) for line in file)
    return sum(int(fields[name].split()[0]) for name in ('VmRSS', 'VmSwap')) // 2**10

start = taken()
mapped_outside = growth('hblkhd')
with freed_memory_kept(torch.device('cpu')):
    mapped_inside, again, kept = growth('hblkhd'), min(growth('arena') for _ in range(6)), taken()
print(json.dumps([mapped_outside, mapped_inside, again, kept - start, kept - taken()]))
"""
needs_glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != 'glibc'
    or [int(part) for part in platform.libc_ver()[1].split('.')] < [2, 33]
    or sys.platform != 'linux',
    reason='needs Linux and the account that glibc gives since 2.33',
)


def account(**variables: str) -> list[int]:
    """What the script prints, in MiB."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(('GLIBC_', 'MALLOC_'))}
    done = subprocess.run(
        [sys.executable, '-c', _SCRIPT], env=environment | variables, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@needs_glibc
def test_memory_of_freed_tensors_is_used_again_and_given_back_at_the_end():
    mapped_outside, mapped_inside, again, kept, given_back = account()
    assert mapped_outside >= 256
    assert mapped_inside == again == 0
    assert kept > 240
    assert given_back > 240


@needs_glibc
@pytest.mark.parametrize(('name', 'value'), [('MALLOC_ARENA_MAX', '2'), ('GLIBC_TUNABLES', 'glibc.malloc.arena_max=2')])
def test_allocator_that_the_environment_tunes_is_left_alone(name, value):
    mapped_outside, mapped_inside, *_ = account(**{name: value})
    assert mapped_inside == mapped_outside >= 256


def test_other_devices_leave_the_allocator_alone(monkeypatch):
    monkeypatch.setattr('ctypes.CDLL', None)
    with freed_memory_kept(torch.device('cuda')):
        pass


@pytest.mark.parametrize('error', [OSError, TypeError])
def test_systems_without_such_a_library_leave_the_allocator_alone(error, monkeypatch):
    def no_library(_):
        raise error

    monkeypatch.setattr('ctypes.CDLL', no_library)
    with freed_memory_kept(CPU):
        assert torch.zeros(1) == 0
