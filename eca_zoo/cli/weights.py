"""The subcommands of ``eca-zoo`` for weights: convert, fetch, verify and list."""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eca_zoo.cli.logs import complain
from eca_zoo.cli.names import add_names, names_in

if TYPE_CHECKING:
    from eca_zoo.weights.manifest import Entry

from eca_zoo.cli.flags import CHECKPOINTS, add_setting

_COLUMNS = ('model', 'params', 'gmacs', 'reported_top1', 'reported_box_ap', 'reported_mask_ap', 'status')


def add_commands(subparsers: Any, parents: list[argparse.ArgumentParser]) -> None:
    """Add this module's subcommands."""
    _add_convert(subparsers, parents)
    _add_fetch(subparsers, parents)
    _add_verify(subparsers, parents)
    _add_list(subparsers, parents)


def _add_convert(subparsers: Any, parents: list[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        'convert', parents=parents, help="convert the authors' checkpoint to verified safetensors"
    )
    parser.add_argument('file', type=Path, metavar='FILE', help='checkpoint, such as eca_resnet50_k3557.pth.tar')
    parser.add_argument(
        '--model', metavar='NAME', help='architecture that it must hold, or architecture.tag to record it under'
    )
    add_setting(parser, 'folder', type=Path, metavar='DIR', help='also write the hub-ready folder here')
    parser.set_defaults(run=_run_convert)


def _run_convert(args: argparse.Namespace) -> int:
    from eca_zoo.weights.convert.conversion import convert

    result = convert(args.file, args.model, args.folder)
    print(f'{result.name}: kernel sizes {list(result.kernel_sizes)}, {result.num_classes} classes')
    print(f'  from  {args.file} ({result.source_size} bytes, SHA-256 {result.source_sha256})')
    print(f'  to    {result.folder}')
    print(f'        model.safetensors ({result.size} bytes, SHA-256 {result.sha256})')
    make = 'eca_zoo.detection.create_detector' if result.is_detector else 'timm.create_model'
    print(f"  use   {make}('{result.name}', pretrained=True) after import eca_zoo")
    return 0


def _add_fetch(subparsers: Any, parents: list[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        'fetch', parents=parents, help='fetch checkpoints whose hash is known, or repair them'
    )
    add_names(parser, CHECKPOINTS)
    parser.add_argument('--offline', action='store_true', help='use what is here; HF_HUB_OFFLINE=1 does the same')
    parser.add_argument(
        '--from-authors', action='store_true', help="download the authors' file from Google Drive and convert it"
    )
    parser.add_argument('--yes', '-y', action='store_true', help='trust the first copy of a file without being asked')
    add_setting(parser, 'downloads', type=_positive, default=4, metavar='N', help='downloads at a time (default: 4)')
    parser.add_argument('-j', dest='downloads', type=_positive, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.set_defaults(run=_run_fetch)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'must be at least 1, not {value}')
    return value


def _run_fetch(args: argparse.Namespace) -> int:
    from tqdm.auto import tqdm

    from eca_zoo.errors import InputError
    from eca_zoo.weights.checkpoint_names import expand_checkpoint_names
    from eca_zoo.weights.errors import convert_needed
    from eca_zoo.weights.manifest import load_manifest
    from eca_zoo.weights.sources.copies import copies_on_disk
    from eca_zoo.weights.sources.fetch import fetch_many

    quiet_hub(args)
    names = names_in(args)
    if not names:
        raise InputError('no checkpoint is named; give at least one, such as eca_resnet50, or all')
    manifest = load_manifest()
    entries = {name: manifest.models[name] for name in expand_checkpoint_names(names, manifest)}
    skipped = [name for name in manifest.models if name not in entries] if 'all' in names else []
    if args.from_authors:
        return _fetch_from_authors(entries, args)
    absent = [e.checkpoint for n, e in entries.items() if e.checkpoint and not copies_on_disk(n, e.checkpoint)]
    total = sum(checkpoint.size for checkpoint in absent)
    with tqdm(total=total, unit='B', unit_scale=True, desc='fetch', disable=None if total else True) as bar:
        lock = bar.get_lock()

        def progress(count: int) -> None:
            with lock:
                bar.update(count)

        results = fetch_many(entries, offline=args.offline, workers=args.downloads, progress=progress)
    for result in results:
        if result.error is None:
            print(f'{result.name}  {"was here" if result.was_here else "fetched"}  {result.path}')
    for name in skipped:
        print(f'{name}  skipped  {convert_needed(name, manifest.models[name]).remedy}')
    return report_errors('fetch', [result.error for result in results if result.error is not None], args.debug)


def _fetch_from_authors(entries: dict[str, Any], args: argparse.Namespace) -> int:
    from eca_zoo.errors import EcaZooError, InputError
    from eca_zoo.weights.convert.from_authors import convert_from_authors

    if args.offline:
        raise InputError('--from-authors needs a connection; leave --offline out')
    errors: list[Exception] = []
    for name, entry in entries.items():
        try:
            result = convert_from_authors(
                name, entry, lambda text: _agrees(text, args.yes), show_progress=_is_terminal()
            )
            print(f'{name}  converted  {result.folder}')
            print(f"  authors' file SHA-256 {result.source_sha256}, converted SHA-256 {result.sha256}")
        except EcaZooError as error:
            errors.append(error)
    return report_errors('fetch', errors, args.debug)


def _agrees(question: str, yes: bool) -> bool:
    """Whether the user agrees; without a terminal only ``--yes`` does."""
    if yes:
        print(question.removesuffix(' Download it?'), file=sys.stderr)
        return True
    if not sys.stdin.isatty():
        return False
    return input(f'{question} [y/N] ').strip().lower() in ('y', 'yes')


def _is_terminal() -> bool:
    return sys.stderr.isatty()


def quiet_hub(args: argparse.Namespace) -> None:
    """Let the hub's client log its retries only where the user asked for a log, and show progress on a terminal."""
    from huggingface_hub.utils import disable_progress_bars
    from huggingface_hub.utils import logging as hub_logging

    if not _is_terminal():
        disable_progress_bars()
    (hub_logging.set_verbosity_warning if args.verbose else hub_logging.set_verbosity_error)()


def report_errors(command: str, errors: Sequence[Any], debug: bool) -> int:
    """Print one line an error; the exit code is 1 if a run failed, 2 if all is wrong input, 0 without any."""
    if debug and errors:
        raise errors[0]
    for error in errors:
        complain(f'eca-zoo {command}: error: {error}')
    return min((error.exit_code for error in errors), default=0)


def _add_verify(subparsers: Any, parents: list[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser('verify', parents=parents, help='check the checkpoints on this machine')
    add_names(parser, f'{CHECKPOINTS} (default: all that are here)')
    parser.add_argument('--format', choices=('text', 'json'), default='text', help='default: text')
    parser.set_defaults(run=_run_verify)


def _run_verify(args: argparse.Namespace) -> int:
    from eca_zoo.errors import InputError
    from eca_zoo.weights.checkpoint_names import expand_checkpoint_names
    from eca_zoo.weights.errors import convert_needed
    from eca_zoo.weights.manifest import load_manifest
    from eca_zoo.weights.verify import verify

    manifest = load_manifest()
    rows: list[dict[str, Any]] = []
    errors: list[Exception] = []
    names = names_in(args)
    for name in expand_checkpoint_names(names or ['all'], manifest):
        entry = manifest.models[name]
        found: list[tuple[Path | None, Exception | None]] = [(file.path, file.error) for file in verify(name, entry)]
        if not found and names:
            absent = InputError(f'{name} is not on this machine; to get it run: eca-zoo fetch {name}')
            found = [(None, absent if entry.checkpoint is not None else convert_needed(name, entry))]
        for path, error in found:
            rows.append(_verified_row(name, entry, path, error))
            if error is None and args.format == 'text':
                print(f'{name}  ok  {path}')
        errors += [error for _, error in found if error is not None]
    if args.format == 'json':
        print(json.dumps(rows, indent=2))
    return report_errors('verify', errors, args.debug)


def _verified_row(name: str, entry: 'Entry', path: Path | None, error: Exception | None) -> dict[str, Any]:
    """One file that was verified, as JSON; ``size`` in bytes and ``sha256`` are those that it must have."""
    checkpoint = entry.checkpoint
    return {
        'model': name,
        'path': None if path is None else str(path),
        'ok': error is None,
        'size': None if checkpoint is None else checkpoint.size,
        'sha256': None if checkpoint is None else checkpoint.sha256,
        'error': None if error is None else str(error),
    }


def _add_list(subparsers: Any, parents: list[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser('list', parents=parents, help='list the checkpoints')
    add_names(parser, f'{CHECKPOINTS} (default: all of them)', 'PATTERN')
    parser.add_argument('--format', choices=('table', 'csv', 'json'), default='table')
    parser.set_defaults(run=_run_list)


def _run_list(args: argparse.Namespace) -> int:
    rows = _list_rows(names_in(args) or ['*'])
    if args.format == 'json':
        print(json.dumps(rows, indent=2))
    elif args.format == 'csv':
        writer = csv.DictWriter(sys.stdout, _COLUMNS, lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)
    else:
        _print_table(rows)
    return 0


def _list_rows(patterns: Sequence[str]) -> list[dict[str, Any]]:
    """The columns of ``_COLUMNS`` for each checkpoint; ``gmacs`` are 10^9 multiply-adds, reported figures percent."""
    from eca_zoo.weights.checkpoint_names import expand_checkpoint_names
    from eca_zoo.weights.manifest import load_manifest
    from eca_zoo.weights.sources.copies import condition_on_disk

    manifest, rows = load_manifest(), []
    # Registering the networks warns of a manifest that is refused, which the line above has said by then.
    from eca_zoo.detection.complexity import complexity_of_checkpoint

    for name in expand_checkpoint_names(patterns, manifest):
        entry = manifest.models[name]
        counts = complexity_of_checkpoint(name, entry)
        status = 'convert needed'
        if entry.checkpoint is not None:
            status = condition_on_disk(name, entry.checkpoint) or 'fetchable'
        reported = entry.reported
        top1 = reported.top1 if reported is not None else None
        box, mask = (figures and figures.ap for figures in (reported and reported.box, reported and reported.mask))
        cells = (name, counts.params, round(counts.macs / 1e9, 3), top1, box, mask, status)
        rows.append(dict(zip(_COLUMNS, cells, strict=True)))
    return rows


def _print_table(rows: list[dict[str, Any]]) -> None:
    cells = [list(_COLUMNS)] + [['-' if row[key] is None else _cell(row[key]) for key in _COLUMNS] for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_COLUMNS))]
    for line in cells:
        first, *numbers, last = (
            cell.rjust(width) if 0 < column < len(_COLUMNS) - 1 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        print('  '.join([first, *numbers, last]).rstrip())


def _cell(value: Any) -> str:
    return f'{value:,}' if isinstance(value, int) else str(value)
