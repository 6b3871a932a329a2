"""The evaluation transform against timm's own: identical pixels in exact mode, near ones in fast mode."""

import io
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import timm.data
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data.loader import fast_collate
from torch.utils.data import DataLoader, Dataset

from eca_zoo.errors import InputError
from eca_zoo.harness.data.preprocess import collate_channels_last, evaluation_transform, stack_channels_last

INTERPOLATIONS = ('bilinear', 'bicubic', 'lanczos', 'hamming', 'box', 'nearest')
CONFIG = {'input_size': (3, 224, 224), 'interpolation': 'bilinear', 'crop_pct': 0.875}


def noise(width: int, height: int, mode: str = 'RGB', seed: int = 0) -> Image.Image:
    """Random pixels, which show every difference."""
    bands = len(mode)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, bands), dtype=np.uint8)
    return Image.fromarray(pixels if bands > 1 else pixels[:, :, 0])


def photograph(width: int = 500, height: int = 375) -> Image.Image:
    """A cat, as large as most photographs of ImageNet."""
    from skimage import data

    return Image.fromarray(data.chelsea()).resize((width, height), Image.Resampling.LANCZOS)


def encoded(image: Image.Image, kind: str = 'JPEG', **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def of_timm(config: dict, image: Image.Image, image_mode: str = 'RGB') -> np.ndarray:
    """(height, width, channels) of timm's transform, as its loader applies it."""
    options = {name: value for name, value in config.items() if name != 'input_size'}
    transform = timm.data.create_transform(config['input_size'], is_training=False, use_prefetcher=True, **options)
    return transform(image.convert(image_mode)).permute(1, 2, 0).numpy()


sizes = st.integers(1, 260)
configs = st.fixed_dictionaries(
    {
        'input_size': st.tuples(st.just(3), st.integers(4, 96), st.integers(4, 96))
        | st.sampled_from([(3, 28, 28), (3, 56, 56), (3, 64, 64), (3, 32, 48)]),
        'interpolation': st.sampled_from(INTERPOLATIONS),
        'crop_pct': st.sampled_from([0.875, 0.9, 0.95, 0.965, 1.0, 1.1]),
        'crop_mode': st.sampled_from(['center', 'squash', 'border', None]),
    }
)


@settings(max_examples=600)
@given(width=sizes, height=sizes, config=configs, seed=st.integers(0, 9))
def test_exact_pixels_equal_timm_for_any_size_crop_and_filter(width, height, config, seed):
    image = noise(width, height, seed=seed)
    try:
        expected = of_timm(config, image)
    except ValueError:
        # timm rounds a side to no pixels.
        reject()

    pixels = evaluation_transform(config)(image)

    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize('interpolation', INTERPOLATIONS)
@pytest.mark.parametrize(
    'size', [(500, 375), (375, 500), (500, 333), (333, 500), (640, 480), (500, 500), (224, 224), (256, 300), (100, 80)]
)
def test_exact_pixels_equal_timm_for_photographs_of_usual_sizes(size, interpolation):
    image = photograph(*size)

    for crop_pct, side in ((0.875, 224), (0.95, 224), (1.0, 256)):
        config = {'input_size': (3, side, side), 'interpolation': interpolation, 'crop_pct': crop_pct}
        np.testing.assert_array_equal(evaluation_transform(config)(image), of_timm(config, image))


@pytest.mark.parametrize('size', [(64, 64), (100, 260), (64, 200), (256, 600), (60, 35)])
def test_exact_pixels_equal_timm_where_pillow_resizes_along_columns_first(size):
    for crop_mode in ('center', 'squash'):
        config = CONFIG | {'input_size': (3, 56, 42), 'crop_mode': crop_mode}
        image = noise(*size)
        np.testing.assert_array_equal(evaluation_transform(config)(image), of_timm(config, image))


def test_another_pillow_is_noticed_and_left_to_timm(monkeypatch, caplog):
    from eca_zoo.harness.data import preprocess

    transform = evaluation_transform(CONFIG)
    exact = preprocess._resize_exactly
    monkeypatch.setattr(preprocess, '_resize_exactly', lambda *args: exact(*args) ^ 1)

    np.testing.assert_array_equal(transform(photograph()), of_timm(CONFIG, photograph()))
    assert 'Pillow resizes in another way' in caplog.text


@pytest.mark.parametrize('option', [{'crop_border_pixels': 7}, {'crop_mode': 'border', 'mean': (0.5, 0.4, 0.3)}])
def test_exact_leaves_what_it_does_not_know_to_timm(option):
    config = CONFIG | option
    image = photograph()

    np.testing.assert_array_equal(evaluation_transform(config)(image), of_timm(config, image))


@pytest.mark.parametrize('mode', ['L', 'LA', 'P', 'RGBA', 'CMYK', '1', 'I;16', 'I', 'F'])
def test_images_of_any_mode_are_converted_as_timm_converts_them(mode):
    image = photograph().convert('L' if mode in ('I;16', 'I', 'F', '1') else 'RGB').convert(mode)

    for name in ('exact', 'fast'):
        pixels = evaluation_transform(CONFIG, name)(image)
        assert pixels.shape == (224, 224, 3)
    np.testing.assert_array_equal(evaluation_transform(CONFIG)(image), of_timm(CONFIG, image))


def test_one_channel_takes_grey_images():
    config = CONFIG | {'input_size': (1, 224, 224)}
    image = photograph()

    pixels = evaluation_transform(config)(image)

    assert pixels.shape == (224, 224, 1)
    np.testing.assert_array_equal(pixels, of_timm(config, image, 'L'))
    assert evaluation_transform(config, 'fast')(encoded(image)).shape == (224, 224, 1)


def test_colours_under_transparency_are_weighted_as_timm_weights_them():
    image = noise(500, 375, 'RGBA')

    pixels = evaluation_transform(CONFIG | {'input_size': (4, 224, 224)}, image_mode='RGBA')(image)

    np.testing.assert_array_equal(pixels, of_timm(CONFIG, image, 'RGBA'))


def jpeg_files() -> dict[str, bytes]:
    image = photograph()
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        'baseline 4:2:0': encoded(image, quality=90),
        'baseline 4:4:4': encoded(image, quality=90, subsampling=0),
        'progressive': encoded(image, quality=90, progressive=True),
        'grey': encoded(image.convert('L')),
        'CMYK': encoded(image.convert('CMYK')),
        'rotated by EXIF': encoded(image, exif=exif),
        'odd size': encoded(photograph(501, 377)),
        'larger than a read': encoded(noise(500, 375), quality=98),
    }


