"""Images with their classes in their paths: which files count, of which class each one is, and what is left out."""

import fnmatch
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eca_zoo.errors import InputError
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.data.ground_truth import Label, read_ground_truth
from eca_zoo.harness.data.images import Images, digest
from eca_zoo.harness.data.labels import natural_key, normal

# Formats of images that are read where ``input_key`` names them, and are missed where it does not.
_IMAGE_FORMATS = frozenset(
    f'.{name}'
    for name in (
        'avif', 'bmp', 'dib', 'gif', 'heic', 'heif', 'ico', 'j2k', 'jfif', 'jp2', 'jpe', 'jpeg', 'jpg', 'jpx', 'jxl',
        'pbm', 'pgm', 'png', 'pnm', 'ppm', 'tga', 'tif', 'tiff', 'webp',
    )
)  # fmt: skip
# Folders that file systems, archivers and network storage put beside one's own, with copies of images in them.
_SYSTEM_FOLDERS = ('__MACOSX', '@eaDir', '#recycle', '@Recycle', '$RECYCLE.BIN', 'lost+found')
_HIDDEN = re.compile(rf'(?:^|/)(?:\.|(?:{"|".join(map(re.escape, _SYSTEM_FOLDERS))})(?:/|$))', re.IGNORECASE)
_SPLIT_NAMES = {'train', 'training', 'val', 'valid', 'validation', 'eval', 'evaluation', 'test'}
_SHOWN = 3


def is_hidden(name: str) -> bool:
    """Whether a part of a path belongs to the system: ``.ipynb_checkpoints``, ``._0001.png``, ``@eaDir``."""
    return _HIDDEN.search(name) is not None


def class_of(name: str, level: str | None) -> str:
    """The folder that is the class of an image: the innermost one, or with the level ``top`` the first one."""
    folders = name.split('/')[:-1]
    return '' if not folders else folders[0 if level == 'top' else -1]


def set_of(name: str) -> str:
    """The folder around the class folder of an image: the data set that it belongs to, where there are several."""
    return '/'.join(name.split('/')[:-2])


def _in_sets(listing: 'Listing', pattern: str | None) -> list[str]:
    """The images of the data sets whose folders match ``pattern``; all without one."""
    if pattern is None:
        return listing.images
    matches = {folder: fnmatch.fnmatchcase(folder, pattern) for folder in set(map(set_of, listing.images))}
    found = [name for name in listing.images if matches[set_of(name)]]
    if not found:
        raise InputError(
            f'{listing.where}: no folder in it that matches the pattern {pattern} of data sets has class folders with '
            'images; correct the pattern, or name another folder'
        )
    others = sorted(folder for folder, is_match in matches.items() if not is_match)
    if others:
        left_out = len(listing.images) - len(found)
        listing.remarks.append(f'{left_out} images are left out: {pattern} does not match {counted(others)}')
    return found


