"""No step of a pass waits for a GPU: all options in fake tensors on ``cuda:0``, where any read of a value fails."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from eca_zoo.harness.accuracy.input_plan import plan_input
from eca_zoo.harness.accuracy.loaded_network import LoadedNetwork
from eca_zoo.harness.accuracy.passes import NetworkInPass, Pass, PassOptions
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.accuracy.tally import DeviceTally
from eca_zoo.harness.data.batches import Batch, PixelTransform, _sent
from eca_zoo.harness.data.gpu_decoding import device_decoder
from eca_zoo.harness.data.gpu_decoding.device_decoder import DeviceDecoder
from eca_zoo.harness.data.gpu_decoding.left_encoded import DecodedHere, Undecoded, pack
from eca_zoo.harness.data.preprocess import stack_channels_last
from eca_zoo.harness.machine.devices import parameter_dtype
from eca_zoo.harness.networks.model_spec import ModelSpec

CUDA = torch.device('cuda:0')
IMAGES, CLASSES = 8, 10


class FakeCuda(TorchFunctionMode):
    """What is on ``cuda:0`` is fake there, and what is on the CPU is real; copies between the two are noted."""

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.copied_there = 0

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        tensors = [leaf for leaf in tree_leaves((arguments, keywords)) if isinstance(leaf, torch.Tensor)]
        devices = {tensor.device.type for tensor in tensors}
        asked = [leaf for leaf in tree_leaves((arguments, keywords)) if isinstance(leaf, torch.device | str)]
        there = any(str(device).startswith('cuda') for device in asked)
        if 'cuda' not in devices and not there:
            return function(*arguments, **keywords)
        with self.fake:
            result = function(*arguments, **keywords)
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        for tensor in made:
            assert tensor.device.type == 'cuda', f'{function} copies to the CPU'
            assert tensor.dtype != torch.float64, f'{function} needs float64'
        if devices == {'cpu'} and tensors[0].ndim:
            self.copied_there += 1
        return result


@pytest.mark.parametrize(
    'read',
    [
        lambda x: x.tolist(), lambda x: bool((x > 0).any()), lambda x: int(x[0]), lambda x: x.nonzero(),
        lambda x: x[x > 0], lambda x: x.cpu(), lambda x: x.to('cpu'), lambda x: x.double(),
    ],
)  # fmt: skip
def test_the_watch_notices_every_read(read):
    with FakeCuda(), pytest.raises((DataDependentOutputException, DynamicOutputShapeException, AssertionError)):
        read(torch.zeros(4, device=CUDA))


def member(title: str, watch: FakeCuda, settings: EvalSettings, valid: tuple[int, ...] | None, chunk: int):
    plan = plan_input(ModelSpec('test_resnet', pretrained=False, num_classes=CLASSES), settings)
    with watch.fake, CUDA:
        network = timm.create_model('test_resnet', num_classes=CLASSES).eval()
        for module in network.modules():
            # What Module.to does, which fake parameters refuse.
            for tensors in (module._parameters, module._buffers):
                tensors.update(
                    {name: placed(tensor, settings) for name, tensor in tensors.items() if tensor is not None}
                )
    return NetworkInPass(
        title, LoadedNetwork(network, CLASSES, 0, None), plan, chunk, torch.arange(CLASSES), frozenset(), valid,
        DeviceTally(CLASSES, CUDA),
    )  # fmt: skip


def placed(tensor: torch.Tensor, settings: EvalSettings) -> torch.Tensor:
    keep = torch.channels_last if settings.channels_last and tensor.ndim == 4 else torch.preserve_format
    if not tensor.is_floating_point():
        return tensor
    return torch.nn.Parameter(tensor.detach().to(parameter_dtype(settings.precision), memory_format=keep), False)


def step(settings: EvalSettings, real: bool, valid: tuple[int, ...] | None, predictions: bool, chunk: int):
    """One step of two models; what was copied to the device in it, and the models."""
    labels = torch.tensor([1, 2, 3, 4, 1, 2, 3, 4])
    data = SimpleNamespace(
        real_labels=[[1, 2], [], [3], [4], [1], [2], [3], []] if real else None,
        images=SimpleNamespace(is_stream=False, name=str),
        spec=SimpleNamespace(skip_bad_images=False, skip_other_classes=False),
    )
    size = (3, 32, 32)
    pixels = torch.rand(IMAGES, *size) if settings.normalize_in_workers else torch.zeros(IMAGES, *size).byte()
    with FakeCuda() as watch:
        members = [member(title, watch, settings, valid, chunk) for title in 'ab']
        one = Pass(data, members, PassOptions(settings, keep_predictions=predictions))
        batch = Batch(0, torch.stack([torch.arange(IMAGES), labels]), pixels, [])
        sent = _sent(batch, CUDA, bool(settings.channels_last))
        # The first batch makes what all later ones use.
        one._step(sent)
        watch.copied_there = 0
        one._step(sent._replace(block=1))
    return watch.copied_there, members


SETTINGS = EvalSettings(device='cuda:0', batch_size=IMAGES, channels_last=True, img_size=32)
CHANGES = [
    {}, {'channels_last': False}, {'precision': 'fp16'}, {'precision': 'bf16'}, {'precision': 'amp'},
    {'precision': 'amp_bf16'}, {'precision': 'tf32'}, {'normalize_in_workers': True},
    # What is done around a compiled network: one shape, and outputs that are kept.
    {'compile': 'inductor'}, {'mean': (0.5,), 'std': (0.5,)},
]  # fmt: skip


@pytest.mark.filterwarnings('ignore:CUDA is not available')
@pytest.mark.parametrize('change', CHANGES, ids=str)
@pytest.mark.parametrize('chunk', [IMAGES, 3])
def test_no_setting_reads_from_the_device_or_copies_to_it_during_a_step(change, chunk):
    copied, members = step(dataclasses.replace(SETTINGS, **change), False, None, False, chunk)
    assert [one.error for one in members] == [None, None]
    assert copied == 0


@pytest.mark.parametrize('real', [False, True])
@pytest.mark.parametrize('valid', [None, (1, 2, 3, 4)])
@pytest.mark.parametrize('predictions', [False, True])
def test_no_kind_of_labels_reads_from_the_device_or_copies_to_it_during_a_step(real, valid, predictions):
    copied, members = step(SETTINGS, real, valid, predictions, IMAGES)
    assert [one.error for one in members] == [None, None]
    assert copied == 0
    assert [len(one.predictions) for one in members] == [2 * predictions] * 2


def test_after_the_decoder_nothing_is_read_from_the_device(monkeypatch):
    """nvJPEG waits; the resize, the crop, and the batch of images that both have decoded do not."""
    sizes = [(40, 50), (64, 33), (300, 40)]
    transform = PixelTransform((3, 32, 32), 0.875, 'center', 'bicubic', 'RGB', preprocess='gpu')
    here = DecodedHere(np.zeros((32, 32, 3), np.uint8), 'not JPEG')
    pixels, encoded = pack([Undecoded(b'one', sizes[0]), here, *(Undecoded(b'other', size) for size in sizes[1:])])
    with FakeCuda() as watch:
        monkeypatch.setattr(
            device_decoder,
            'decode_jpegs',
            lambda contents, device: [
                torch.zeros(3, height, width, dtype=torch.uint8, device=device) for width, height in sizes
            ],
        )
        decoder = DeviceDecoder(transform.left_encoded(), CUDA, str)
        batch = decoder.complete(
            Batch(0, torch.stack([torch.arange(4)] * 2), stack_channels_last(pixels), [], encoded=encoded)
        )
        assert watch.copied_there == 1
        sent = _sent(batch, CUDA, True)
    assert (batch.by_gpu, batch.bad, tuple(sent.pixels.shape)) == (3, [], (4, 3, 32, 32))
    assert sent.pixels.device == CUDA