@pytest.mark.parametrize('kind', jpeg_files())
def test_bytes_of_a_jpeg_file_give_the_pixels_of_the_opened_file(kind):
    data = jpeg_files()[kind]
    expected = of_timm(CONFIG, Image.open(io.BytesIO(data)))

    np.testing.assert_array_equal(evaluation_transform(CONFIG)(data), expected)
    np.testing.assert_array_equal(evaluation_transform(CONFIG)(io.BytesIO(data)), expected)
    fast = evaluation_transform(CONFIG, 'fast')(data).astype(int)
    assert fast.shape == expected.shape
    assert np.abs(fast - expected).mean() < (2.5 if kind == 'larger than a read' else 0.5)


@pytest.mark.parametrize('kind', ['PNG', 'WEBP', 'BMP', 'TIFF'])
def test_bytes_of_other_formats_give_the_pixels_of_the_opened_file(kind):
    data = encoded(photograph(), kind)
    expected = of_timm(CONFIG, Image.open(io.BytesIO(data)))

    np.testing.assert_array_equal(evaluation_transform(CONFIG)(data), expected)
    assert np.abs(evaluation_transform(CONFIG, 'fast')(data).astype(int) - expected).mean() < 0.5


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
@settings(max_examples=150)
@given(width=st.integers(60, 600), height=st.integers(60, 600))
def test_fast_pixels_stay_near_those_of_timm(interpolation, width, height):
    config = CONFIG | {'interpolation': interpolation, 'input_size': (3, 96, 96)}
    image = photograph(width, height)

    fast = evaluation_transform(config, 'fast')(image).astype(int)

    assert fast.shape == (96, 96, 3)
    assert np.abs(fast - of_timm(config, image)).mean() < 1.0