class Listing:
    """What lies in a folder or a tar: the images that count, and what does not, for one warning of each kind.

    Attributes:
        where: the folder or tar, for messages.
        extensions: of files that count.
        images: names of those, relative and with slashes.
        others: number of other files by their extension.
        hidden: images that belong to the system, or folders with such.
        repeated: names that lead to an image or folder that is there already.
        lost: files that cannot be read as they lie there.
        empty: folders without images or folders in them.
        remarks: further warnings.
    """

    def __init__(self, where: str, input_key: str | None) -> None:
        self.where = where
        self.extensions = extensions_of(input_key)
        self.images: list[str] = []
        self.others: Counter[str] = Counter()
        self.hidden: list[str] = []
        self.repeated: list[str] = []
        self.lost: list[str] = []
        self.empty: list[str] = []
        self.remarks: list[str] = []

    def takes(self, name: str) -> bool:
        """Whether the file is an image that counts; if not, why not is noted."""
        extension = os.path.splitext(name)[1].lower()
        counts = extension in self.extensions
        if is_hidden(name):
            if counts or extension in _IMAGE_FORMATS:
                self.hidden.append(name)
            return False
        if not counts:
            self.others[extension] += 1
        return counts

    def warnings(self) -> list[str]:
        """What a user has to know of it, a line for each kind."""
        missed = {name: count for name, count in sorted(self.others.items()) if name in _IMAGE_FORMATS}
        kinds = {
            'hidden images, or folders with images, are ignored': self.hidden,
            'what is there more than once counts once': self.repeated,
            'images that cannot be read as they are stored do not count': self.lost,
        }
        lines = [f'{text} ({counted(names)})' for text, names in kinds.items() if names]
        if missed:
            found = ', '.join(f'{count} {name}' for name, count in missed.items())
            keys = ';'.join([*self.extensions, *missed])
            lines.append(f"images of other formats do not count ({found}); --input-key '{keys}' reads them too")
        return [f'{self.where}: {line}' for line in [*lines, *self.remarks]]

    def why_empty(self) -> str:
        """Why there are no images, and what to do."""
        missed = sorted(name for name in self.others if name in _IMAGE_FORMATS)
        if '.tar' in self.others and not missed:
            return (
                'there are tar files in it and no images; name the tar file, or --dataset wds/ and the shards as '
                '--split'
            )
        found = ', '.join(sorted(name for name in self.others if name)[:5])
        others = f'; it holds files with the extensions {found}' if found else ''
        remedy = f"--input-key '{';'.join(missed)}' reads them" if missed else ''
        return (
            f'there are no images ({" ".join(self.extensions)}) in it or below{others}; '
            f'{remedy or "name a folder with one folder for each class"}'
        )


def counted(names: Sequence[str]) -> str:
    """How many there are, and the first of them."""
    return f'{len(names)}: {", ".join(names[:_SHOWN])}{", ..." if len(names) > _SHOWN else ""}'


def is_image(name: str) -> bool:
    """Whether a file has the name of an image, whether it counts or not."""
    return os.path.splitext(name)[1].lower() in _IMAGE_FORMATS


def extensions_of(input_key: str | None) -> tuple[str, ...]:
    """The extensions, separated by semicolons, that images have; by default timm's."""
    if input_key is None:
        from timm.data.readers.img_extensions import get_img_extensions

        return tuple(get_img_extensions())
    given = [part.strip().lower() for part in input_key.split(';')]
    return tuple(dict.fromkeys(part if part.startswith('.') else f'.{part}' for part in given if part))


