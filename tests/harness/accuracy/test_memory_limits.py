"""Models that do not fit: halved, put back, given up, and their memory given back while others go on."""

import dataclasses
import weakref
from typing import ClassVar

import pytest
import torch
from PIL import Image
from timm.models import register_model

from eca_zoo.harness.accuracy.evaluation import evaluate
from eca_zoo.harness.accuracy.run import AccuracyRun
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.data.batches import Normalization
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.networks.model_spec import ModelSpec
from tests.harness.image_sets import MODEL, write_folder

QUICK = EvalSettings(batch_size=16, workers=0, device='cpu')
NO_ENGINE = 'GET was unable to find an engine to execute this computation'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp('data') / 'digits')


class _Limited(torch.nn.Module):
    """Fails with more than ``limit`` images, or with ``beside`` other networks of its class in memory."""

    alive: ClassVar[weakref.WeakSet] = weakref.WeakSet()

    def __init__(self, limit: int, beside: int | None, text: str) -> None:
        super().__init__()
        self.limit, self.beside, self.text, self.num_classes = limit, beside, text, 10
        self.weight = torch.nn.Parameter(torch.linspace(-1, 1, 10))
        self.alive.add(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.limit or (self.beside is not None and len(self.alive) > self.beside):
            raise RuntimeError(self.text)
        return x.mean((1, 2, 3))[:, None] * self.weight


@register_model
def limited_network(pretrained=False, limit=1000, beside=None, text='CUDA out of memory', **kwargs) -> _Limited:
    return _Limited(limit, beside, text)


def limited(label: str, **options) -> ModelSpec:
    return ModelSpec('limited_network', pretrained=False, num_classes=10, model_kwargs=options, label=label)


@pytest.fixture
def opened(monkeypatch):
    """The images that were read."""
    names, original = [], Image.open
    monkeypatch.setattr(Image, 'open', lambda *args, **kwargs: names.append(args[0]) or original(*args, **kwargs))
    return names


def test_models_of_which_none_fits_are_tried_alone_once_and_nothing_is_read_after_the_last_has_failed(folder, opened):
    results = evaluate([limited('a', limit=0), limited('b', limit=0)], DataSpec(root=folder), QUICK)
    assert [result.error for result in results] == [
        f'{name}: out of memory on cpu, one image at a time' for name in 'ab'
    ]
    # One batch of 16 for both, and one for each alone.
    assert len(opened) == 3 * 16


def test_models_that_fit_alone_are_counted_alone(folder):
    [expected] = evaluate([limited('alone')], DataSpec(root=folder), QUICK)
    results = evaluate([limited(name, beside=1) for name in 'abc'], DataSpec(root=folder), QUICK)
    assert [(result.error, result.per_class) for result in results] == [(None, expected.per_class)] * 3


def test_a_batch_that_cannot_be_normalised_at_once_is_halved_too(folder, monkeypatch):
    [expected] = evaluate([ModelSpec(MODEL)], DataSpec(root=folder), QUICK)
    normalize = Normalization.__call__

    def with_little_memory(self, pixels):
        if len(pixels) > 5:
            raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 147.00 MiB')
        return normalize(self, pixels)

    monkeypatch.setattr(Normalization, '__call__', with_little_memory)
    [result] = evaluate([ModelSpec(MODEL)], DataSpec(root=folder), QUICK)
    assert (result.error, result.batch_size, result.per_class) == (None, 4, expected.per_class)


@pytest.mark.parametrize(
    'text',
    [
        NO_ENGINE,
        'CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`',
        'cuDNN error: CUDNN_STATUS_ALLOC_FAILED',
    ],
)
def test_what_may_be_a_lack_of_memory_is_halved_and_called_one_only_if_that_helps(folder, text, caplog):
    [helped, not_helped] = evaluate(
        [limited('helped', limit=3, text=text), limited('not_helped', limit=0, text=text)], DataSpec(root=folder), QUICK
    )
    assert (helped.error, helped.batch_size) == (None, 2)
    assert not_helped.error == f'not_helped: {text}'
    assert f'helped: {text}; trying 2 images at a time' in caplog.messages


def test_other_errors_are_not_halved(folder, caplog):
    [result] = evaluate([limited('a', limit=0, text='shapes do not match')], DataSpec(root=folder), QUICK)
    assert result.error == 'a: shapes do not match'
    assert not any('trying' in message for message in caplog.messages)


class _Leaking(torch.nn.Module):
    """Fails with an activation in its frame, and with an error that another one led to."""

    def __init__(self, seen: list) -> None:
        super().__init__()
        self.seen, self.num_classes = seen, 10
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activation = x * 2
        self.seen.append(weakref.ref(activation))
        try:
            raise ValueError('the first')
        except ValueError as error:
            raise RuntimeError('CUDA out of memory' if len(x) > 1 else 'no kernel') from error


def test_memory_of_a_failed_model_is_free_before_the_cache_is_emptied(folder, monkeypatch):
    _Leaking.__deepcopy__ = lambda self, memo: self
    seen, free = [], []

    def release():
        free.append(all(activation() is None for activation in seen))

    for place in ('passes', 'loaded_network'):
        monkeypatch.setattr(f'eca_zoo.harness.accuracy.{place}.release_memory', release)
    settings = dataclasses.replace(QUICK, img_size=32, mean=(0.5,), std=(0.5,))
    leaking = ModelSpec('leaking', module=_Leaking(seen), label='leaking')
    [failed, other] = evaluate([leaking, ModelSpec(MODEL)], DataSpec(root=folder), settings)
    assert failed.error == 'leaking: no kernel'
    assert other.error is None
    # Four times for halving from 16 images to one, and once for giving up.
    assert (len(seen), free) == (5, [True] * 5)


def test_outputs_of_a_cuda_graph_are_kept_before_its_next_replay_writes_over_them(folder, monkeypatch):
    marked = []
    monkeypatch.setattr(torch.compiler, 'cudagraph_mark_step_begin', lambda: marked.append(1))

    def replayed(graph, inputs):
        outputs = {}

        def run(*arguments):
            result = graph(*arguments)
            # As a CUDA graph has it: one place for the output, whatever it was replayed for.
            for index, tensor in enumerate(result):
                outputs.setdefault(index, torch.empty_like(tensor)).copy_(tensor)
            return tuple(outputs.values())

        return run

    torch._dynamo.register_backend(replayed, 'replayed')
    settings = dataclasses.replace(QUICK, batch_size=8)
    [expected] = evaluate([ModelSpec(MODEL)], DataSpec(root=folder), settings)
    member = AccuracyRun._member

    def halved(*arguments):
        made = member(*arguments)
        made.chunk = 2
        return made

    monkeypatch.setattr(AccuracyRun, '_member', halved)
    [result] = evaluate([ModelSpec(MODEL)], DataSpec(root=folder), dataclasses.replace(settings, compile='replayed'))
    assert (result.error, result.batch_size, result.per_class) == (None, 2, expected.per_class)
    assert len(marked) == 30


class _Losing(torch.nn.Module):
    """Loses the device of its process at the second batch; whatever else runs there then fails with the same."""

    lost = False

    def __init__(self, is_guilty: bool) -> None:
        super().__init__()
        self.is_guilty, self.steps, self.num_classes = is_guilty, 0, 10
        self.pretrained_cfg = {'input_size': (3, 32, 32), 'mean': (0.5,) * 3, 'std': (0.5,) * 3}
        self.weight = torch.nn.Parameter(torch.linspace(-1, 1, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        _Losing.lost |= self.is_guilty and self.steps == 2
        if _Losing.lost:
            raise torch.AcceleratorError('CUDA error: an illegal memory access was encountered')
        return x.mean((1, 2, 3))[:, None] * self.weight


def test_models_beside_one_that_loses_the_device_are_counted_in_fresh_processes(folder, tmp_path, monkeypatch):
    def run(models, predictions=None):
        monkeypatch.setattr(_Losing, 'lost', False)
        return evaluate(models, DataSpec(root=folder), QUICK, predictions=predictions)

    good, bad = (ModelSpec('losing', module=_Losing(guilty), label=str(guilty)) for guilty in (False, True))
    [expected] = run([good], tmp_path / 'expected.parquet')
    [failed, counted] = run([bad, good], tmp_path / 'counted.parquet')
    assert failed.error == 'True: CUDA error: an illegal memory access was encountered'
    assert counted == expected
    assert (tmp_path / 'counted.parquet').read_bytes() == (tmp_path / 'expected.parquet').read_bytes()