@pytest.mark.parametrize('interpolation', ['lanczos', 'hamming', 'box', 'nearest'])
def test_fast_is_exact_where_torchvision_has_no_such_filter(interpolation):
    config = CONFIG | {'interpolation': interpolation}
    data = encoded(photograph())

    np.testing.assert_array_equal(
        evaluation_transform(config, 'fast')(data), of_timm(config, Image.open(io.BytesIO(data)))
    )


@pytest.mark.parametrize('mode', ['exact', 'fast'])
def test_a_truncated_file_and_a_file_that_is_no_image_are_errors(mode):
    data = encoded(photograph())
    transform = evaluation_transform(CONFIG, mode)

    with pytest.raises(OSError, match='image file is truncated'):
        transform(data[: len(data) // 2])
    with pytest.raises(OSError, match='cannot identify image file'):
        transform(b'<html>not found</html>')
    with pytest.raises(OSError, match='cannot identify image file'):
        transform(b'')


def test_a_batch_is_channels_last_and_equals_timms():
    images = [noise(64, 48, seed=seed) for seed in range(5)]
    config = CONFIG | {'input_size': (3, 32, 32)}
    transform = evaluation_transform(config)

    batch, targets = collate_channels_last([(transform(image), label) for label, image in enumerate(images)])

    expected, expected_targets = fast_collate([(transform.reference(image), i) for i, image in enumerate(images)])
    assert batch.shape == (5, 3, 32, 32)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch, expected)
    assert torch.equal(targets, expected_targets)
    assert targets.dtype == torch.int64


class Noise(Dataset):
    """Twelve images as PNG bytes, through a transform."""

    def __init__(self, transform: Callable[[bytes], np.ndarray]) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.transform(encoded(noise(50, 40, seed=index), 'PNG')), index


def test_batches_of_worker_processes_equal_those_of_the_main_process():
    data = Noise(evaluation_transform(CONFIG | {'input_size': (3, 32, 32)}))
    here = list(DataLoader(data, batch_size=5, collate_fn=collate_channels_last))
    there = list(DataLoader(data, batch_size=5, collate_fn=collate_channels_last, num_workers=2))

    assert [len(images) for images, _ in there] == [5, 5, 2]
    for (images, targets), (expected, expected_targets) in zip(there, here, strict=True):
        assert torch.equal(images, expected)
        assert torch.equal(targets, expected_targets)
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_images_of_different_sizes_are_no_batch():
    with pytest.raises(ValueError, match='same shape'):
        stack_channels_last([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)])


def test_a_transform_can_be_sent_to_a_worker():
    transform = pickle.loads(pickle.dumps(evaluation_transform(CONFIG, 'fast')))

    np.testing.assert_array_equal(transform(photograph()), evaluation_transform(CONFIG, 'fast')(photograph()))


def test_the_configuration_of_a_model_is_taken_as_timm_resolves_it():
    model = timm.create_model('test_resnet.r160_in1k', pretrained=False)
    config = timm.data.resolve_model_data_config(model)

    np.testing.assert_array_equal(
        evaluation_transform(config)(photograph()),
        timm.data.create_transform(**config, is_training=False, use_prefetcher=True)(photograph()).permute(1, 2, 0),
    )


@pytest.mark.parametrize(
    ('config', 'mode', 'message'),
    [
        (CONFIG, 'quick', "preprocess mode 'quick' is unknown; use one of exact, fast"),
        (
            CONFIG | {'interpolation': 'cubic'},
            'exact',
            "interpolation 'cubic' is unknown; use one of nearest, box, bilinear, hamming, bicubic, lanczos",
        ),
        (
            {'input_size': (224, 224)},
            'exact',
            'input_size is (224, 224); it must be (channels, height, width), each at least 1',
        ),
    ],
)
def test_a_setting_that_cannot_be_had_is_named(config, mode, message):
    with pytest.raises(InputError) as caught:
        evaluation_transform(config, mode)
    assert str(caught.value) == message
