"""What bounds the input path: decoding alone, timm's evaluation path and ours on one core, in turn, as ratios.

python scripts/photographs.py PHOTOGRAPHS --count 240
python benchmark/perf/input_path.py PHOTOGRAPHS/validation [--interpolation bicubic] [--rounds 31]
python benchmark/perf/input_path.py PHOTOGRAPHS/validation --model tf_efficientnet_lite0 \
    --checkpoint PHOTOGRAPHS/tf_efficientnet_lite0.safetensors

Every candidate prepares all images once a round, in an order that changes from round to round. Processor time of the
process is what is compared; wall time stands beside it. With a model it prints how far the pixels of --preprocess fast
are from timm's and what that does to the model's guesses, in place of times.
"""

import argparse
import io
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Before torch starts its threads.
os.environ['OMP_NUM_THREADS'] = '1'

import numpy as np
import PIL
import timm.data
import torch
import torchvision
from PIL import Image
from timm.data.loader import fast_collate

from eca_zoo.harness.data.preprocess import collate_channels_last, evaluation_transform

Work = Callable[[], Any]


def timm_dataset(folder: Path, config: dict[str, Any]) -> Any:
    """timm's data set as its loader sets it up for evaluation."""
    dataset = timm.data.create_dataset('', root=str(folder))
    dataset.transform = timm.data.create_transform(**config, is_training=False, use_prefetcher=True)
    return dataset


def our_dataset(folder: Path, config: dict[str, Any], mode: str) -> Any:
    """timm's data set with our transform of the files' bytes."""
    dataset = timm.data.create_dataset('', root=str(folder), load_bytes=True)
    dataset.transform = evaluation_transform(config, mode)
    return dataset


def batches_of(dataset: Any, collate: Callable[[list], Any], batch_size: int) -> Work:
    """All images through a data set and a collate function, as a loader without workers does it."""
    indices = range(len(dataset))

    def work() -> None:
        for start in range(0, len(indices), batch_size):
            collate([dataset[index] for index in indices[start : start + batch_size]])

    return work


def each(function: Callable[[Any], Any], items: Sequence[Any]) -> Work:
    """``function`` of every item."""

    def work() -> None:
        for item in items:
            function(item)

    return work


