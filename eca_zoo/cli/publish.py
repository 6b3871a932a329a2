"""The subcommand of ``eca-zoo`` that publishes checkpoints: on the Hugging Face Hub, or as a folder."""

import argparse
import csv
import io
from pathlib import Path
from typing import Any

from eca_zoo.cli.weights import quiet_hub


def add_commands(subparsers: Any, parents: list[argparse.ArgumentParser]) -> None:
    """Add this module's subcommands."""
    parser = subparsers.add_parser('publish', parents=parents, help='publish a checkpoint on the Hugging Face Hub')
    parser.add_argument('name', metavar='NAME', help='checkpoint or architecture')
    parser.add_argument('--repo', metavar='ORG/NAME', help='repository on the hub; it is made if need be')
    parser.add_argument('--private', action='store_true', help='make a new repository private')
    parser.add_argument('--folder', type=Path, metavar='DIR', help='write the folder here and stop')
    parser.add_argument(
        '--results', type=Path, metavar='CSV', help='leaderboard.csv whose row for NAME goes into the model card'
    )
    parser.set_defaults(run=_run_publish)


def _run_publish(args: argparse.Namespace) -> int:
    from eca_zoo.errors import InputError
    from eca_zoo.weights.checkpoint_names import expand_checkpoint_names
    from eca_zoo.weights.convert.publish import publish, write_hub_folder
    from eca_zoo.weights.manifest import load_manifest

    if args.folder is None and args.repo is None:
        raise InputError('publish needs --repo ORG/NAME, or --folder DIR to write the folder alone')
    manifest = load_manifest()
    names = expand_checkpoint_names([args.name], manifest)
    if len(names) != 1:
        raise InputError(f'{args.name}: publish takes one checkpoint, and this means {", ".join(names)}')
    name = names[0]
    quiet_hub(args)
    measured = _measured_figures(name, args.results)
    if args.folder is not None:
        checkpoint = write_hub_folder(name, manifest.models[name], args.folder, args.repo, measured)
        print(f'{name}: {args.folder} ({checkpoint.size} bytes, SHA-256 {checkpoint.sha256})')
        return 0
    result = publish(name, manifest.models[name], args.repo, args.private, measured)
    print(f'# {name}: {result.repo}, commit {result.commit}, {result.size} bytes, SHA-256 {result.sha256}')
    print('# To publish it with the package, put this in the place of its entry in weights_manifest.yaml:')
    print(result.manifest_text, end='')
    return 0


def _measured_figures(name: str, results: Path | None) -> dict[str, str]:
    """Figures for the model card: complexity, which is counted now, and accuracy from a ``leaderboard.csv``."""
    from eca_zoo.harness.networks.complexity import complexity

    counts = complexity(name)
    side = 'x'.join(map(str, counts.input_size[1:]))
    figures = {'Parameters': f'{counts.params:,}', f'Multiply-adds at {side}': f'{counts.macs / 1e9:.3f} G'}
    if results is None:
        return figures
    row = _results_row(name, results)
    for title, column in (('Top-1', 'top1'), ('Top-5', 'top5')):
        if row.get(column):
            figures[title] = f'{row[column]} %'
    if row.get('num_images'):
        figures['Images'] = f'{row["num_images"]} of {row.get("dataset") or "a data set that the table does not name"}'
    return figures


def _results_row(name: str, results: Path) -> dict[str, str]:
    from eca_zoo.errors import InputError
    from eca_zoo.files import read_text

    try:
        lines = csv.DictReader(io.StringIO(read_text(results)))
        rows = [row for row in lines if row.get('model') in (name, name.split('.', 1)[0])]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f'{results}: cannot read the results: {error}') from None
    if not rows:
        raise InputError(f'{results}: it has no row for {name}; run: eca-zoo validate --model {name}')
    return rows[0]
