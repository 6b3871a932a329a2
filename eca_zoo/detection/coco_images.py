"""A set in COCO's format on disk: which file annotates it, where its images lie, and their pixels."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from eca_zoo.detection.coco_annotations import CocoAnnotations, CocoImage, read_annotations
from eca_zoo.detection.networks.files import read_image
from eca_zoo.errors import InputError
from eca_zoo.files import hash_file
from eca_zoo.harness.data.images import digest

_PREFIX = 'instances_'
# Names of splits that mean the same begin so.
_SPLITS = {'validation': ('val', 'valid'), 'val': ('val', 'valid'), 'train': ('train',), 'training': ('train',)}


@dataclass(frozen=True)
class CocoSet:
    """Annotations and the folder that their file names are below.

    Attributes:
        annotations: that were read.
        folder: of the images.
        name: in tables.
    """

    annotations: CocoAnnotations
    folder: Path
    name: str

    def __len__(self) -> int:
        """Number of images."""
        return len(self.annotations.images)

    def path(self, position: int) -> Path:
        """The file of the image at ``position``."""
        return self.folder / self.annotations.images[position].file_name

    def read(self, position: int) -> torch.Tensor:
        """Bytes (3, H, W) of the image at ``position`` as they are stored, which is what annotations belong to.

        Raises:
            InputError: it cannot be decoded, or has another size than the annotations say.
        """
        path, expected = self.path(position), self.annotations.images[position]
        pixels = read_image(path)
        height, width = pixels.shape[1:]
        if (height, width) != (expected.height, expected.width):
            turned = (width, height) == (expected.height, expected.width)
            remedy = 'it was turned after it was annotated' if turned else 'it is another image than was annotated'
            raise InputError(
                f'{path}: it has {width}x{height} pixels, and {self.annotations.path} (image id {expected.id}) says '
                f'{expected.width}x{expected.height}; {remedy}'
            )
        return pixels

    def fingerprints(self) -> dict[str, object]:
        """JSON values that fix what is evaluated: the annotations by their bytes, images by names and sizes."""
        sizes = (f'{image.file_name}\t{os.stat(self.path(i)).st_size}' for i, image in enumerate(self._images))
        return {
            'annotations': hash_file(self.annotations.path)[0], 'images': len(self), 'fingerprint': digest(sizes)
        }  # fmt: skip

    @property
    def _images(self) -> Sequence[CocoImage]:
        return self.annotations.images


def open_coco(
    root: Path | None = None,
    split: str = 'validation',
    annotations: Path | None = None,
    images: Path | None = None,
    leave_out_faulty_boxes: bool = False,
) -> CocoSet:
    """A set in COCO's format whose annotations were read and whose images are there.

    Args:
        root: folder into which COCO was unpacked: ``annotations/instances_val2017.json`` beside ``val2017``.
        split: ``validation`` or ``train``, or how its annotations are called (``val2017``).
        annotations: file in the place of the one below ``root``.
        images: folder in the place of the one below ``root``.
        leave_out_faulty_boxes: see ``read_annotations``.

    Raises:
        InputError: annotations or images are not there, or the annotations are wrong.
    """
    if annotations is None:
        if root is None:
            raise InputError('no data is named; give a folder with --data-dir, or --annotations and --images')
        annotations = _find_annotations(root, split)
    read = read_annotations(annotations, leave_out_faulty_boxes)
    name = annotations.stem.removeprefix(_PREFIX)
    folder = images if images is not None else _find_images(root or annotations.parent, name, read)
    if not folder.is_dir():
        raise InputError(f'{folder}: there is no such folder; check --images')
    _check_files(read, folder)
    return CocoSet(read, folder, name)


def _find_annotations(root: Path, split: str) -> Path:
    if not root.is_dir():
        raise InputError(f'{root}: there is no such folder; check --data-dir')
    there = [*sorted(root.glob(f'annotations/{_PREFIX}*.json')), *sorted(root.glob(f'{_PREFIX}*.json'))]
    exact = [path for path in there if path.stem == f'{_PREFIX}{split}']
    starts = _SPLITS.get(split, (split,))
    fitting = exact or [path for path in there if path.stem.removeprefix(_PREFIX).startswith(starts)]
    if len(fitting) == 1:
        return fitting[0]
    if not there:
        raise InputError(
            f'{root}: there is no annotations/{_PREFIX}*.json in it, which COCO comes with; name the file with '
            '--annotations and the folder of the images with --images'
        )
    found = ', '.join(str(path.relative_to(root)) for path in there)
    raise InputError(
        f'{root}: {len(fitting) or "none"} of its annotations ({found}) are for the split {split!r}; choose one with '
        '--split or --annotations'
    )


def _find_images(root: Path, name: str, annotations: CocoAnnotations) -> Path:
    """The folder of the images; the most likely one where none of them holds the first image."""
    around = [root, root.parent] if root.name == 'annotations' else [root]
    folders = [folder / inner for folder in around for inner in (name, f'images/{name}', 'images', '.')]
    first = annotations.images[0].file_name if annotations.images else '.'
    found = next((folder for folder in folders if (folder / first).exists()), None)
    return found or next((folder for folder in folders if folder.is_dir()), root)


def _check_files(annotations: CocoAnnotations, folder: Path) -> None:
    missing = [image for image in annotations.images if not (folder / image.file_name).is_file()]
    if missing:
        first = missing[0]
        raise InputError(
            f'{folder}: {len(missing)} of the {len(annotations.images)} images of {annotations.path} are not there '
            f'(id {first.id}: {first.file_name}); name their folder with --images'
        )
