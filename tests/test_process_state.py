"""What is called from Python leaves the process as it was: threads, flags, signals, logging, random numbers."""

import gc
import json
import logging
import os
import random
import signal
import sys
import threading
import warnings

import numpy as np
import pytest
import timm
import torch
from PIL import Image, ImageFile

import eca_zoo
from tests.harness.image_sets import MODEL, write_folder

QUICK = {'device': 'cpu', 'img_size': 32, 'rounds': 1, 'round_seconds': 0, 'batch_size': 2, 'warmup_steps': 0}
PATIENCE = 600  # seconds after which a thread stays
LOGGERS = ('', 'eca_zoo', 'timm', 'torch', 'huggingface_hub', 'PIL')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp('data'), count=20)


def state() -> dict[str, object]:
    # A loader's queues are closed when it has ended, and their threads end soon after.
    for thread in threading.enumerate():
        if thread.name == 'QueueFeederThread':
            thread.join(PATIENCE)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    cudnn = torch.backends.cudnn
    return {
        'threads': (torch.get_num_threads(), torch.get_num_interop_threads()),
        'running': sorted(thread.name for thread in threading.enumerate()),
        'precision': (torch.get_float32_matmul_precision(), torch.get_default_dtype(), torch.get_default_device()),
        'cudnn': (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32),
        'deterministic': torch.are_deterministic_algorithms_enabled(),
        'gradients': (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        'random': (random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()),
        'signals': {number: signal.getsignal(number) for number in signal.valid_signals()},
        'logging': [(one.level, one.propagate, one.disabled, list(one.handlers)) for one in loggers],
        'warnings': (list(warnings.filters), warnings.showwarning),
        'environment': (dict(os.environ), os.getcwd(), list(sys.path), sys.stdout, sys.stderr, sys.excepthook),
        'collector': (gc.get_threshold(), gc.isenabled()),
        'pillow': (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES),
    }


def run_leaderboard(folder, tmp_path):
    suite = tmp_path / 'suite.yaml'
    suite.write_text(json.dumps({
        'version': 1, 'models': [MODEL], 'data': {'name': 'digits'}, 'accuracy': {'device': 'cpu', 'workers': 1},
        'throughput': [QUICK],
    }))  # fmt: skip
    return eca_zoo.leaderboard(suite, tmp_path / 'run', data_dir=folder, format='timm')


CALLS = {
    'evaluate in workers': lambda folder, _: eca_zoo.evaluate(MODEL, folder, device='cpu', workers=1),
    'evaluate': lambda folder, out: eca_zoo.evaluate(
        MODEL, folder, device='cpu', workers=0, precision='amp_bf16', fuse=True, predictions=out / 'p.parquet',
        run_dir=out / 'run',
    ),
    'benchmark': lambda *_: eca_zoo.benchmark(MODEL, bench='both', threads=1, **QUICK | {'img_size': 64}),
    'complexity': lambda *_: eca_zoo.complexity(MODEL),
    'leaderboard': run_leaderboard,
}  # fmt: skip


@pytest.mark.parametrize('name', CALLS)
def test_the_process_is_as_it_was(name, folder, tmp_path):
    torch.set_float32_matmul_precision('medium')
    try:
        before, frozen = state(), gc.get_freeze_count()
        CALLS[name](folder, tmp_path)
        after = state()
        different = [key for key in before if after[key] != before[key]]
    finally:
        torch.set_float32_matmul_precision('highest')
    assert gc.get_freeze_count() <= frozen
    assert not different, {key: (before[key], after[key]) for key in different}


def test_a_process_of_its_own_leaves_it_too(own_processes):
    before = state()
    eca_zoo.benchmark(MODEL, backend='onnxruntime', **QUICK)
    after = state()
    assert [key for key in before if after[key] != before[key]] == []


def test_a_loader_of_the_user_still_hears_of_its_workers(folder):
    eca_zoo.evaluate(MODEL, folder, device='cpu', workers=1)
    before = signal.getsignal(signal.SIGCHLD)
    loader = torch.utils.data.DataLoader(torch.arange(4), num_workers=1)
    assert [int(batch) for batch in loader] == [0, 1, 2, 3]
    assert signal.getsignal(signal.SIGCHLD) != before
    signal.signal(signal.SIGCHLD, before)


def test_optimising_a_network_for_inference_leaves_it_too():
    model = timm.create_model(MODEL, pretrained=True).eval()
    before = state()
    eca_zoo.optimize_for_inference(model)
    assert state() == before
