"""Devices: what a GPU does not have is refused."""

import pytest
import torch

from eca_zoo.errors import InputError
from eca_zoo.harness.machine.devices import PRECISIONS, as_current, check_precision

CUDA = torch.device('cuda:0')


@pytest.fixture
def turing(monkeypatch):
    """What torch says of a GPU of compute capability 7.5."""
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: 'Tesla T4')
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (7, 5))
    monkeypatch.setattr(torch.version, 'hip', None)


@pytest.mark.parametrize(
    ('precision', 'lacks'), [('tf32', 'TensorFloat-32'), ('bf16', 'bfloat16'), ('amp_bf16', 'bfloat16')]
)
def test_a_precision_that_a_gpu_only_emulates_is_refused(turing, precision, lacks):
    with pytest.raises(InputError) as error:
        check_precision(precision, CUDA)
    assert str(error.value) == (
        f'precision {precision}: Tesla T4 (compute capability 7.5) has no {lacks}, which begins with 8.0, and would '
        'compute in another precision; use fp32, fp16 or amp'
    )


def test_precisions_that_a_gpu_has_are_accepted(turing, monkeypatch):
    for precision in ('fp32', 'fp16', 'amp'):
        check_precision(precision, CUDA)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (8, 0))
    for precision in PRECISIONS:
        check_precision(precision, CUDA)


def test_gpus_that_are_not_nvidias_have_tf32_where_torch_says_so(turing, monkeypatch):
    monkeypatch.setattr(torch.version, 'hip', '7.0')
    monkeypatch.setattr(torch.cuda, 'is_tf32_supported', lambda: False)
    check_precision('bf16', CUDA)
    with pytest.raises(InputError, match='precision tf32: Tesla T4 has none'):
        check_precision('tf32', CUDA)
    monkeypatch.setattr(torch.cuda, 'is_tf32_supported', lambda: True)
    check_precision('tf32', CUDA)


def test_the_gpu_that_is_named_is_torchs_current_one_and_no_other_is_touched(monkeypatch):
    current = []

    class Device:
        def __init__(self, device):
            self.device = device

        def __enter__(self):
            current.append(self.device)

        def __exit__(self, *error):
            current.append(None)

    monkeypatch.setattr(torch.cuda, 'device', Device)
    with as_current(torch.device('cuda:1')):
        assert current == [torch.device('cuda:1')]
    assert current[1:] == [None]
    with as_current(torch.device('cpu')):
        assert len(current) == 2
