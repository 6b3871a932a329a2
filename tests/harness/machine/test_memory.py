"""Memory on the CPU: commands keep that of freed tensors, and what is called from Python leaves the allocator alone."""

import json
import os
import platform
import subprocess
import sys

import pytest

from eca_zoo.errors import InputError
from eca_zoo.harness.machine.memory import allocator_variables, can_keep_freed_memory, keep_freed_memory
from eca_zoo.harness.speed.settings import ThroughputSettings
from tests.harness.image_sets import MODEL, write_folder
from tests.harness.processes import ROOT

# In a process of its own, whose heap no other test has used, by the C library's own account: MiB that it maps for a
# tensor of 256 MiB before and after ``{work}``; and the fewest MiB that its heap grows for one of several more (where
# in the heap one comes to lie differs).
_SCRIPT = """
import ctypes, json, timm, torch, eca_zoo
from eca_zoo.harness.machine.memory import keep_freed_memory

FIELDS = ('arena', 'ordblks', 'smblks', 'hblks', 'hblkhd', 'usmblks', 'fsmblks', 'uordblks', 'fordblks', 'keepcost')

class Account(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS]

account = ctypes.CDLL(None).mallinfo2
account.restype = Account

def growth(field):
    before = getattr(account(), field)
    tensor = torch.ones(2**26)
    return (getattr(account(), field) - before) // 2**20

before = growth('hblkhd')
{work}
after = growth('hblkhd')
print(json.dumps([before, after, min(growth('arena') for _ in range(6))]))
"""
QUICK = "device='cpu', img_size=32, batch_size=1, rounds=1, round_seconds=0, warmup_steps=0"
needs_glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != 'glibc'
    or [int(part) for part in platform.libc_ver()[1].split('.')] < [2, 33]
    or sys.platform != 'linux',
    reason='needs Linux and the account that glibc gives since 2.33',
)


def account(work: str, **variables: str) -> list[int]:
    """What the script prints, in MiB."""
    environment = {name: value for name, value in os.environ.items() if name not in allocator_variables()}
    done = subprocess.run(
        [sys.executable, '-c', _SCRIPT.format(work=work)], env=environment | variables, capture_output=True, text=True,
        check=True, cwd=ROOT,
    )  # fmt: skip
    return json.loads(done.stdout)


@needs_glibc
def test_memory_of_freed_tensors_is_used_again_by_a_process_that_keeps_it():
    before, after, again = account('keep_freed_memory()')
    assert before >= 256
    assert after == again == 0


@needs_glibc
@pytest.mark.parametrize(('name', 'value'), [('MALLOC_ARENA_MAX', '2'), ('GLIBC_TUNABLES', 'glibc.malloc.arena_max=2')])
def test_an_allocator_that_the_environment_tunes_is_left_alone(name, value):
    before, after, _ = account('keep_freed_memory()', **{name: value})
    assert before == after >= 256


@needs_glibc
def test_what_is_called_from_python_leaves_the_allocator_alone(tmp_path):
    folder = write_folder(tmp_path, count=20)
    work = (
        f"eca_zoo.benchmark(timm.create_model('test_resnet'), {QUICK}); "
        f"eca_zoo.benchmark('test_resnet', {QUICK}, keep_freed_memory=True); "
        f'eca_zoo.evaluate({MODEL!r}, {str(folder)!r}, device="cpu", workers=0)'
    )
    before, after, _ = account(f"if __name__ == '__main__': {work}")
    assert before == after >= 256


@pytest.mark.parametrize('error', [OSError, TypeError])
def test_systems_without_such_a_library_leave_the_allocator_alone(error, monkeypatch):
    def no_library(_):
        raise error

    monkeypatch.setattr('ctypes.CDLL', no_library)
    keep_freed_memory()
    assert not can_keep_freed_memory()
    with pytest.raises(InputError, match="keep_freed_memory is about glibc's allocator on the CPU; leave it out here"):
        ThroughputSettings(device='cpu', keep_freed_memory=True).checked()


@needs_glibc
def test_an_allocator_is_set_in_one_way_alone(monkeypatch):
    monkeypatch.setenv('MALLOC_ARENA_MAX', '2')
    with pytest.raises(InputError, match='keep_freed_memory: MALLOC_ARENA_MAX in the environment tunes the allocator'):
        ThroughputSettings(device='cpu', keep_freed_memory=True).checked()


def test_a_setting_says_which_allocator_it_has(monkeypatch):
    for name in allocator_variables():
        monkeypatch.delenv(name)
    assert ThroughputSettings(device='cpu').allocator == 'default'
    assert ThroughputSettings(device='cpu', keep_freed_memory=True).allocator == 'kept'
    assert ThroughputSettings(device='cuda:0').allocator is None
    monkeypatch.setenv('LD_PRELOAD', '/usr/lib/libjemalloc.so.2')
    assert ThroughputSettings(device='cpu').allocator == 'environment'