def decode(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def candidates(folder: Path, config: dict[str, Any], batch_size: int) -> dict[str, Work]:
    """The paths that are compared; timm's is the peer."""
    data = [path.read_bytes() for path in files_of(folder)]
    return {
        'timm': batches_of(timm_dataset(folder, config), fast_collate, batch_size),
        'ours, exact': batches_of(our_dataset(folder, config, 'exact'), collate_channels_last, batch_size),
        'ours, fast': batches_of(our_dataset(folder, config, 'fast'), collate_channels_last, batch_size),
        'decode alone (Pillow)': each(decode, data),
        'decode alone (torchvision)': each(torchvision.io.decode_jpeg, [as_tensor(item) for item in data]),
    }


def stages(folder: Path, config: dict[str, Any], batch_size: int) -> dict[str, Work]:
    """The stages of timm's path, each alone."""
    paths = files_of(folder)
    data = [path.read_bytes() for path in paths]
    images = [decode(item) for item in data]
    resize, crop, to_tensor = timm_dataset(folder, config).transform.transforms
    resized = [resize(image) for image in images]
    cropped = [crop(image) for image in resized]
    tensors = [(to_tensor(image), 0) for image in cropped]
    groups = [tensors[start : start + batch_size] for start in range(0, len(tensors), batch_size)]
    return {
        'read': each(Path.read_bytes, paths),
        'header (Image.open)': each(lambda item: Image.open(io.BytesIO(item)), data),
        'header and decode': each(decode, data),
        "convert('RGB')": each(lambda image: image.convert('RGB'), images),
        'resize': each(resize, images),
        'crop': each(crop, resized),
        'to tensor': each(to_tensor, cropped),
        'collate': each(fast_collate, groups),
    }


def as_tensor(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def files_of(folder: Path) -> list[Path]:
    return [Path(name) for name in timm.data.create_dataset('', root=str(folder)).filenames(absolute=True)]


def measure(works: dict[str, Work], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Processor and wall seconds of each work, by round; the first round is not counted."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    order = list(works)
    for index in range(rounds + 1):
        random.shuffle(order)
        for name in order:
            cpu, wall = time.process_time(), time.perf_counter()
            works[name]()
            if index:
                times[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return times


def print_rates(times: dict[str, list[tuple[float, float]]], count: int) -> None:
    print(
        f'{"":28}{"images/s":>10}{"best":>8}{"wall":>8}{"ms/image":>10}{"ratio to timm":>15}{"of best":>9}{"wall":>7}'
    )
    peer = times['timm']
    for name, rounds in times.items():
        cpu, wall = zip(*rounds, strict=True)
        ratios = [statistics.median(p[i] / r[i] for p, r in zip(peer, rounds, strict=True)) for i in (0, 1)]
        best = min(p for p, _ in peer) / min(cpu)
        median = statistics.median(cpu)
        print(
            f'{name:28}{count / median:10.0f}{count / min(cpu):8.0f}{count / statistics.median(wall):8.0f}'
            f'{1e3 * median / count:10.3f}{ratios[0]:15.2f}{best:9.2f}{ratios[1]:7.2f}'
        )


def print_stages(times: dict[str, list[tuple[float, float]]], count: int) -> None:
    print("\nStages of timm's path, each alone: ms/image, median and best")
    for name, rounds in times.items():
        cpu = [1e3 * seconds / count for seconds, _ in rounds]
        print(f'  {name:26}{statistics.median(cpu):8.3f}{min(cpu):8.3f}')


def compare_guesses(folder: Path, model_name: str, checkpoint: Path, overrides: dict[str, Any]) -> None:
    """Print how far fast pixels are from timm's, and the model's guesses on both and on exact ones."""
    model = timm.create_model(model_name, checkpoint_path=str(checkpoint)).eval()
    config = timm.data.resolve_model_data_config(model) | overrides
    datasets = {'timm': timm_dataset(folder, config)}
    datasets |= {mode: our_dataset(folder, config, mode) for mode in ('exact', 'fast')}
    synsets = timm.data.ImageNetInfo('imagenet-1k').label_names()
    classes = {index: synsets.index(name) for name, index in datasets['timm'].reader.class_to_idx.items()}
    pixels, logits = {}, {}
    for name, dataset in datasets.items():
        images = [torch.tensor(np.asarray(image)) for image, _ in dataset]
        pixels[name] = torch.stack([image if name == 'timm' else image.permute(2, 0, 1) for image in images])
        logits[name] = torch.cat([infer(model, batch, config) for batch in pixels[name].split(32)])
    labels = torch.tensor([classes[datasets['timm'].reader[index][1]] for index in range(len(pixels['timm']))])
    print(f'{model_name}, {len(labels)} images, {config["interpolation"]}, crop {config["crop_pct"]}')
    for name in ('exact', 'fast'):
        print_difference(name, pixels[name], pixels['timm'], logits[name], logits['timm'])
    for name, values in logits.items():
        top1 = (values.argmax(1) == labels).sum()
        top5 = (values.topk(5).indices == labels[:, None]).any(1).sum()
        print(f'  {name:6} top-1 {top1}/{len(labels)} = {100 * top1 / len(labels):.2f} %, top-5 {top5}/{len(labels)}')


@torch.inference_mode()
def infer(model: torch.nn.Module, images: torch.Tensor, config: dict[str, Any]) -> torch.Tensor:
    mean, std = (255 * torch.tensor(config[name]).view(1, 3, 1, 1) for name in ('mean', 'std'))
    return model((images.float() - mean) / std)


def print_difference(
    name: str, pixels: torch.Tensor, peer: torch.Tensor, logits: torch.Tensor, peer_logits: torch.Tensor
) -> None:
    difference = (pixels.short() - peer.short()).abs().float()
    agreement = (logits.argmax(1) == peer_logits.argmax(1)).sum()
    probability = (logits.softmax(1) - peer_logits.softmax(1)).abs().max()
    print(
        f'  {name}: pixels equal {100 * (difference == 0).float().mean():.2f} %, mean difference '
        f'{difference.mean():.4f} grey levels, 99.9th percentile {difference.flatten()[::7].quantile(0.999):.0f}, '
        f'largest {difference.max():.0f}; same first guess {agreement}/{len(logits)}, '
        f'largest difference of a probability {probability:.4f}'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, help='class folders of JPEG files')
    parser.add_argument('--rounds', type=int, default=31)
    parser.add_argument('--interpolation', help="default: bilinear, or the model's")
    parser.add_argument('--crop-pct', type=float, help="default: 0.875, or the model's")
    parser.add_argument('--batch-size', type=int, default=24)
    parser.add_argument('--model', help='compare the guesses of this model in place of times')
    parser.add_argument('--checkpoint', type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    given = {'interpolation': args.interpolation, 'crop_pct': args.crop_pct}
    overrides = {name: value for name, value in given.items() if value is not None}
    print(
        f'Python {platform.python_version()}, Pillow {PIL.__version__}, torch {torch.__version__}, torchvision '
        f'{torchvision.__version__}, timm {timm.__version__}, one thread, {os.cpu_count()} cores'
    )
    if args.model:
        compare_guesses(args.folder, args.model, args.checkpoint, overrides)
        return
    config = {'input_size': (3, 224, 224), 'interpolation': 'bilinear', 'crop_pct': 0.875} | overrides
    paths = files_of(args.folder)
    mean_size = sum(path.stat().st_size for path in paths) / len(paths)
    sizes = {Image.open(path).size for path in paths}
    print(
        f'{len(paths)} files of {mean_size / 1000:.0f} kB on average, sizes {sorted(sizes)[:4]}; resize to '
        f'{int(224 / config["crop_pct"])} ({config["interpolation"]}), crop 224; {args.rounds} rounds in turn\n'
    )
    print_rates(measure(candidates(args.folder, config, args.batch_size), args.rounds), len(paths))
    print_stages(measure(stages(args.folder, config, args.batch_size), max(args.rounds // 3, 3)), len(paths))


if __name__ == '__main__':
    sys.exit(main())
