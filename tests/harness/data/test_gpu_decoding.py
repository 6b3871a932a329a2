"""Decoding on the device, with torchvision's decoder for the CPU in the place of nvJPEG: all but that call is real."""

import csv
import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eca_zoo.cli import main
from eca_zoo.errors import InputError
from eca_zoo.harness.accuracy.evaluation import evaluate
from eca_zoo.harness.accuracy.input_plan import plan_input
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.data.batches import Batch, Loader, PixelTransform, number_of_blocks, on_device
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.data.datasets import open_data
from eca_zoo.harness.data.gpu_decoding import device_decoder
from eca_zoo.harness.data.gpu_decoding.device_decoder import (
    DeviceDecoder,
    check_decoder,
    decode_jpegs,
    resize_on_device,
)
from eca_zoo.harness.data.gpu_decoding.left_encoded import LeftEncoded, Undecoded
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.resume.journal import RunDirectory
from eca_zoo.harness.resume.signals import InterruptedRunError, StopRequest
from tests.harness.image_sets import MODEL, write_folder

CPU = torch.device('cpu')
EXACT, GPU = (
    PixelTransform((3, 32, 32), 0.875, 'center', 'bicubic', 'RGB', preprocess=name) for name in ('exact', 'gpu')
)
BLOCK = 5


def photograph(width: int = 60, height: int = 44) -> Image.Image:
    """A cat."""
    from skimage import data

    return Image.fromarray(data.chelsea()).resize((width, height), Image.Resampling.LANCZOS)


def jpeg(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, 'jpeg', **options)
    return file.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return jpeg(photograph(), exif=exif.tobytes())


def without_tables() -> bytes:
    """A whole JPEG file whose scan names Huffman tables that are not there; its header is in order."""
    content = bytearray(jpeg(photograph()))
    scan = content.index(b'\xff\xda')
    for component in range(3):
        content[scan + 6 + 2 * component] = 0x33
    return bytes(content)


def png() -> bytes:
    file = io.BytesIO()
    photograph().save(file, 'png')
    return file.getvalue()


# Files, and whether the device decodes them; None for those that nobody decodes.
FILES: dict[str, tuple[Callable[[], bytes], bool | None]] = {
    '00_usual.jpg': (lambda: jpeg(photograph()), True),
    '01_all_colours.jpg': (lambda: jpeg(photograph(), subsampling=0), True),
    '02_lossless.png': (png, False),
    '03_cmyk.jpg': (lambda: jpeg(photograph().convert('CMYK')), False),
    '04_grey.jpg': (lambda: jpeg(photograph().convert('L')), True),
    '05_rotated.jpg': (rotated, True),
    '06_progressive.jpg': (lambda: jpeg(photograph(), progressive=True), True),
    '07_cut.jpg': (lambda: jpeg(photograph())[:700], None),
    '08_without_tables.jpg': (without_tables, None),
    '09_rgb.jpg': (lambda: jpeg(photograph(), keep_rgb=True), False),
    '10_very_wide.jpg': (lambda: jpeg(photograph(400, 9)), True),
    '11_with_bytes_after_the_end.jpg': (lambda: jpeg(photograph()) + b'more', False),
    '12_upright.jpg': (lambda: jpeg(photograph(41, 97)), True),
}
BY_DEVICE = sum(bool(by_device) for _, by_device in FILES.values())
BAD = sum(by_device is None for _, by_device in FILES.values())


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """The files in the folders 0 to 9."""
    root = tmp_path_factory.mktemp('files')
    for number, (name, (make, _)) in enumerate(FILES.items()):
        path = root / str(number % 10) / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(make())
    return root


@pytest.fixture
def decodes_on_cpu(monkeypatch):
    monkeypatch.setattr(device_decoder, 'DECODING_DEVICES', ('cuda', 'cpu'))


def batches(root: Path, transform: PixelTransform, workers: int = 0, device: torch.device = CPU) -> list[Batch]:
    images = open_data(DataSpec(root=root)).images
    made = Loader(images, BLOCK, workers).batches(transform, range(number_of_blocks(len(images), BLOCK)))
    if transform.preprocess == 'gpu':
        made = DeviceDecoder(transform.left_encoded(), device, images.name).batches(made)
    return list(on_device(made, device, True))


