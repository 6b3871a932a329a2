"""A file that one process opened is no other's: workers read the right images whatever their parent read before."""

import os
import pickle
import struct
import sys
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features
from datasets import Image as HubImage
from PIL import Image

from eca_zoo.errors import InputError
from eca_zoo.harness.data.batches import Loader, PixelTransform, number_of_blocks
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.data.datasets import open_data
from eca_zoo.harness.data.images import Images
from tests.harness.image_sets import add_file, digits, encoded, write_folder, write_shards, write_tar

COUNT, BLOCK = 24, 8
REPETITIONS = 100
TRANSFORM = PixelTransform((3, 16, 16), 1.0, 'center', 'bicubic', 'RGB')


def folder(root: Path) -> DataSpec:
    return DataSpec(root=write_folder(root / 'digits', COUNT))


def tar(root: Path) -> DataSpec:
    return DataSpec(root=write_tar(root / 'digits.tar', COUNT))


def tar_of_tars(root: Path) -> DataSpec:
    with tarfile.open(root / 'digits.tar', 'w') as outer:
        for value in range(10):
            with tarfile.open(root / f'{value}.tar', 'w') as inner:
                for index, (image, label) in enumerate(digits()[:COUNT]):
                    if label == value:
                        add_file(inner, f'{label}/{index:04d}.png', encoded(image))
            outer.add(root / f'{value}.tar', f'{value}.tar')
    return DataSpec(root=root / 'digits.tar')


def shards(root: Path) -> DataSpec:
    return DataSpec(
        root=write_shards(root / 'shards', COUNT, shards=4), dataset='wds/digits', split='digits-{00..03}.tar'
    )


def parquet(root: Path, files: int = 1) -> Path:
    """The digits as a hub data set."""
    features = Features({'image': HubImage(), 'label': ClassLabel(names=[str(value) for value in range(10)])})
    (root / 'data').mkdir(parents=True)
    for number in range(files):
        rows = digits()[number * COUNT // files : (number + 1) * COUNT // files]
        columns = {'image': [image for image, _ in rows], 'label': [label for _, label in rows]}
        name = f'validation-{number:05d}-of-{files:05d}.parquet'
        Dataset.from_dict(columns, features).to_parquet(root / 'data' / name)
    return root


def hub(root: Path) -> DataSpec:
    return DataSpec(root=root / 'cache', dataset=f'hfds/{parquet(root / "hub")}')


def torchvisions_folder(root: Path) -> DataSpec:
    return DataSpec(root=write_folder(root / 'digits', COUNT), dataset='torch/image_folder')


def torchvisions_mnist(root: Path) -> DataSpec:
    """The digits in MNIST's format of one file for all images."""
    raw = root / 'MNIST' / 'raw'
    raw.mkdir(parents=True)
    pixels = np.stack([np.asarray(image) for image, _ in digits()[:COUNT]])
    labels = np.array([label for _, label in digits()[:COUNT]], np.uint8)
    for part in ('train', 't10k'):
        content = struct.pack('>4i', 2051, *pixels.shape) + pixels.tobytes()
        (raw / f'{part}-images-idx3-ubyte').write_bytes(content)
        (raw / f'{part}-labels-idx1-ubyte').write_bytes(struct.pack('>2i', 2049, COUNT) + labels.tobytes())
    return DataSpec(root=root, dataset='torch/mnist')


KINDS = [folder, tar, tar_of_tars, shards, hub, torchvisions_folder, torchvisions_mnist]
each_kind = pytest.mark.parametrize('kind', KINDS, ids=[kind.__name__ for kind in KINDS])

more_workers_than_cores = pytest.mark.filterwarnings('ignore:This DataLoader will create')


def opened(kind: Callable[[Path], DataSpec], root: Path) -> Images:
    return open_data(kind(root)).images


def content_of(images: Images, position: int) -> bytes:
    """What ``open`` gives at ``position``, as bytes."""
    source = images.open(position).source
    if isinstance(source, Image.Image):
        return source.tobytes()
    with source:
        return source.read()


@more_workers_than_cores
@each_kind
@pytest.mark.parametrize('workers', [2, 4])
def test_workers_read_the_same_images_after_and_while_their_parent_reads(kind, workers, tmp_path):
    images = opened(kind, tmp_path)
    blocks = range(number_of_blocks(len(images), BLOCK))
    alone = list(Loader(images, BLOCK, 0).batches(TRANSFORM, blocks))
    before = [content_of(images, position) for position in range(len(images))]
    for number, batch in enumerate(Loader(images, BLOCK, workers).batches(TRANSFORM, [*blocks] * REPETITIONS)):
        expected = alone[number % len(blocks)]
        assert batch.bad == []
        assert torch.equal(batch.pixels, expected.pixels)
        assert torch.equal(batch.labels, expected.labels)
        assert content_of(images, number % len(images)) == before[number % len(images)]
    assert number == len(blocks) * REPETITIONS - 1


@each_kind
def test_threads_read_the_same_images(kind, tmp_path):
    images = opened(kind, tmp_path)
    alone = [content_of(images, position) for position in range(len(images))]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda position: content_of(images, position), [*range(len(images))] * 20))
    assert together == alone * 20