class ListedImages(Images):
    """Images by their names, each of which has its class in its path."""

    def __init__(
        self,
        listing: Listing,
        spec: DataSpec,
        class_map: Mapping[str, int] | None,
        class_order: Callable[[str], Any] = natural_key,
    ) -> None:
        """Number the classes.

        Args:
            listing: what there is.
            spec: what was asked for.
            class_map: class indices by name; images of other classes are left out.
            class_order: key that classes are sorted by where there is no class map.

        Raises:
            InputError: there is no image.
        """
        if not listing.images:
            raise InputError(f'{listing.where}: {listing.why_empty()}')
        self._where, self._level = listing.where, spec.class_level if spec.sets is None else 'leaf'
        names = sorted(_in_sets(listing, spec.sets), key=lambda name: (natural_key(name), name))
        classes = [class_of(name, spec.class_level) for name in names]
        if class_map is None:
            known = sorted(set(classes), key=lambda name: (class_order(name), name))
            number = {name: index for index, name in enumerate(known)}
            self.class_names = tuple(known)
        else:
            number = {name: class_map[normal(name)] for name in set(classes) if normal(name) in class_map}
        pairs = [(name, number[label]) for name, label in zip(names, classes, strict=True) if label in number]
        if not pairs:
            raise InputError(f'{listing.where}: none of its folders is named in the class map {spec.class_map}')
        self._names = [name for name, _ in pairs]
        self._labels = [label for _, label in pairs]
        left_out = sorted(set(classes) - number.keys())
        if left_out:
            listing.remarks.append(
                f'{len(names) - len(pairs)} images are left out: the class map does not name their folders '
                f'({counted(left_out)})'
            )
        known_folders = {class_of(f'{folder}/', spec.class_level) for folder in listing.empty}
        self.empty_classes = tuple(sorted(known_folders - set(classes)))
        if self.empty_classes:
            listing.remarks.append(f'folders without an image that counts ({counted(self.empty_classes)})')
        self.remarks = tuple(listing.warnings())

    def __len__(self) -> int:
        return len(self._labels)

    def names(self) -> list[str]:
        return list(self._names)

    def size(self, position: int) -> int:
        """Bytes of the image at ``position``; -1 if it is gone."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        rows = zip(self._names, range(len(self)), self._labels, strict=True)
        return digest(f'{name}\t{self.size(position)}\t{label}' for name, position, label in rows)

    def relabel(self, ground_truth: Path) -> tuple[str, ...] | None:
        remarks = list(self.remarks)
        labels = read_ground_truth(ground_truth, self._names, remarks)
        self.remarks = tuple(remarks)
        self._labels, self.class_names = number_labels(labels)
        return self.class_names

    def set_labels(self, labels: Sequence[int]) -> None:
        self._labels, self.class_names = list(labels), None

    def check_classes(self, split: str) -> None:
        """Refuse images whose class is not known for certain.

        Raises:
            InputError: they lie in no class folder, are two splits that would be read as one data set, or one folder's
                name occurs in several others.
        """
        flat = [name for name in self._names if '/' not in name]
        if len(flat) == len(self):
            raise InputError(
                f'{self._where}: its {len(flat)} images lie in no class folders, so their classes are unknown; sort '
                'them into one folder for each class, or give --ground-truth FILE'
            )
        if flat:
            raise InputError(f'{self._where}: {flat[0]} lies beside the class folders, in none of them; move it away')
        folders = sorted({os.path.dirname(name) for name in self._names})
        places: dict[str, list[str]] = {}
        for folder in folders:
            places.setdefault(os.path.basename(folder), []).append(folder)
        self._check_splits(places, split)
        if self._level is None:
            self._check_leaves(folders, places)

    def _check_splits(self, places: Mapping[str, Sequence[str]], split: str) -> None:
        for folders in places.values():
            tops = {folder.split('/')[0] for folder in folders if '/' in folder}
            splits = sorted(top for top in tops if top.lower() in _SPLIT_NAMES)
            if len(splits) > 1:
                raise InputError(
                    f'{self._where}: it holds the splits {", ".join(splits)} and none called {split!r}; choose one '
                    'with --split, or name its folder'
                )

    def _check_leaves(self, folders: Iterable[str], places: Mapping[str, Sequence[str]]) -> None:
        repeated = next((same for same in places.values() if len(same) > 1), None)
        if repeated is not None:
            raise InputError(
                f'{self._where}: {repeated[0]} and {repeated[1]} have one name, so whether it is their class is not '
                'known; --class-level top takes the first folder as the class, --class-level leaf the innermost one'
            )
        known = set(folders)
        inner = next((folder for folder in folders if os.path.dirname(folder) in known), None)
        if inner is not None:
            remark = (
                f'{self._where}: {inner} is a class of its own, and {os.path.dirname(inner)} around it another; '
                '--class-level top makes them one'
            )
            self.remarks = (*self.remarks, remark)


def number_labels(labels: Sequence[Label]) -> tuple[list[int], tuple[str, ...] | None]:
    """Labels as numbers with the class name of each number; class indices stay as they are, without names."""
    indices = [label for label in labels if isinstance(label, int)]
    if len(indices) == len(labels):
        return indices, None
    names = sorted({str(label) for label in labels})
    number = {name: index for index, name in enumerate(names)}
    return [number[str(label)] for label in labels], tuple(names)
