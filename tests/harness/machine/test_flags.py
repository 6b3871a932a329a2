"""torch's global flags: any state that a user leaves them in is accepted, and is there again afterwards."""

import os

import pytest
import torch

from eca_zoo.harness.machine.flags import described_flags, numeric_flags
from tests.harness.processes import ROOT
from tests.spawning import run_python

SETTINGS = (
    'pass',
    "torch.set_float32_matmul_precision('medium')",
    'cuda.matmul.allow_tf32 = True; cudnn.allow_tf32 = False',
    "cuda.matmul.fp32_precision = 'tf32'",
    "cudnn.conv.fp32_precision = 'ieee'",
    "torch.backends.fp32_precision = 'tf32'",
    "torch.set_float32_matmul_precision('high'); cuda.matmul.fp32_precision = 'ieee'",
    "mkldnn.conv.fp32_precision = 'bf16'; mkldnn.matmul.fp32_precision = 'bf16'",
    'cudnn.deterministic = True; cudnn.benchmark = True; cudnn.enabled = False',
)
# Each setting in a process of its own, because not every state of these flags can be left again; forked, so that torch
# is imported once.
SCRIPT = f"""
import os, sys, torch
from torch.backends import cuda, cudnn, mkldnn
from eca_zoo.harness.machine.flags import described_flags, numeric_flags

def state():
    values = [f'{{b}}.{{o}} {{torch._C._get_fp32_precision_getter(b, o)}}'
              for b in ('cuda', 'mkldnn') for o in ('all', 'matmul', 'conv', 'rnn')]
    for read in (torch.get_float32_matmul_precision, lambda: cuda.matmul.allow_tf32, lambda: cudnn.allow_tf32):
        try:
            values.append(str(read()))
        except RuntimeError:
            values.append('not readable')
    return [*values, cudnn.enabled, cudnn.benchmark, cudnn.deterministic, torch.get_num_threads()]

def check():
    before = state()
    for precision in ('fp32', 'tf32', 'amp', 'fp32'):
        tf32 = precision == 'tf32'
        with numeric_flags(precision, threads=1, deterministic=True):
            assert cuda.matmul.allow_tf32 == cudnn.allow_tf32 == tf32
            assert torch.get_float32_matmul_precision() == ('high' if tf32 else 'highest')
            exact = {{cuda.matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision}}
            exact |= {{mkldnn.matmul.fp32_precision, mkldnn.conv.fp32_precision}} if not tf32 else set()
            assert exact == {{'tf32' if tf32 else 'ieee'}}, exact
            assert described_flags()['cudnn.deterministic']
        assert state() == before, (before, state())
        described_flags()

for setting in {SETTINGS!r}:
    child = os.fork()
    if not child:
        exec(setting)
        try:
            check()
        except BaseException as error:
            print(f'{{setting}}: {{error!r}}', flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.mark.skipif(
    not hasattr(os, 'fork') or not hasattr(torch.backends.cudnn, 'conv'),
    reason='needs processes that fork, and the settings that torch has since 2.9',
)
def test_any_setting_of_the_user_is_accepted_and_restored_and_float32_is_exact_meanwhile():
    done = run_python('-c', SCRIPT, cwd=ROOT)
    assert (done.stdout, done.returncode) == ('', 0), done.stderr


def test_flags_are_restored_after_an_error():
    before = described_flags()
    with pytest.raises(ZeroDivisionError), numeric_flags('tf32', deterministic=not before['cudnn.deterministic']):
        raise ZeroDivisionError
    assert described_flags() == before