def levels(pixels: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """How many values differ by each number of levels."""
    assert pixels.shape == exact.shape
    return torch.bincount((pixels.cpu().short() - exact.short()).abs().flatten().long(), minlength=256)


@pytest.mark.parametrize('workers', [0, 2])
def test_batches_hold_the_images_of_the_exact_ones_whoever_decodes_them(folder, workers, caplog):
    caplog.set_level('INFO')
    decoded, exact = batches(folder, GPU, workers), batches(folder, EXACT)
    for one, other in zip(decoded, exact, strict=True):
        assert one.block == other.block
        assert torch.equal(one.indices, other.indices)
        assert sorted(one.bad) == sorted(other.bad)
        assert one.pixels.is_contiguous(memory_format=torch.channels_last)
        assert levels(one.pixels, other.pixels)[9:].sum() == 0
    assert sum(batch.by_gpu for batch in decoded) == BY_DEVICE
    assert sum(len(batch.bad) for batch in decoded) == BAD
    assert 'decoded on the CPU: ' in caplog.text
    assert '1 CMYK in JPEG' in caplog.text


@pytest.mark.parametrize('name', FILES)
def test_who_decodes_a_file(name):
    make, by_device = FILES[name]
    left = GPU.left_encoded()
    if name == '07_cut.jpg':
        with pytest.raises(OSError, match='image file is truncated'):
            left(make())
        return
    image = left(make())
    assert isinstance(image, Undecoded) is (by_device is not False)
    if by_device is False:
        np.testing.assert_array_equal(image.pixels, left.exact(make()))


def photographs() -> list[Image.Image]:
    from skimage import data
    from sklearn.datasets import load_sample_images

    arrays = [data.chelsea(), data.coffee(), data.rocket(), data.astronaut(), *load_sample_images().images]
    return [Image.fromarray(array) for array in arrays]


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
def test_pixels_of_photographs_are_those_of_timm_but_for_rounding(interpolation):
    config = {'input_size': (3, 224, 224), 'crop_pct': 0.875, 'interpolation': interpolation}
    left = LeftEncoded(config, 'RGB')
    resized, decoded = torch.zeros(256, dtype=torch.int64), torch.zeros(256, dtype=torch.int64)
    for image in photographs():
        content = jpeg(image, quality=90)
        opened = torch.from_numpy(np.array(Image.open(io.BytesIO(content)))).permute(2, 0, 1)
        [pixels] = decode_jpegs([torch.frombuffer(bytearray(content), dtype=torch.uint8)], CPU)
        exact = torch.from_numpy(np.array(left.exact(content))).permute(2, 0, 1)
        resized += levels(resize_on_device(opened, left.exact), exact)
        decoded += levels(resize_on_device(pixels, left.exact), exact)
    assert resized[2:].sum() == 0
    assert resized[1] < 0.001 * resized.sum()
    # Whatever libjpeg both were built with.
    assert (decoded * torch.arange(256)).sum() < 0.1 * decoded.sum()


@pytest.mark.parametrize('size', [(500, 375), (64, 200), (256, 600), (33, 32), (300, 40)])
def test_resize_is_that_of_pillow_in_either_order_of_its_passes(size):
    left, image = GPU.left_encoded(), photograph(*size)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    resized = resize_on_device(pixels, left.exact).permute(1, 2, 0)
    assert np.abs(resized.numpy().astype(int) - left.exact(image)).max() <= 1


def test_what_the_device_refuses_is_found_among_the_others_and_decoded_by_pillow(folder, monkeypatch):
    """As of a decoder that knows no progressive files."""

    def without_progressive(contents, device):
        if any(b'\xff\xc2' in content.numpy().tobytes() for content in contents):
            raise RuntimeError('Error while decoding JPEG images: Failed to decode jpeg stream: 6')
        return decode_jpegs(contents, device)

    monkeypatch.setattr(device_decoder, 'decode_jpegs', without_progressive)
    decoded, exact = batches(folder, GPU), batches(folder, EXACT)
    assert sum(batch.by_gpu for batch in decoded) == BY_DEVICE - 1
    assert all(torch.equal(one.indices, other.indices) for one, other in zip(decoded, exact, strict=True))
    [position] = [n for n, name in enumerate(open_data(DataSpec(root=folder)).images.names()) if 'progressive' in name]
    block = position // BLOCK
    row = decoded[block].positions.tolist().index(position)
    # Bit for bit, as of all that Pillow decodes.
    assert torch.equal(decoded[block].pixels[row], exact[block].pixels[row])


@pytest.mark.parametrize('limit', [20_000, 0])
def test_a_lack_of_memory_halves_what_is_decoded_at_once_and_leaves_the_rest_to_pillow(folder, monkeypatch, limit):
    most: list[int] = []

    def with_little_memory(contents, device):
        pixels = decode_jpegs(contents, device)
        if sum(image.numel() for image in pixels) > limit:
            raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')
        most.append(len(contents))
        return pixels

    monkeypatch.setattr(device_decoder, 'decode_jpegs', with_little_memory)
    decoded, exact = batches(folder, GPU), batches(folder, EXACT)
    assert all(torch.equal(one.indices, other.indices) for one, other in zip(decoded, exact, strict=True))
    assert sum(batch.by_gpu for batch in decoded) == (BY_DEVICE if limit else 0)
    assert max(most, default=0) == (2 if limit else 0)


def test_a_decoder_that_is_not_there_or_gives_another_picture_is_refused_before_anything_runs(monkeypatch):
    check_decoder(CPU)
    monkeypatch.setattr(device_decoder, 'decode_jpegs', _with_red_and_blue_exchanged)
    with pytest.raises(InputError, match=r'not decoded rightly on cpu: a picture is \d+ levels off; choose'):
        check_decoder(CPU)
    monkeypatch.setattr(device_decoder, 'decode_jpegs', _not_compiled)
    with pytest.raises(InputError, match='cannot be decoded on cpu: torchvision not compiled with nvJPEG; choose'):
        check_decoder(CPU)


def test_the_warning_that_torchvision_gives_up_its_decoders_is_no_error_where_warnings_are():
    content = torch.frombuffer(bytearray(jpeg(photograph())), dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert [tuple(pixels.shape) for pixels in decode_jpegs([content, content], CPU)] == [(3, 44, 60)] * 2


def _with_red_and_blue_exchanged(contents, device):
    return [pixels.flip(0) for pixels in decode_jpegs(contents, device)]


def _not_compiled(contents, device):
    raise RuntimeError('torchvision not compiled with nvJPEG')


def test_other_devices_are_refused_in_one_line(tmp_path, capsys):
    data = write_folder(tmp_path / 'digits', 10)
    assert main(['validate', '-m', MODEL, str(data), '--device', 'cpu', '--preprocess', 'gpu']) == 2
    assert capsys.readouterr().err == (
        'eca-zoo validate: error: --preprocess gpu decodes with nvJPEG, on CUDA alone, not on cpu; '
        'choose exact or fast\n'
    )


@pytest.mark.parametrize(
    ('change', 'asked'),
    [
        ({'interpolation': 'lanczos'}, 'interpolation lanczos'),
        ({'crop_border_pixels': 3}, 'crop_border_pixels 3'),
        ({'crop_mode': 'border'}, 'crop_mode border'),
        ({'input_size': (1, 32, 32)}, 'images of the mode L'),
    ],
)
def test_what_the_device_cannot_do_is_refused(change, asked):
    settings = EvalSettings(preprocess='gpu', **change)
    with pytest.raises(
        InputError, match=f'^{MODEL}: --preprocess gpu resizes RGB images .* this is .*{asked}.*; choose'
    ):
        plan_input(ModelSpec(MODEL), settings)


@pytest.mark.usefixtures('decodes_on_cpu')
def test_normalising_in_the_workers_is_refused():
    with pytest.raises(InputError, match='goes with the exact preprocessing alone'):
        EvalSettings(device='cpu', preprocess='gpu', normalize_in_workers=True).checked()


@pytest.mark.usefixtures('decodes_on_cpu')
def test_a_row_says_who_decoded_its_images(folder, tmp_path):
    common = ['-m', MODEL, str(folder), '--device', 'cpu', '-j', '0', '-b', '4', '--skip-bad-images']
    rows = {}
    for preprocess in ('exact', 'gpu'):
        file = tmp_path / f'{preprocess}.csv'
        assert main(['validate', *common, '--preprocess', preprocess, '--results-file', str(file)]) == 0
        with file.open(newline='') as lines:
            [rows[preprocess]] = csv.DictReader(lines)
    more = {
        'preprocess': 'gpu', 'gpu_decoded': str(BY_DEVICE), 'cpu_decoded': str(len(FILES) - BAD - BY_DEVICE),
    }  # fmt: skip
    assert rows['gpu'] == rows['exact'] | more


@pytest.mark.usefixtures('decodes_on_cpu')
def test_a_pass_that_is_continued_knows_who_decoded_the_images_before(folder, tmp_path, monkeypatch):
    monkeypatch.setattr('eca_zoo.harness.accuracy.passes._PROGRESS_EVERY', 0)
    settings = EvalSettings(batch_size=4, workers=0, device='cpu', preprocess='gpu')
    data, stop = DataSpec(root=folder, skip_bad_images=True), StopRequest()

    def run(**options):
        with RunDirectory(tmp_path, {}) as journal:
            return evaluate([ModelSpec(MODEL)], data, settings, journal=journal, record_every=0.0, **options)

    def stop_in_the_middle(step):
        if step.done >= 8:
            stop.signal_name = 'SIGTERM'

    with pytest.raises(InterruptedRunError):
        run(progress=stop_in_the_middle, stop=stop)
    assert run() == evaluate([ModelSpec(MODEL)], data, settings)
    [result] = run()
    assert (result.preprocess, result.gpu_decoded) == ('gpu', BY_DEVICE)
    assert result.cpu_decoded == len(FILES) - BAD - BY_DEVICE == result.num_images - BY_DEVICE


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_on_a_gpu_batches_hold_the_images_of_the_exact_ones(folder):
    device = torch.device('cuda:0')
    check_decoder(device)
    decoded, exact = batches(folder, GPU, 2, device), batches(folder, EXACT)
    for one, other in zip(decoded, exact, strict=True):
        assert torch.equal(one.indices, other.indices)
        assert sorted(name for name, _ in one.bad) == sorted(name for name, _ in other.bad)
        found = levels(one.pixels, other.pixels)
        assert (found * torch.arange(256)).sum() < 8 * found.sum()
    assert sum(batch.by_gpu for batch in decoded) > 0
