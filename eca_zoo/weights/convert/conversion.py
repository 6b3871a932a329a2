"""Converting others' checkpoint files to hub-ready folders: safetensors, a config, a record of both hashes."""

import difflib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch

from eca_zoo.errors import InputError
from eca_zoo.files import lock, remove_leftovers
from eca_zoo.weights.convert.built import build_on_meta, is_detector, transform_of
from eca_zoo.weights.convert.hub_folder import check_folder, hub_config, write_folder
from eca_zoo.weights.convert.recognition import Recognised, recognise
from eca_zoo.weights.convert.untrusted_file import UntrustedFile, read_untrusted
from eca_zoo.weights.errors import CheckpointError, HashMismatchError
from eca_zoo.weights.load import check_tensors, load_file
from eca_zoo.weights.local_manifest import local_manifest, record_entry
from eca_zoo.weights.manifest import (
    NAME,
    AuthorsFile,
    Checkpoint,
    Entry,
    Source,
    packaged_manifest,
)
from eca_zoo.weights.sources.copies import path_in_weights_folder
from eca_zoo.weights.tensor_file import serialize
from eca_zoo.weights.weights_folder import weights_folder

_IMAGENET_CLASSES, _COCO_CLASSES = 1000, 80


@dataclass(frozen=True)
class ConvertResult:
    """What a conversion made: the checkpoint's name, its folder, and sizes (bytes) and SHA-256 of source and result."""

    name: str
    folder: Path
    kernel_sizes: tuple[int, ...]
    num_classes: int
    size: int
    sha256: str
    source_size: int
    source_sha256: str

    @property
    def is_detector(self) -> bool:
        """Whether it is a detector and no classification network."""
        return is_detector(self.name.partition('.')[0])


def convert(path: Path, model: str | None = None, out: Path | None = None) -> ConvertResult:
    """Convert the checkpoint ``path``; afterwards the networks and detectors here load it with ``pretrained=True``.

    The result lies under ``ECA_ZOO_HOME`` as a folder that timm (``local-dir:``) and the hub understand, and in ``out``
    too if it is given. Equal tensors give equal bytes.

    Args:
        path: the checkpoint, see ``read_untrusted``.
        model: the architecture that it must hold, or the full name ``architecture.tag`` to record it under. Without it
            both follow from the tensors: the authors' tag with these kernel sizes, or one made of the kernel sizes.
        out: folder to write as well.

    Raises:
        InputError: ``model`` is unknown, or ``out`` holds another checkpoint.
        CheckpointError: the file is refused, or holds another network.
        HashMismatchError: the manifest knows another file under this name.
        StorageError: a folder cannot be written.
    """
    from eca_zoo.models.registry import refresh_pretrained_cfgs

    architecture, tag = _parse_model(model) if model else (None, '')
    file = read_untrusted(path)
    try:
        found = recognise(file.state, architecture)
        name = _choose_name(found, tag)
        network = _build(found, name)
        _check_finite(found.state)
    except CheckpointError as error:
        raise CheckpointError(f'{path}: {error}') from None
    content = serialize(found.state)
    sha256 = hashlib.sha256(content).hexdigest()
    entry = _entry(name, found, path, file, Checkpoint(len(content), sha256, (_source(name, sha256),)), network)
    _check_known(name, entry, path)
    config = hub_config(name, entry)
    if out is not None:
        check_folder(out, sha256, '--folder')
    folder = (weights_folder() / path_in_weights_folder(name, sha256)).parent
    with lock(weights_folder() / 'locks' / f'{sha256}.lock', f'storing {name}'):
        write_folder(folder, content, config)
        remove_leftovers(folder)
    load_file(folder / 'model.safetensors', len(content), sha256, name, f'the disk is unreliable; convert {path} again')
    record_entry(name, entry)
    refresh_pretrained_cfgs()
    if out is not None:
        write_folder(out, content, config)
    return ConvertResult(
        name, out or folder, found.kernel_sizes, found.num_classes,
        len(content), sha256, file.size, file.sha256,
    )  # fmt: skip


def _parse_model(model: str) -> tuple[str, str]:
    """Architecture and tag in ``--model``; the tag may be empty."""
    from eca_zoo.detection.networks.registry import list_detectors
    from eca_zoo.models import list_architectures

    architecture, dot, tag = model.partition('.')
    known = [*(record.name for record in list_architectures()), *list_detectors()]
    if architecture not in known:
        nearest = difflib.get_close_matches(architecture, known, n=3, cutoff=0.4) or known
        raise InputError(f'--model {model}: no network of this package; the nearest names are {", ".join(nearest)}')
    if dot and not NAME.fullmatch(model):
        raise InputError(f'--model {model}: a tag has letters, digits, _ and - alone')
    return architecture, tag


