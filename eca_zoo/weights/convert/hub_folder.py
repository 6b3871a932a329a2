"""The folder that timm and the Hugging Face Hub understand: safetensors, a config, and a model card."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from timm.models._hub import save_config_for_hf

from eca_zoo.errors import InputError
from eca_zoo.files import encode_text, storage_error, write_atomically
from eca_zoo.weights.convert.built import build_on_meta
from eca_zoo.weights.manifest import Entry
from eca_zoo.weights.reported import Reported

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


def hub_config(name: str, entry: Entry) -> bytes:
    """``config.json`` of a checkpoint: timm's with kernel sizes, and for a detector what ``create_detector`` takes."""
    architecture, tag = name.split('.', 1)
    if entry.resize is not None:
        fields = {
            'architecture': architecture, 'tag': tag, 'num_classes': entry.num_classes, 'categories': entry.categories,
            'kernel_sizes': entry.kernel_sizes, **msgspec.structs.asdict(entry.resize), 'license': entry.license,
            'description': entry.description, 'paper_ids': entry.paper,
            'origin_url': entry.reported.source if entry.reported else None,
        }  # fmt: skip
        return json.dumps({key: value for key, value in fields.items() if value is not None}, indent=2).encode() + b'\n'
    network = build_on_meta(architecture, entry.num_classes, entry.kernel_sizes)
    cfg = dict(network.pretrained_cfg)
    cfg.update(msgspec.structs.asdict(entry.image_transform), num_classes=entry.num_classes, tag=tag)
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
        _usage(name, entry, repo, package_url),
        _hashes(entry),
        _licence(entry),
    ]
    if entry.paper == 'arxiv:1910.03151':
        sections.append(f'## Citation\n\n```bibtex\n{_CITATION}\n```')
    return '\n\n'.join(sections) + '\n'


def _metadata(entry: Entry) -> str:
    masks = entry.reported is not None and entry.reported.mask is not None
    if entry.is_detector:
        tasks, task, library = ['object-detection', *['instance-segmentation'] * masks], 'object-detection', 'eca-zoo'
    else:
        tasks, task, library = ['image-classification', 'timm'], 'image-classification', 'timm'
    lines = ['tags:', *(f'- {tag}' for tag in [*tasks, 'eca-zoo']), f'pipeline_tag: {task}']
    lines += [f'library_name: {library}', f'license: {entry.license}']
    if entry.dataset != 'unknown':
        lines += ['datasets:', f'- {entry.dataset}']
    return '\n'.join(['---', *lines, '---'])


def _figures(entry: Entry, measured: Mapping[str, str]) -> str:
    rows = [(title, '', value) for title, value in measured.items()]
    if entry.reported is not None:
        known = _reported_figures(entry.reported)
        rows = [(title, value, measured.get(title, '')) for title, value in known.items()]
        rows += [(title, '', value) for title, value in measured.items() if title not in known]
    text = '\n'.join(f'| {title} | {reported} | {value} |' for title, reported, value in rows)
    note = f'{_evaluated_at(entry)}; an empty cell was not measured.'
    if entry.reported is not None:
        note += f' Reported figures: {entry.reported.source}.'
    if entry.notes:
        note += f' {entry.notes}'
    return f'## Figures\n\n| | reported | measured |\n|---|---|---|\n{text}\n\n{note}'


def _reported_figures(reported: Reported) -> dict[str, str]:
    """Title to value with unit, for each figure that the authors reported."""
    if reported.top1 is not None:
        return {'Top-1': f'{reported.top1:.2f} %', 'Top-5': f'{reported.top5:.2f} %'}
    titles = {'ap': 'AP', 'ap50': 'AP50', 'ap75': 'AP75', 'ap_small': 'AP small', 'ap_medium': 'AP medium',
              'ap_large': 'AP large'}  # fmt: skip
    return {
        f'{kind} {title}': f'{getattr(figures, key):.1f} %'
        for kind, figures in (('Box', reported.box), ('Mask', reported.mask))
        if figures is not None
        for key, title in titles.items()
    }


def _evaluated_at(entry: Entry) -> str:
    if entry.resize is not None:
        return (
            f'Evaluated with a shorter side of {entry.resize.shorter} pixels and a longer one of at most '
            f'{entry.resize.longest}, bilinear'
        )
    transform = entry.image_transform
    return (
        f'Evaluated at {transform.input_size[1]}x{transform.input_size[2]} pixels, crop {transform.crop_pct}, '
        f'{transform.interpolation}'
    )


def _usage(name: str, entry: Entry, repo: str | None, package_url: str | None) -> str:
    # No package index is named: whoever owned the name there could put anything under it.
    source = f'pip install {package_url}' if package_url else _FROM_A_CLONE
    if entry.is_detector:
        lines = [f'import eca_zoo.detection  # {source}', '']
        lines += [
            "# The weights are checked against the manifest's SHA-256.",
            f"detector = eca_zoo.detection.create_detector('{name}', pretrained=True)",
            "detections = detector.predict('image.jpg')",
        ]
        return '## Usage\n\n```python\n' + '\n'.join(lines) + '\n```'
    lines = ['import timm', f'import eca_zoo  # {source}', '']
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
