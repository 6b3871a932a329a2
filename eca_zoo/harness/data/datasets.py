"""Data sets: opened through timm's readers, with their classes, labels and names, and checked before a model runs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timm.data import create_dataset

from eca_zoo.errors import InputError, one_line
from eca_zoo.files import hash_file
from eca_zoo.harness.data.data_spec import PACKAGED, DataSpec
from eca_zoo.harness.data.images import Images
from eca_zoo.harness.data.kinds import DataKind, kind_of
from eca_zoo.harness.data.labels import (
    LabelError,
    map_classes,
    named_subset,
    read_class_list,
    read_class_map,
    read_real_labels,
)
from eca_zoo.harness.data.listing import ListedImages, counted


@dataclass(frozen=True)
class OpenData:
    """A data set that was opened.

    Attributes:
        spec: what was asked for.
        images: encoded images with their labels.
        class_names: class of each label; None where labels are class indices of the model already.
        real_labels: right classes of each image in place of its own label; None without.
        valid_labels: class indices that results are restricted to; None without.
    """

    spec: DataSpec
    images: Images
    class_names: tuple[str, ...] | None
    real_labels: list[list[int]] | None
    valid_labels: tuple[int, ...] | None

    def class_indices(
        self,
        num_classes: int,
        model: str = 'the model',
        label_names: Mapping[int, str] | None = None,
        remarks: list[str] | None = None,
    ) -> list[int]:
        """The class index that each label of the data set is for ``model``, which has ``num_classes``.

        Args:
            num_classes: of the model.
            model: its name, for messages.
            label_names: names of its class indices, where its config has them.
            remarks: gets what a user has to know.

        Raises:
            LabelError: the classes do not line up with the model's.
        """
        where = str(self.spec.root or self.spec.dataset)
        if self.class_names is not None:
            try:
                return map_classes(self.class_names, num_classes, where, model, label_names, remarks)
            except LabelError as error:
                if not self.images.empty_classes:
                    raise
                empty = counted(self.images.empty_classes)
                raise LabelError(f'{error}; there are folders without an image that counts ({empty})') from None
        known = self.images.num_classes
        if known is not None and known != num_classes and self.spec.class_map is None:
            raise LabelError(
                f'{where}: it has {known} classes and {model} has {num_classes}; name another data set, the '
                f'--checkpoint of a network with {known} classes, or say which is which with --class-map FILE'
            )
        return list(range(num_classes))

    def remarks(self) -> list[str]:
        """What a user has to know of the data set, a line for each kind."""
        lines = list(self.images.remarks)
        names = self.class_names
        subset = named_subset(names) if names is not None and self.valid_labels is None else None
        if subset is not None:
            lines.append(
                f'{self.spec.root or self.spec.dataset}: these are the classes of {subset}: published figures choose '
                f'among its 200 classes alone, which --valid-labels {subset} does'
            )
        return lines

    def incomplete(self, count: int) -> str | None:
        """Why ``count`` images are not the data set; timm's readers of streams skip what they cannot read."""
        declared = len(self.images)
        if not count:
            return f'{self.spec.name}: no image could be counted'
        if self.images.is_stream and declared and count != declared and not self.spec.skip_bad_images:
            return (
                f'{self.spec.name}: {count} images came from the stream, {declared} were declared; the log says what '
                'could not be read; repair it, correct --num-samples, or pass --skip-bad-images'
            )
        return None

    def fingerprints(self) -> dict[str, Any]:
        """JSON values that fix what is evaluated: the images by their fingerprint, and their labels."""
        files = {'class_map': self.spec.class_map, 'ground_truth': self.spec.ground_truth}
        level = {} if self.spec.class_level is None else {'class_level': self.spec.class_level}
        return (
            level
            | {
                'name': self.spec.name,
                'dataset': self.spec.dataset,
                'split': self.spec.split,
                'images': len(self.images),
                'fingerprint': self.images.fingerprint(),
                'valid_labels': self.spec.valid_labels,
                'real_labels': self.real_labels is not None,
            }
            | {name: hash_file(path)[0] for name, path in files.items() if path is not None and path.is_file()}
        )


def open_data(spec: DataSpec) -> OpenData:
    """Open a data set and check that it can be evaluated.

    Raises:
        InputError: it is missing, empty or flat, cannot be read, or lacks labels that were asked for.
    """
    class_map = _class_map(spec)
    kind = kind_of(spec)
    if not kind.prefix:
        _check_root(spec)
    for key in ('input_key', 'target_key', 'class_map', 'class_level'):
        if getattr(spec, key) is not None and key not in kind.keys:
            raise InputError(f'{spec.dataset or spec.root}: it takes no --{key.replace("_", "-")}; leave it out')
    images = kind.open(spec, class_map, lambda: _create(spec, class_map, kind))
    if len(images) == 0 and not images.is_stream:
        raise InputError(f'{spec.root or spec.dataset}: there are no images in it; name another folder or split')
    real = None
    if spec.real_labels is not None:
        real_file = None if spec.real_labels == PACKAGED else Path(str(spec.real_labels))
        real = read_real_labels(real_file, images.names())
    class_names = None if class_map is not None else images.class_names
    if spec.ground_truth is not None:
        class_names = images.relabel(spec.ground_truth)
    elif class_names == ('',) and real is not None:
        images.set_labels([labels[0] if labels else -1 for labels in real])
        class_names = None
    elif class_names is not None and isinstance(images, ListedImages):
        images.check_classes(spec.split)
    valid = read_class_list(spec.valid_labels) if spec.valid_labels is not None else None
    return OpenData(spec, images, class_names, real, valid)


def _class_map(spec: DataSpec) -> dict[str, int] | None:
    if spec.class_map is None:
        return None
    beside = spec.root / spec.class_map if spec.root is not None else spec.class_map
    return read_class_map(spec.class_map if spec.class_map.exists() or not beside.exists() else beside)


def _check_root(spec: DataSpec) -> None:
    if spec.root is None:
        raise InputError('no data is named; give a folder or a tar file with --data-dir, or a --dataset')
    if not spec.root.exists():
        raise InputError(f'{spec.root}: there is no such folder or file; check --data-dir')
    if spec.root.is_file() and spec.root.suffix.lower() != '.tar':
        raise InputError(f'{spec.root}: not a folder and not a .tar file; unpack it, or name the folder it lies in')


def _create(spec: DataSpec, class_map: dict[str, int] | None, kind: DataKind) -> Any:
    """timm's data set, without a transform; whatever it says about bad input becomes one line."""
    arguments: dict[str, Any] = {'input_key': spec.input_key, 'target_key': spec.target_key, 'class_map': class_map}
    try:
        return create_dataset(
            spec.dataset,
            root=_root_text(spec.root),
            split=spec.split,
            download=spec.download,
            num_samples=spec.num_samples,
            input_img_mode=spec.input_img_mode or 'RGB',
            trust_remote_code=spec.trust_remote_code,
            **{key: arguments[key] for key in kind.keys},
        )
    except ImportError as error:
        raise InputError(f'{spec.dataset}: {error}; install it: pip install {kind.package}') from None
    except Exception as error:
        raise _unreadable(spec, error) from error


def _root_text(root: Path | None) -> str | None:
    """The root as timm takes it; a path has lost a slash of a URL."""
    return None if root is None else re.sub(r'^(\w{2,}):/(?!/)', r'\1://', str(root))


def _unreadable(spec: DataSpec, error: Exception) -> InputError:
    where = spec.root if spec.root is not None else spec.dataset
    return InputError(f'{where} ({spec.dataset}, split {spec.split}): cannot be opened: {one_line(error)}')
