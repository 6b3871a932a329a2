"""Batches: timm's pixels from whatever files there are, the same blocks whoever makes them, and bad images named."""

import dataclasses
import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_dataset, create_loader

from eca_zoo.errors import InputError
from eca_zoo.harness.data.batches import (
    Loader,
    Normalization,
    PixelTransform,
    check_channels,
    fit_channels,
    number_of_blocks,
    on_device,
)
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.data.datasets import open_data
from tests.harness.image_sets import digits, encoded, write_folder, write_tar

CPU = torch.device('cpu')
TRANSFORM = PixelTransform((3, 32, 32), 0.875, 'center', 'bicubic', 'RGB')
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photograph(width: int = 60, height: int = 40) -> Image.Image:
    """A smooth coloured image with some noise."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 30, (height, width, 3))
    base = np.stack([4 * x, 6 * y, 2 * x + 3 * y], axis=2)
    return Image.fromarray(((base + noise) % 256).astype(np.uint8))


def as_file(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif_rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return as_file(photograph(), 'jpeg', exif=exif.tobytes())


def palette_with_transparency() -> bytes:
    return as_file(photograph().convert('P', palette=Image.Palette.ADAPTIVE), 'png', transparency=bytes(range(200)))


ODD = {
    'cmyk.jpg': lambda: as_file(photograph().convert('CMYK'), 'jpeg'),
    'sixteen_bits.png': lambda: as_file(
        Image.fromarray(np.random.default_rng(0).integers(0, 65536, (40, 60), dtype=np.uint16)), 'png'
    ),
    'palette.png': lambda: as_file(photograph().convert('P', palette=Image.Palette.ADAPTIVE), 'png'),
    'palette_with_transparency.png': palette_with_transparency,
    'grey.jpg': lambda: as_file(photograph().convert('L'), 'jpeg'),
    'grey_with_alpha.png': lambda: as_file(photograph().convert('LA'), 'png'),
    'black_and_white.png': lambda: as_file(photograph().convert('1'), 'png'),
    'alpha.png': lambda: as_file(photograph().convert('RGBA'), 'png'),
    'rotated.jpg': exif_rotated,
    'progressive.jpg': lambda: as_file(photograph(), 'jpeg', progressive=True),
    'a_png_that_is_called.jpg': lambda: as_file(photograph(), 'png'),
    'a_webp_that_is_called.jpg': lambda: as_file(photograph(), 'webp', lossless=True),
    'a_gif_that_is_called.png': lambda: as_file(photograph(), 'gif'),
    'smaller_than_the_crop.png': lambda: as_file(photograph(7, 5), 'png'),
    'very_wide.png': lambda: as_file(photograph(400, 9), 'png'),
    'tall.jpg': lambda: as_file(photograph(40, 90), 'jpeg'),
}


def broken_png_header() -> bytes:
    content = bytearray(as_file(photograph(), 'png'))
    content[20:24] = b'\xff\xff\xff\xff'
    return bytes(content)


def bomb() -> bytes:
    header = struct.pack('>IIBBBBB', 60000, 60000, 8, 2, 0, 0, 0)
    chunk = struct.pack('>I', 13) + b'IHDR' + header + struct.pack('>I', zlib.crc32(b'IHDR' + header))
    return b'\x89PNG\r\n\x1a\n' + chunk + as_file(photograph(), 'png')[33:]


BROKEN = {
    'zero_bytes.jpg': (lambda: b'', 'the file is empty'),
    'truncated.jpg': (lambda: as_file(photograph(), 'jpeg')[:1200], 'image file is truncated'),
    'truncated.png': (lambda: as_file(photograph(), 'png')[:1500], 'truncated'),
    'text.jpg': (lambda: b'<html>404</html>', 'its content is no image that Pillow knows'),
    'broken_header.png': (broken_png_header, 'its content is no image that Pillow knows'),
    'bomb.png': (bomb, 'decompression bomb'),
}


def one_image(tmp_path, name: str, content: bytes) -> DataSpec:
    (tmp_path / '3').mkdir()
    (tmp_path / '3' / name).write_bytes(content)
    return DataSpec(root=tmp_path)


def ours(spec: DataSpec, transform: PixelTransform = TRANSFORM) -> torch.Tensor:
    [batch] = Loader(open_data(spec).images, 8, 0).batches(transform, [0])
    assert batch.bad == []
    channels = transform.input_size[0]
    mean, std = fit_channels(MEAN, channels), fit_channels(STD, channels)
    return Normalization(mean, std, channels, CPU, torch.float32)(batch.pixels)


def timms(spec: DataSpec, transform: PixelTransform = TRANSFORM, prefetch: bool = True) -> torch.Tensor:
    dataset = create_dataset('', root=str(spec.root), input_img_mode=transform.mode)
    loader = create_loader(
        dataset, transform.input_size, 8, is_training=False, use_prefetcher=prefetch, num_workers=0, mean=MEAN, std=STD,
        interpolation=transform.interpolation, crop_pct=transform.crop_pct, crop_mode=transform.crop_mode, device=CPU,
    )  # fmt: skip
    [(images, _)] = loader
    return images


@pytest.mark.filterwarnings('ignore:Palette images with Transparency')
@pytest.mark.parametrize('name', ODD)
def test_odd_files_have_the_pixels_that_timm_gives_them(tmp_path, name):
    spec = one_image(tmp_path, name, ODD[name]())
    assert torch.equal(ours(spec), timms(spec))


@pytest.mark.parametrize(
    ('crop_mode', 'mode'), [('center', 'RGB'), ('squash', 'RGB'), ('border', 'RGB'), ('center', 'L'), ('squash', 'L')]
)
def test_every_crop_mode_has_the_pixels_of_timm(tmp_path, crop_mode, mode):
    spec = one_image(tmp_path, 'a.jpg', as_file(photograph(100, 70), 'jpeg'))
    channels = 3 if mode == 'RGB' else 1
    transform = PixelTransform(
        (channels, 32, 32), 0.9, crop_mode, 'bilinear', mode, mean=MEAN if crop_mode == 'border' else None
    )
    assert torch.equal(ours(spec, transform), timms(spec, transform))


def test_images_that_are_normalised_in_the_workers_are_those_of_timm_without_its_prefetcher(tmp_path):
    spec = one_image(tmp_path, 'a.jpg', as_file(photograph(100, 70), 'jpeg'))
    transform = PixelTransform((3, 32, 32), 0.875, 'center', 'bicubic', 'RGB', mean=MEAN, std=STD)
    [batch] = Loader(open_data(spec).images, 8, 0).batches(transform, [0])
    assert torch.equal(batch.pixels, timms(spec, transform, prefetch=False))


@pytest.mark.parametrize('name', BROKEN)
def test_an_image_that_cannot_be_decoded_is_named_with_the_reason(tmp_path, name):
    make, reason = BROKEN[name]
    spec = one_image(tmp_path, name, make())
    (tmp_path / '3' / 'good.png').write_bytes(encoded(digits()[0][0]))
    [batch] = Loader(open_data(spec).images, 8, 0).batches(TRANSFORM, [0])
    assert len(batch.labels) == len(batch.pixels) == 1
    [bad] = batch.bad
    assert bad.name == str(tmp_path / '3' / name)
    assert reason in bad.reason
    assert '\n' not in bad.reason


def test_a_file_that_is_gone_or_locked_is_a_bad_image(tmp_path):
    spec = one_image(tmp_path, 'gone.png', encoded(digits()[0][0]))
    images = open_data(spec).images
    (tmp_path / '3' / 'gone.png').unlink()
    [batch] = Loader(images, 8, 0).batches(TRANSFORM, [0])
    assert 'No such file' in batch.bad[0].reason
    assert batch.pixels.shape[0] == 0


@pytest.mark.parametrize('kind', ['folder', 'tar'])
def test_workers_give_the_same_blocks_in_order(tmp_path, kind):
    root = write_folder(tmp_path / 'digits') if kind == 'folder' else write_tar(tmp_path / 'digits.tar')
    images = open_data(DataSpec(root=root)).images
    blocks = range(number_of_blocks(len(images), 8))
    alone = list(Loader(images, 8, 0).batches(TRANSFORM, blocks))
    helped = list(Loader(images, 8, 2).batches(TRANSFORM, blocks))
    assert [batch.block for batch in helped] == list(blocks) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert [len(batch.labels) for batch in helped] == [8] * 7 + [4]
    for one, other in zip(alone, helped, strict=True):
        assert torch.equal(one.pixels, other.pixels)
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.positions, other.positions)


def test_any_blocks_can_be_asked_for(tmp_path):
    images = open_data(DataSpec(root=write_folder(tmp_path / 'digits'))).images
    whole = list(Loader(images, 16, 0).batches(TRANSFORM, [0, 1, 2, 3]))
    [third, first] = Loader(images, 16, 0).batches(TRANSFORM, [3, 1])
    assert torch.equal(third.pixels, whole[3].pixels)
    assert torch.equal(first.pixels, whole[1].pixels)
    assert third.positions.tolist() == list(range(48, 60))


class _LabelledByProcess:
    """Images whose label is the process that read them."""

    is_stream = False

    def __len__(self) -> int:
        return 8

    def open(self, position: int):
        return io.BytesIO(encoded(digits()[position][0])), os.getpid()


def test_processes_that_decode_stay_for_passes_of_other_transforms_and_after_one_that_was_left_early():
    loader = Loader(_LabelledByProcess(), 2, 2, prefetch=1)
    larger = dataclasses.replace(TRANSFORM, input_size=(3, 48, 48))
    first = list(loader.batches(TRANSFORM, [0, 1, 2, 3]))
    next(iter(loader.batches(TRANSFORM, [3, 2, 1, 0])))
    last = list(loader.batches(larger, [3, 1]))
    processes = {int(label) for batch in first for label in batch.labels}
    assert len(processes) == 2
    assert {int(label) for batch in last for label in batch.labels} <= processes
    assert [(batch.block, tuple(batch.pixels.shape)) for batch in last] == [(3, (2, 3, 48, 48)), (1, (2, 3, 48, 48))]
    assert [batch.block for batch in first] == [0, 1, 2, 3]


@pytest.mark.parametrize('channels_last', [True, False])
def test_pixels_have_the_memory_format_that_the_model_has(tmp_path, channels_last):
    images = open_data(DataSpec(root=write_folder(tmp_path / 'digits'))).images
    [batch] = on_device(Loader(images, 64, 0).batches(TRANSFORM, [0]), CPU, channels_last)
    normalized = Normalization(MEAN, STD, 3, CPU, torch.float32)(batch.pixels)
    expected = torch.channels_last if channels_last else torch.contiguous_format
    assert normalized.is_contiguous(memory_format=expected)


def test_images_have_one_or_three_channels():
    assert check_channels(3, None) == 'RGB'
    assert check_channels(1, None) == 'L'
    assert check_channels(3, 'HSV') == 'HSV'
    with pytest.raises(InputError, match='the model takes 4 channels, and images have 1'):
        check_channels(4, None)
    with pytest.raises(InputError, match='not those of --input-img-mode L'):
        check_channels(3, 'L')