def _choose_name(found: Recognised, tag: str) -> str:
    """The name ``architecture.tag`` for what was found, under the ``tag`` that was asked for, if any."""
    packaged = packaged_manifest()
    if not tag:
        for name in packaged.tags(found.architecture):
            if _fits(packaged.models[name], found):
                return name
        return f'{found.architecture}.{_tag(found)}'
    name = f'{found.architecture}.{tag}'
    if name in packaged.models and not _fits(packaged.models[name], found):
        raise CheckpointError(
            f'it has kernel sizes {list(found.kernel_sizes)} and {found.num_classes} classes, so it is not {name}'
        )
    return name


def _fits(entry: Entry, found: Recognised) -> bool:
    known = (entry.kernel_sizes, entry.other_kernel_sizes)
    return found.kernel_sizes in known and entry.num_classes == found.num_classes


def _tag(found: Recognised) -> str:
    """A tag for a network that the manifest does not list, such as ``k3377``, or ``k3377_c10`` for ten classes."""
    separator = '-' if max(found.kernel_sizes) > 9 else ''
    usual = _COCO_CLASSES if is_detector(found.architecture) else _IMAGENET_CLASSES
    classes = '' if found.num_classes == usual else f'_c{found.num_classes}'
    return f'k{separator.join(map(str, found.kernel_sizes))}{classes}'


def _build(found: Recognised, name: str) -> Any:
    """The network on the meta device, after the tensors were compared with it: strictly, before anything is written."""
    network = build_on_meta(found.architecture, found.num_classes, found.kernel_sizes)
    check_tensors(found.state, network.state_dict(), name)
    network.load_state_dict(found.state, strict=True, assign=True)
    return network


def _check_finite(state: dict[str, torch.Tensor]) -> None:
    for key, tensor in state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f'its tensor {key!r} holds NaN or infinite values; use another checkpoint')


def _source(name: str, sha256: str) -> Source:
    return Source(file=path_in_weights_folder(name, sha256))


def _entry(
    name: str, found: Recognised, path: Path, file: UntrustedFile, checkpoint: Checkpoint, network: Any
) -> Entry:
    """The local manifest's entry: the packaged one with both hashes, or a new one for a tag that it does not list."""
    packaged = packaged_manifest().models.get(name)
    if packaged is not None:
        source = packaged.authors_file or AuthorsFile(file=path.name)
        source = msgspec.structs.replace(source, size=file.size, sha256=file.sha256)
        return msgspec.structs.replace(
            packaged, authors_file=source, checkpoint=checkpoint, kernel_sizes=found.kernel_sizes
        )  # fmt: skip
    return Entry(
        num_classes=found.num_classes,
        dataset='unknown',
        **transform_of(network),
        license='unknown',
        kernel_sizes=found.kernel_sizes,
        categories=_trained_categories(path, found),
        description=f'converted from {path.name}',
        authors_file=AuthorsFile(file=path.name, size=file.size, sha256=file.sha256),
        checkpoint=checkpoint,
    )


def _trained_categories(path: Path, found: Recognised) -> dict[int, str] | None:
    """The detector's classes where the folder of a training of ours says them."""
    if not is_detector(found.architecture):
        return None
    try:
        record = json.loads((path.parent / 'run.json').read_text(encoding='utf-8'))
        named = {int(number): str(name) for number, name in record['identity']['data']['train']['categories'].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return named if len(named) == found.num_classes else None


def _check_known(name: str, entry: Entry, path: Path) -> None:
    """Refuse to record other content under a name whose content is known already.

    The authors published two generations of ECA-Net50 under one file name: a hash alone tells them apart.
    """
    assert entry.authors_file is not None and entry.checkpoint is not None
    packaged = packaged_manifest()
    known = packaged.models.get(name)
    if known is not None and known.authors_file is not None:
        _compare(path, name, 'SHA-256', entry.authors_file.sha256, known.authors_file.sha256)
    for manifest in (packaged, local_manifest()):
        known = manifest.models.get(name)
        if known is not None and known.checkpoint is not None:
            _compare(path, name, 'SHA-256 after conversion', entry.checkpoint.sha256, known.checkpoint.sha256)


def _compare(path: Path, name: str, kind: str, found: str | None, known: str | None) -> None:
    if known is not None and found != known:
        raise HashMismatchError(
            f'{path}: these are not the weights of {name} that the manifest knows: {kind} {found}, expected {known}; '
            f'nothing was recorded; to keep both, give this one a tag: --model {name.split(".", 1)[0]}.TAG'
        )
