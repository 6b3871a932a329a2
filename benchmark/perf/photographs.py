"""Writes a folder of photographs as JPEG files: crops of scikit-image's and scikit-learn's sample photographs."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

QUALITY = 90
LANDSCAPE = (500, 375)


def sample_photographs() -> dict[str, Image.Image]:
    """The six sample photographs (RGB) that scikit-image and scikit-learn carry, by name."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    arrays = {name: getattr(data, name)() for name in ('astronaut', 'chelsea', 'coffee', 'rocket')}
    samples = load_sample_images()
    arrays |= {Path(name).stem: array for name, array in zip(samples.filenames, samples.images, strict=True)}
    return {name: Image.fromarray(np.ascontiguousarray(array)) for name, array in sorted(arrays.items())}


def crops(count: int, portrait_share: float = 0.25, seed: int = 0) -> Iterator[tuple[str, Image.Image]]:
    """Yield ``count`` crops as (name of the photograph, RGB image of 500x375 or 375x500 pixels).

    A crop covers 55 to 100 % of the largest area of its aspect ratio and is resized with Lanczos; every
    ``1 / portrait_share``-th one is upright, as are about a quarter of ImageNet's photographs.
    """
    photographs = sample_photographs()
    names = list(photographs)
    random = np.random.default_rng(seed)
    upright_every = round(1 / portrait_share) if portrait_share else 0
    for index in range(count):
        name = names[index % len(names)]
        photograph = photographs[name]
        round_of_names = index // len(names)
        is_upright = bool(upright_every) and round_of_names % upright_every == upright_every - 1
        width, height = LANDSCAPE[::-1] if is_upright else LANDSCAPE
        scale = min(photograph.width / width, photograph.height / height) * random.uniform(0.55, 1.0) ** 0.5
        crop_width, crop_height = width * scale, height * scale
        left = random.uniform(0, photograph.width - crop_width)
        top = random.uniform(0, photograph.height - crop_height)
        box = (left, top, left + crop_width, top + crop_height)
        yield name, photograph.resize((width, height), Image.Resampling.LANCZOS, box=box)


def write_photographs(folder: Path, count: int = 240, portrait_share: float = 0.25, seed: int = 0) -> list[Path]:
    """Write ``count`` JPEG files (quality 90, 4:2:0) as ``folder/NAME/NNNN.jpg`` and return their paths.

    Args:
        folder: made if it is missing; a class folder for each photograph is made under it.
        count: number of files.
        portrait_share: share of upright crops.
        seed: of the crops' places and sizes; the same seed gives the same files.
    """
    paths = []
    for index, (name, image) in enumerate(crops(count, portrait_share, seed)):
        path = folder / name / f'{index:04d}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=QUALITY)
        paths.append(path)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--count', type=int, default=240)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    paths = write_photographs(args.folder, args.count, seed=args.seed)
    mean_size = sum(path.stat().st_size for path in paths) / len(paths)
    print(f'{args.folder}: {len(paths)} photographs, {mean_size / 1000:.0f} kB on average')


if __name__ == '__main__':
    main()
