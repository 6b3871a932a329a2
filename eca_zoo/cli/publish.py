"""The subcommand of ``eca-zoo`` that publishes checkpoints: on the Hugging Face Hub, or as a folder."""

import argparse
import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eca_zoo.cli.flags import CHECKPOINTS
from eca_zoo.cli.names import add_names, names_in
from eca_zoo.cli.weights import quiet_hub, report_errors

if TYPE_CHECKING:
    from eca_zoo.weights.manifest import Entry, Manifest


def add_commands(subparsers: Any, parents: list[argparse.ArgumentParser]) -> None:
    """Add this module's subcommands."""
    parser = subparsers.add_parser(
        'publish', parents=parents, help='publish checkpoints: on the Hugging Face Hub, or as a folder for a mirror'
    )
    add_names(parser, f'{CHECKPOINTS}; several with --folder alone')
    parser.add_argument('--repo', metavar='ORG/NAME', help='repository on the hub; it is made if need be')
    parser.add_argument('--private', action='store_true', help='make a new repository private')
    parser.add_argument('--folder', type=Path, metavar='DIR', help='write the folder here and stop')
    parser.add_argument(
        '--mirror-url', metavar='URL',
        help='where --folder is served: write the manifest of this mirror too (for ECA_ZOO_MANIFEST)',
    )  # fmt: skip
    parser.add_argument(
        '--results', type=Path, metavar='CSV', help='leaderboard.csv whose row for NAME goes into the model card'
    )
    parser.add_argument('--run-dir', type=Path, metavar='DIR', help='folder of the training that made it, for the card')
    parser.add_argument(
        '--package-url', metavar='URL',
        help='what pip installs this package from, such as git+https://..., for the model card (default: a clone)',
    )  # fmt: skip
    parser.set_defaults(run=_run_publish)


def _run_publish(args: argparse.Namespace) -> int:
    from eca_zoo.errors import InputError
    from eca_zoo.weights.checkpoint_names import expand_checkpoint_names
    from eca_zoo.weights.convert.publish import publish
    from eca_zoo.weights.manifest import load_manifest

    if args.folder is None and args.repo is None:
        raise InputError('publish needs --repo ORG/NAME, or --folder DIR to write the folder alone')
    if args.mirror_url is not None and args.folder is None:
        raise InputError('--mirror-url is where a --folder is served; name the folder')
    manifest = load_manifest()
    given = names_in(args)
    if not given:
        raise InputError('no checkpoint is named; give one, such as eca_resnet50')
    names = expand_checkpoint_names(given, manifest)
    if len(names) != 1 and args.folder is None:
        raise InputError(f'{" ".join(given)}: publish takes one checkpoint, and this means {", ".join(names)}')
    quiet_hub(args)
    if args.folder is not None:
        return _write_folders(args, manifest, names)
    name = names[0]
    about = _about(args, name, manifest.models[name])
    result = publish(name, manifest.models[name], args.repo, args.private, **about)
    print(f'# {name}: {result.repo}, commit {result.commit}, {result.size} bytes, SHA-256 {result.sha256}')
    print('# To publish it with the package, put this in the place of its entry in weights_manifest.yaml:')
    print(result.manifest_text, end='')
    return 0


def _write_folders(args: argparse.Namespace, manifest: 'Manifest', names: list[str]) -> int:
    """Write a folder for each checkpoint, and for a mirror its manifest; one that fails does not stop the others."""
    from eca_zoo.errors import EcaZooError
    from eca_zoo.weights.convert.mirror import mirror_source, write_mirror_manifest
    from eca_zoo.weights.convert.publish import write_hub_folder
    from eca_zoo.weights.errors import ConvertNeededError

    are_all = 'all' in names_in(args)
    alone = len(names) == 1 and args.mirror_url is None and not are_all
    if args.mirror_url is not None:
        mirror_source(args.mirror_url, names[0])
    absent = [name for name in manifest.models if name not in names] if are_all else []
    written: dict[str, Any] = {}
    errors: list[Exception] = []
    for name in [*names, *absent]:
        entry, folder = manifest.models[name], args.folder if alone else args.folder / name
        try:
            checkpoint = write_hub_folder(name, entry, folder, args.repo, **_about(args, name, entry))
        except ConvertNeededError as error:
            if len(names) == 1 and not are_all:
                raise
            print(f'{name}  skipped  {error.remedy}')
        except EcaZooError as error:
            errors.append(error)
        else:
            written[name] = entry
            print(f'{name}: {folder} ({checkpoint.size} bytes, SHA-256 {checkpoint.sha256})')
    if args.mirror_url is not None and written:
        path = write_mirror_manifest(args.folder, written, args.mirror_url)
        print(f'{path}: the manifest of this mirror; ECA_ZOO_MANIFEST names it, or a copy of it, on the machines')
    return report_errors('publish', errors, args.debug)


def _about(args: argparse.Namespace, name: str, entry: 'Entry') -> dict[str, Any]:
    """What the model card says besides: figures, where the package is from, and the training."""
    about = {'measured': _measured_figures(name, args.results), 'package_url': args.package_url}
    if args.run_dir is None:
        return about
    from eca_zoo.training.record.card import training_card

    card = training_card(args.run_dir, entry.authors_file.sha256 if entry.authors_file is not None else None)
    return {**about, 'measured': card.figures | about['measured'], 'section': card.section, 'picture': card.curves}


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
