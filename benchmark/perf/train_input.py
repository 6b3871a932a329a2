"""Images a second of one core: the input path of a training here, and the authors' transform, in turn.

The authors' path is that of torchvision's data set: open, RGB, random resized crop, flip, float tensor, normalised,
stacked. Ours reads bytes, crops, flips and stacks bytes; the normalisation is timed too, on the CPU, where a GPU would
do it.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch.utils.data import default_collate
from torchvision import transforms

from eca_zoo.harness.data.batches import Normalization
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.data.datasets import open_data
from eca_zoo.training.data.order import seed_sample
from eca_zoo.training.data.pixels import ImageReader, TrainingTransform
from eca_zoo.training.recipes.reading import read_recipe

sys.path.insert(0, str(Path(__file__).parents[2] / 'scripts'))
from photographs import write_photographs

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BATCH = 32


def authors(paths: list[Path]) -> Callable[[list[int]], torch.Tensor]:
    """A batch as the authors' script makes it."""
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(_MEAN, _STD),
        ]
    )

    def batch(positions: list[int]) -> torch.Tensor:
        images = []
        for position in positions:
            with paths[position].open('rb') as file:
                images.append(transform(Image.open(file).convert('RGB')))
        return default_collate(images)

    return batch


def ours(reader: ImageReader, normalize: bool) -> Callable[[list[int]], torch.Tensor]:
    """A batch as it is made here, with or without the work that is left to the device."""
    normalization = Normalization(_MEAN, _STD, 3, torch.device('cpu'), torch.float32)

    def batch(positions: list[int]) -> torch.Tensor:
        pixels = reader(0, tuple(positions)).pixels
        return normalization(pixels) if normalize else pixels

    return batch


def rate(make: Callable[[list[int]], torch.Tensor], count: int) -> float:
    """Images a second of the processor, which others leave alone, over ``count`` images."""
    start = time.process_time()
    for first in range(0, count, _BATCH):
        make(list(range(first, min(first + _BATCH, count))))
    return count / (time.process_time() - start)


def same_crops(size: tuple[int, int] = (500, 375), count: int = 1000) -> bool:
    """Whether the random crops of a seed are those that timm's transform takes."""
    image, reference = Image.new('RGB', size), RandomResizedCropAndInterpolation(224)
    for position in range(count):
        seed_sample(1, 0, position)
        first = reference.get_params(image, reference.scale, reference.ratio)
        seed_sample(1, 0, position)
        if first != RandomResizedCropAndInterpolation.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3)):
            return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--count', type=int, default=200, help='images (default: 200)')
    parser.add_argument('--rounds', type=int, default=9, help='(default: 9)')
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        count = write_photographs(folder / 'train', args.count)
        data = open_data(DataSpec(root=folder, split='train'))
        paths = [Path(data.images.name(position)) for position in range(count)]
        classes = list(range(5))
        makers: dict[str, Callable[[list[int]], torch.Tensor]] = {'authors': authors(paths)}
        for preprocess in ('exact', 'fast'):
            recipe = read_recipe('eca_resnet', {'preprocess': preprocess}).recipe
            reader = ImageReader(data.images, classes, TrainingTransform((3, 224, 224), _MEAN, 'RGB', recipe), 42)
            makers[preprocess] = ours(reader, normalize=False)
            makers[f'{preprocess}, normalised'] = ours(reader, normalize=True)
        rates: dict[str, list[float]] = {name: [] for name in makers}
        for number in range(args.rounds + 1):
            for name, make in makers.items():
                found = rate(make, count)
                if number:
                    rates[name].append(found)
    result = {}
    for name, found in rates.items():
        ratios = [own / other for own, other in zip(found, rates['authors'], strict=True)]
        rate_found, ratio = statistics.median(found), statistics.median(ratios)
        result[name] = {'images_per_sec': round(rate_found, 1), 'ratio': round(ratio, 3)}
    print(json.dumps({'images': count, 'rounds': args.rounds, 'same_crops': same_crops(), **result}, indent=2))


if __name__ == '__main__':
    main()
