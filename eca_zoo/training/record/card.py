"""What a model card says of the training: recipe, what was overridden, data, figures, curves."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eca_zoo.errors import InputError
from eca_zoo.files import read_text


@dataclass(frozen=True)
class TrainingCard:
    """A training for a model card: a section in Markdown, figures by title, and the picture that the section shows."""

    section: str
    figures: dict[str, str]
    curves: bytes | None


def training_card(run: Path, source_sha256: str | None) -> TrainingCard:
    """What to say of a run.

    Args:
        run: its folder.
        source_sha256: of the file that the checkpoint was converted from; the run must have written it.

    Raises:
        InputError: the folder holds no run, or the checkpoint is not of it.
    """
    try:
        record = json.loads(read_text(run / 'run.json'))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f'{run}: it holds no training run: {error}; name the --run-dir of eca-zoo train') from None
    written = {path.name: text.partition(' ')[0] for path, text in _hashes(run)}
    name = next((name for name, sha256 in written.items() if sha256 == source_sha256), None)
    if source_sha256 is None or name is None:
        raise InputError(f'{run}: the checkpoint was not made by this run; convert its best.safetensors first')
    best = record['best'] if name == 'best.safetensors.sha256' else {}
    curves = run / 'curves.svg'
    return TrainingCard(
        _section(record, name.removesuffix('.sha256'), curves.exists()),
        _figures(best),
        curves.read_bytes() if curves.exists() else None,
    )


def _hashes(run: Path) -> list[tuple[Path, str]]:
    files = sorted(run.glob('*.safetensors.sha256'))
    return [(path, read_text(path)) for path in files if not path.name.startswith('state')]


def _figures(best: dict[str, Any]) -> dict[str, str]:
    figures = {}
    for title, column in (('Top-1', 'top1'), ('Top-5', 'top5')):
        value = best.get(f'ema_{column}', best.get(column))
        if value is not None:
            figures[title] = f'{value:.2f} %'
    for title, column in (('Box AP', 'box_ap'), ('Mask AP', 'mask_ap')):
        value = best.get(f'ema_{column}', best.get(column))
        if value is not None:
            figures[title] = f'{100 * value:.1f}'
    if best.get('num_images'):
        figures['Images'] = f'{best["num_images"]} of the validation split'
    return figures


def _section(record: dict[str, Any], file: str, with_curves: bool) -> str:
    train = record['identity']['data']['train']
    overridden = ', '.join(f'`{key}: {value}`' for key, value in record['overridden'].items()) or 'nothing'
    lines = [
        '## Training',
        '',
        f'`{file}` of the recipe `{record["recipe"]}` of eca-zoo, {record["epochs"]} epochs, {record["steps"]} steps; '
        f'overridden: {overridden}.',
        f'Data: {train["name"]}, {train["images"]} training images, fingerprint `{train["fingerprint"]}`.',
    ]
    if record['changes']:
        steps = ', '.join(f'step {change["step"]}: {"; ".join(change["changes"])}' for change in record['changes'])
        lines.append(f'Changed on the way: {steps}.')
    if with_curves:
        lines += ['', '![loss, accuracy and learning rate](curves.svg)']
    return '\n'.join(lines)
