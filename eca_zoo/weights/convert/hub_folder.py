"""The folder that timm and the Hugging Face Hub understand: safetensors, timm's config, and a model card."""

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import timm
import torch
from timm.models._hub import save_config_for_hf

from eca_zoo.errors import InputError
from eca_zoo.files import encode_text, storage_error, write_atomically
from eca_zoo.weights.manifest import Entry

_CITATION = """\
@InProceedings{wang2020eca,
  title     = {ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks},
  author    = {Qilong Wang and Banggu Wu and Pengfei Zhu and Peihua Li and Wangmeng Zuo and Qinghua Hu},
  booktitle = {The IEEE Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2020}
}"""


_FROM_A_CLONE = 'ECA Zoo; in a clone of its repository: pip install .'
# By the data set of an entry: what its terms say of the images, and so of what was trained on them.
_TERMS = {
    'imagenet-1k': 'The network was trained on ImageNet, whose images are under terms of access of their own '
    '(https://www.image-net.org/download): non-commercial research and education.',
}


def build_on_meta(architecture: str, num_classes: int, kernel_sizes: tuple[int, ...] | None) -> Any:
    """The network on the meta device, where it takes neither memory nor time."""
    import eca_zoo.models  # noqa: F401  (registers the networks)

    arguments: dict[str, Any] = {} if kernel_sizes is None else {'kernel_sizes': kernel_sizes}
    with torch.device('meta'):
        return timm.create_model(architecture, num_classes=num_classes, **arguments)


def hub_config(name: str, entry: Entry) -> bytes:
    """timm's ``config.json`` for a checkpoint, with its kernel sizes."""
    architecture, tag = name.split('.', 1)
    network = build_on_meta(architecture, entry.num_classes, entry.kernel_sizes)
    cfg = dict(network.pretrained_cfg)
    cfg.update(msgspec.structs.asdict(entry.transform), num_classes=entry.num_classes, tag=tag)
    cfg.update(license=entry.license, description=entry.description, paper_ids=entry.paper)
    cfg.update(origin_url=entry.reported.source if entry.reported else None)
    network.pretrained_cfg = cfg
    arguments: Any = None if entry.kernel_sizes is None else {'kernel_sizes': list(entry.kernel_sizes)}
    with tempfile.TemporaryDirectory() as folder:
        path: Any = Path(folder) / 'config.json'
        save_config_for_hf(network, path, model_args=arguments)
        return path.read_bytes() + b'\n'


def check_folder(folder: Path, sha256: str, option: str) -> None:
    """Refuse a folder that holds another checkpoint than the one with this hash.

    Raises:
        InputError: it does.
        StorageError: it cannot be read.
    """
    present = folder / 'model.safetensors'
    try:
        if present.exists() and hashlib.sha256(present.read_bytes()).hexdigest() != sha256:
            raise InputError(f'{folder}: it holds another checkpoint already; choose another {option}, or remove it')
    except OSError as error:
        raise storage_error(folder, error, option) from None


def write_folder(folder: Path, content: bytes | bytearray, config: bytes, card: str | None = None) -> None:
    """Write the files, the weights first.

    Raises:
        StorageError: one cannot be written.
    """
    write_atomically(folder / 'model.safetensors', content)
    write_atomically(folder / 'config.json', config)
    if card is not None:
        write_atomically(folder / 'README.md', encode_text(card))


def model_card(
    name: str,
    entry: Entry,
    repo: str | None,
    measured: Mapping[str, str],
    package_url: str | None = None,
    section: str = '',
) -> str:
    """The model card, in Markdown with the hub's metadata.

    Args:
        name: ``architecture.tag``.
        entry: its manifest entry, with a checkpoint.
        repo: ``ORG/NAME`` on the hub, or None where it is not known yet.
        measured: figures that the publisher measured, title to value with its unit.
        package_url: what pip installs this package from, or None where nobody says.
        section: Markdown that comes after the figures.
    """
    assert entry.checkpoint is not None
    sections = [
        _metadata(entry),
        f'# {name}\n\n{entry.description or name}. Its kernel sizes are {list(entry.kernel_sizes or ())}, its classes '
        f'{entry.num_classes} ({entry.dataset}).',
        _figures(entry, measured),
        *([section] if section else []),
        _usage(name, repo, package_url),
        _hashes(entry),
        _licence(entry),
    ]
    if entry.paper == 'arxiv:1910.03151':
        sections.append(f'## Citation\n\n```bibtex\n{_CITATION}\n```')
    return '\n\n'.join(sections) + '\n'


def _metadata(entry: Entry) -> str:
    lines = ['tags:', '- image-classification', '- timm', '- eca-zoo', 'pipeline_tag: image-classification']
    lines += ['library_name: timm', f'license: {entry.license}']
    if entry.dataset != 'unknown':
        lines += ['datasets:', f'- {entry.dataset}']
    return '\n'.join(['---', *lines, '---'])


def _figures(entry: Entry, measured: Mapping[str, str]) -> str:
    rows = [(title, '', value) for title, value in measured.items()]
    if entry.reported is not None:
        known = {'Top-1': f'{entry.reported.top1:.2f} %', 'Top-5': f'{entry.reported.top5:.2f} %'}
        rows = [(title, value, measured.get(title, '')) for title, value in known.items()]
        rows += [(title, '', value) for title, value in measured.items() if title not in known]
    text = '\n'.join(f'| {title} | {reported} | {value} |' for title, reported, value in rows)
    transform = entry.transform
    note = (
        f'Evaluated at {transform.input_size[1]}x{transform.input_size[2]} pixels, crop {transform.crop_pct}, '
        f'{transform.interpolation}; an empty cell was not measured.'
    )
    if entry.reported is not None:
        note += f' Reported figures: {entry.reported.source}.'
    if entry.notes:
        note += f' {entry.notes}'
    return f'## Figures\n\n| | reported | measured |\n|---|---|---|\n{text}\n\n{note}'


def _usage(name: str, repo: str | None, package_url: str | None) -> str:
    # No package index is named: whoever owned the name there could put anything under it.
    lines = ['import timm', f'import eca_zoo  # {f"pip install {package_url}" if package_url else _FROM_A_CLONE}', '']
    lines.append(f"model = timm.create_model('{name}', pretrained=True)  # checked against the manifest's SHA-256")
    if repo is not None:
        lines.append(f"model = timm.create_model('hf-hub:{repo}', pretrained=True)  # from this page, unchecked")
    return '## Usage\n\n```python\n' + '\n'.join(lines) + '\n```'


def _hashes(entry: Entry) -> str:
    assert entry.checkpoint is not None
    rows = [f'| model.safetensors | {entry.checkpoint.size} | `{entry.checkpoint.sha256}` |']
    before = entry.authors_file
    if before is not None:
        rows.append(f'| {before.file} (before conversion) | {before.size or ""} | {_code(before.sha256)} |')
    return '## Files\n\n| file | bytes | SHA-256 |\n|---|---|---|\n' + '\n'.join(rows)


def _licence(entry: Entry) -> str:
    source = f', as in the repository of the authors ({entry.reported.source})' if entry.reported is not None else ''
    text = f'The weights: {entry.license}{source}. {_TERMS.get(entry.dataset, "")}'
    return f'## Licence\n\n{text.strip()}'


def _code(text: str | None) -> str:
    return f'`{text}`' if text else ''
