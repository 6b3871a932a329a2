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
# In a process of its own, whose heap no other test has used: page faults of writing 256 MiB that were allocated before
# (the fewest of several: where in the heap a block comes to lie differs), and resident MiB.
_SCRIPT = """
import json, resource, torch
from eca_zoo.harness.machine.memory import freed_memory_kept

def fewest_faults():
    counts = []
    for _ in range(8):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.empty(2**26).fill_(1)
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(counts)

def resident():
    return int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize() // 2**20

outside = fewest_faults()
with freed_memory_kept(torch.device('cpu')):
    inside, kept = fewest_faults(), resident()
print(json.dumps([outside, inside, kept - resident()]))
"""


def faults_and_memory(**variables: str) -> list[int]:
    """Page faults outside and inside, and MiB that are given back at the end."""
    environment = {name: value for name, value in os.environ.items() if name != 'GLIBC_TUNABLES'}
    done = subprocess.run(
        [sys.executable, '-c', _SCRIPT], env=environment | variables, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc' or sys.platform != 'linux', reason='needs Linux and glibc')
def test_memory_of_freed_tensors_is_used_again_and_given_back_at_the_end():
    outside, inside, given_back = faults_and_memory()
    assert inside * 10 < outside
    assert given_back > 200


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc' or sys.platform != 'linux', reason='needs Linux and glibc')
@pytest.mark.parametrize(('name', 'value'), [('MALLOC_ARENA_MAX', '2'), ('GLIBC_TUNABLES', 'glibc.malloc.arena_max=2')])
def test_allocator_that_the_environment_tunes_is_left_alone(name, value):
    outside, inside, _ = faults_and_memory(**{name: value})
    assert inside * 2 > outside


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
