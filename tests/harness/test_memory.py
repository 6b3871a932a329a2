"""Memory on the CPU: freed tensors' memory is kept while an evaluation runs, and given back afterwards."""

import platform
import resource

import pytest
import torch

from eca_zoo.harness.memory import freed_memory_kept

CPU = torch.device('cpu')
glibc_alone = pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='needs the GNU C library')


@pytest.fixture(autouse=True)
def untuned(monkeypatch):
    monkeypatch.delenv('GLIBC_TUNABLES', raising=False)


def page_faults() -> int:
    """Page faults of writing a tensor of 256 MiB, in the memory of one of that size that was freed before."""
    torch.zeros(2**26)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(2**26).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@glibc_alone
def test_memory_of_freed_tensors_is_used_again():
    before = page_faults()
    with freed_memory_kept(CPU):
        kept = page_faults()
    assert kept * 10 < before
    assert page_faults() * 2 > before


@glibc_alone
@pytest.mark.parametrize(('name', 'value'), [('MALLOC_ARENA_MAX', '2'), ('GLIBC_TUNABLES', 'glibc.malloc.arena_max=2')])
def test_allocator_that_the_environment_tunes_is_left_alone(name, value, monkeypatch):
    before = page_faults()
    monkeypatch.setenv(name, value)
    with freed_memory_kept(CPU):
        assert page_faults() * 2 > before


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
