"""Data sets: opened through timm's readers, with their classes, labels and names, and checked before a model runs."""

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timm.data import create_dataset
from timm.data.readers.img_extensions import get_img_extensions

from eca_zoo.errors import InputError, one_line
from eca_zoo.files import hash_file
from eca_zoo.harness.data.data_spec import DataSpec
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

_logger = logging.getLogger(__name__)

_SPLIT_NAMES = {'train', 'training', 'val', 'valid', 'validation', 'eval', 'evaluation', 'test'}
#: Value of ``DataSpec.real_labels`` that stands for the copy that timm carries.
PACKAGED = 'default'


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

    def class_indices(self, num_classes: int, model: str = 'the model') -> list[int]:
        """The class index that each label of the data set is for ``model``, which has ``num_classes``.

        Raises:
            LabelError: the classes do not line up with the model's.
        """
        where = str(self.spec.root or self.spec.dataset)
        if self.class_names is not None:
            return map_classes(self.class_names, num_classes, where, model)
        known = self.images.num_classes
        if known is not None and known != num_classes and self.spec.class_map is None:
            raise LabelError(
                f'{where}: it has {known} classes and {model} has {num_classes}; name another data set, build the '
                f'model with --num-classes {known}, or say which is which with --class-map FILE'
            )
        return list(range(num_classes))

    def fingerprints(self) -> dict[str, Any]:
        """JSON values that fix what is evaluated: the images by their fingerprint, and their labels."""
        files = {'class_map': self.spec.class_map, 'ground_truth': self.spec.ground_truth}
        return {
            'name': self.spec.name,
            'dataset': self.spec.dataset,
            'split': self.spec.split,
            'images': len(self.images),
            'fingerprint': self.images.fingerprint(),
            'valid_labels': self.spec.valid_labels,
            'real_labels': self.real_labels is not None,
        } | {name: hash_file(path)[0] for name, path in files.items() if path is not None and path.is_file()}


def open_data(spec: DataSpec) -> OpenData:
    """Open a data set and check that it can be evaluated.

    Raises:
        InputError: it is missing, empty or flat, cannot be read, or lacks labels that were asked for.
    """
    class_map = _class_map(spec)
    kind = kind_of(spec)
    if not kind.prefix:
        _check_root(spec)
    images = kind.open(spec, _create(spec, class_map, kind))
    if len(images) == 0 and not images.is_stream:
        raise InputError(f'{spec.root or spec.dataset}: there are no images in it; name another folder or split')
    real = None
    if spec.real_labels is not None:
        real_file = None if spec.real_labels == PACKAGED else Path(spec.real_labels)
        real = read_real_labels(real_file, images.names())
    class_names = None if class_map is not None else images.class_names
    if spec.ground_truth is not None:
        class_names = images.relabel(spec.ground_truth)
    elif class_names == ('',) and real is not None:
        images.set_labels([labels[0] if labels else -1 for labels in real])
        class_names = None
    elif class_names is not None and not kind.prefix:
        _check_folders(spec, images)
    valid = read_class_list(spec.valid_labels) if spec.valid_labels is not None else None
    subset = named_subset(class_names) if class_names is not None and valid is None else None
    if subset is not None:
        _logger.warning(
            '%s: these are the classes of %s: published figures choose among its 200 classes alone, which '
            '--valid-labels %s does', spec.root or spec.dataset, subset, subset,
        )  # fmt: skip
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
    if spec.root.is_file() and spec.root.suffix != '.tar':
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
            **kind.options,
        )
    except ImportError as error:
        raise InputError(f'{spec.dataset}: {error}; install it: pip install {kind.package}') from None
    except Exception as error:
        raise _unreadable(spec, error, kind) from error


def _root_text(root: Path | None) -> str | None:
    """The root as timm takes it; a path has lost a slash of a URL."""
    return None if root is None else re.sub(r'^(\w{2,}):/(?!/)', r'\1://', str(root))


def _unreadable(spec: DataSpec, error: Exception, kind: DataKind) -> InputError:
    where = spec.root if spec.root is not None else spec.dataset
    if not kind.prefix and 'Found 0 images' in str(error):
        return InputError(f'{where}: {_why_empty(spec)}')
    if not kind.prefix and isinstance(error, ValueError) and not str(error).startswith('Invalid'):
        return InputError(f'{where}: there are no images in it; name another file')
    reason = one_line(error)
    name = f' ({spec.dataset}, split {spec.split})' if kind.prefix else ''
    return InputError(f'{where}{name}: cannot be opened: {reason}')


def _why_empty(spec: DataSpec) -> str:
    assert spec.root is not None
    if spec.class_map is not None:
        return f'none of its folders is named in the class map {spec.class_map}'
    searched = spec.input_key or ' '.join(get_img_extensions())
    found = {path.suffix for path in spec.root.rglob('*') if path.is_file()}
    if '.tar' in found:
        return 'there are tar files in it and no images; name the tar file, or --dataset wds/ and the shards as --split'
    others = f'; it holds files with the extensions {", ".join(sorted(found)[:5])}' if found else ''
    return f'there are no images ({searched}) in it or below{others}; name a folder with one folder for each class'


def _check_folders(spec: DataSpec, images: Images) -> None:
    """Refuse images that lie in no class folder, and two splits that would be read as one data set."""
    names = images.names()
    flat = [name for name in names if os.path.dirname(name) in ('', '.')]
    if len(flat) == len(names):
        raise InputError(
            f'{spec.root}: its {len(names)} images lie in no class folders, so their classes are unknown; sort them '
            'into one folder for each class, or give --ground-truth FILE'
        )
    if flat:
        raise InputError(f'{spec.root}: {flat[0]} lies beside the class folders, in none of them; move it away')
    tops: dict[str, set[str]] = {}
    for folder in {os.path.dirname(name) for name in names}:
        parts = folder.split(os.sep)
        if len(parts) > 1 and parts[0].lower() in _SPLIT_NAMES:
            tops.setdefault(parts[-1], set()).add(parts[0])
    mixed = next((splits for splits in tops.values() if len(splits) > 1), None)
    if mixed is not None:
        raise InputError(
            f'{spec.root}: it holds the splits {", ".join(sorted(mixed))} and none called {spec.split!r}; choose one '
            'with --split, or name its folder'
        )