@each_kind
def test_images_that_were_read_can_be_sent_to_another_process(kind, tmp_path):
    images = opened(kind, tmp_path)
    alone = [content_of(images, position) for position in range(len(images))]
    sent = pickle.loads(pickle.dumps(images))
    assert [content_of(sent, position) for position in range(len(sent))] == alone


@pytest.mark.skipif(sys.platform != 'linux', reason='reads the list of open files in /proc')
@each_kind
def test_no_file_stays_open_for_the_next_image(kind, tmp_path):
    images = opened(kind, tmp_path)
    before = open_files(tmp_path)
    for position in range(len(images)):
        content_of(images, position)
    assert open_files(tmp_path) == before


def open_files(root: Path) -> list[str]:
    """Files below ``root`` that this process has open, other than to map them into memory."""
    paths = [os.path.realpath(f'/proc/self/fd/{number}') for number in os.listdir('/proc/self/fd')]
    return sorted(path for path in paths if path.startswith(os.path.realpath(root)))


def streamed_hub(root: Path) -> DataSpec:
    return DataSpec(dataset=f'hfids/{parquet(root / "hub", files=4)}', num_samples=COUNT)


def streamed_shards(root: Path) -> DataSpec:
    where = f'pipe:cat {write_shards(root / "shards", COUNT, shards=4)}'
    return DataSpec(root=Path(where), dataset='wds/digits', split='digits-{00..03}.tar', num_samples=COUNT)


@more_workers_than_cores
@pytest.mark.parametrize('kind', [streamed_hub, streamed_shards])
@pytest.mark.parametrize('workers', [2, 4])
def test_a_stream_that_was_read_before_is_shared_out_between_workers(kind, workers, tmp_path):
    images = opened(kind, tmp_path)
    alone = streamed(images, 0)
    assert len(alone) == len(images) == COUNT
    for _ in range(2):
        assert streamed(images, workers) == alone
        assert streamed(images, 0) == alone
    assert len(images) == COUNT


def streamed(images: Images, workers: int) -> list[tuple[int, bytes]]:
    """Label and pixels of every image that comes, sorted."""
    batches = Loader(images, BLOCK, workers).batches(TRANSFORM, [])
    return sorted(
        (int(label), pixels.numpy().tobytes())
        for batch in batches
        for pixels, label in zip(batch.pixels, batch.labels, strict=True)
    )


def test_a_tar_that_ends_within_an_image_names_the_image(tmp_path):
    images = opened(tar, tmp_path)
    path = tmp_path / 'digits.tar'
    path.write_bytes(path.read_bytes()[:700])
    [batch] = Loader(images, COUNT, 0).batches(TRANSFORM, [0])
    assert len(batch.bad) >= COUNT - 1
    assert batch.bad[-1].name.startswith(f'{path}:')
    assert batch.bad[-1].reason.startswith('the file ends after 0 of its ')


@pytest.mark.parametrize('kind', ['tar', 'shards'])
def test_a_sparse_file_in_a_tar_is_refused(kind, tmp_path):
    member = tarfile.TarInfo('3/a.png')
    # The format of GNU tar before headers of its own: type S, and a map of the pieces that were stored.
    member.type = tarfile.GNUTYPE_SPARSE
    member.size = 512
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b'%011o\0%011o\0' % (0, 512)
    header[483:495] = b'%011o\0' % 4096
    header[148:156] = b'%06o\0 ' % sum(header[:148] + b' ' * 8 + header[156:512])
    (tmp_path / 'a-00.tar').write_bytes(bytes(header) + b'x' * 512 + bytes(1024))
    spec = DataSpec(root=tmp_path / 'a-00.tar')
    if kind == 'shards':
        spec = DataSpec(root=tmp_path, dataset='wds/a', split='a-00.tar')
    with pytest.raises(InputError, match=r'a-00.tar: 3/a.png is stored as a sparse file; pack the tar again without'):
        open_data(spec)
