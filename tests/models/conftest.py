"""Each test compiles anew: networks of one class share what torch.compile keeps of their forward, and its limit."""

import sys

import pytest
import torch


@pytest.fixture(autouse=True)
def _nothing_compiled_before():
    yield
    if 'torch._dynamo' in sys.modules:
        torch._dynamo.reset()
