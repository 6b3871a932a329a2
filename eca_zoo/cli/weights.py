"""The subcommands of ``eca-zoo`` for weights: convert, fetch, verify, list and publish."""

import argparse
import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_COLUMNS = ('model', 'params', 'gmacs', 'reported_top1', 'reported_box_ap', 'reported_mask_ap', 'status')


def add_commands(subparsers: Any, parents: list[argparse.ArgumentParser]) -> None:
    """Add this module's subcommands."""
    _add_convert(subparsers, parents)
    _add_fetch(subparsers, parents)
    _add_verify(subparsers, parents)
    _add_list(subparsers, parents)
    _add_publish(subparsers, parents)


def _add_convert(subparsers: Any, parents: list[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        'convert', parents=parents, help="convert the authors' checkpoint to verified safetensors"
    )
    parser.add_argument('file', type=Path, metavar='FILE', help='checkpoint, such as eca_resnet50_k3557.pth.tar')
    parser.add_argument(
        '--model', metavar='NAME', help='architecture that it must hold, or architecture.tag to record it under'
    )
    parser.add_argument('--out', type=Path, metavar='DIR', help='also write the hub-ready folder here')
    parser.set_defaults(run=_run_convert)


def _run_convert(args: argparse.Namespace) -> int:
    from eca_zoo.weights.convert.conversion import convert

    result = convert(args.file, args.model, args.out)
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
    parser.add_argument(
        'names', nargs='+', metavar='NAME', help="checkpoint, architecture, pattern such as 'eca_*', or all"
    )
    parser.add_argument('--offline', action='store_true', help='use what is here; HF_HUB_OFFLINE=1 does the same')
    parser.add_argument(
        '--from-authors', action='store_true', help="download the authors' file from Google Drive and convert it"
    )
    parser.add_argument('--yes', '-y', action='store_true', help='trust the first copy of a file without being asked')
    parser.add_argument('--jobs', '-j', type=_positive, default=4, metavar='N', help='downloads at a time (default: 4)')
    parser.set_defaults(run=_run_fetch)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'must be at least 1, not {value}')
    return value


def _run_fetch(args: argparse.Namespace) -> int:
    from tqdm.auto import tqdm

    from eca_zoo.weights.checkpoint_names import expand_checkpoint_names
    from eca_zoo.weights.manifest import load_manifest
    from eca_zoo.weights.sources.copies import copies_on_disk
    from eca_zoo.weights.sources.fetch import fetch_many

    _quiet_hub(args)
    manifest = load_manifest()
    entries = {name: manifest.models[name] for name in expand_checkpoint_names(args.names, manifest)}
    if args.from_authors:
        return _fetch_from_authors(entries, args)
    absent = [e.checkpoint for n, e in entries.items() if e.checkpoint and not copies_on_disk(n, e.checkpoint)]
    total = sum(checkpoint.size for checkpoint in absent)
    with tqdm(total=total, unit='B', unit_scale=True, desc='fetch', disable=None if total else True) as bar:
        lock = bar.get_lock()

        def progress(count: int) -> None:
            with lock:
                bar.update(count)

        results = fetch_many(entries, offline=args.offline, workers=args.jobs, progress=progress)
    for result in results:
        if result.error is None:
            print(f'{result.name}  {"was here" if result.was_here else "fetched"}  {result.path}')
    return _report_errors('fetch', [result.error for result in results if result.error is not None], args.debug)


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
    return _report_errors('fetch', errors, args.debug)


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


def _quiet_hub(args: argparse.Namespace) -> None:
    """Let the hub's client log its retries only where the user asked for a log, and show progress on a terminal."""
    from huggingface_hub.utils import disable_progress_bars
    from huggingface_hub.utils import logging as hub_logging

    if not _is_terminal():
        disable_progress_bars()
    (hub_logging.set_verbosity_warning if args.verbose else hub_logging.set_verbosity_error)()


def _report_errors(command: str, errors: Sequence[Any], debug: bool) -> int:
    """Print one line an error; the exit code is 1 if a run failed, 2 if all is wrong input, 0 without any."""
    if debug and errors:
        raise errors[0]
    for error in errors:
        print(f'eca-zoo {command}: error: {error}', file=sys.stderr)
    return min((error.exit_code for error in errors), default=0)


def _add_verify(subparsers: Any, parents: list[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser('verify', parents=parents, help='check the checkpoints on this machine')
    parser.add_argument('names', nargs='*', metavar='NAME', help='as for fetch (default: all that are here)')
    parser.set_defaults(run=_run_verify)


def _run_verify(args: argparse.Namespace) -> int:
    from eca_zoo.errors import InputError
    from eca_zoo.weights.checkpoint_names import expand_checkpoint_names
    from eca_zoo.weights.errors import convert_needed
    from eca_zoo.weights.manifest import load_manifest
    from eca_zoo.weights.verify import verify

    manifest = load_manifest()
    errors: list[Exception] = []
    for name in expand_checkpoint_names(args.names or ['all'], manifest):
        files = verify(name, manifest.models[name])
        for file in files:
            if file.error is None:
                print(f'{name}  ok  {file.path}')
            else:
                errors.append(file.error)
        if not files and args.names:
            entry = manifest.models[name]
            absent = InputError(f'{name} is not on this machine; to get it run: eca-zoo fetch {name}')
            errors.append(absent if entry.checkpoint is not None else convert_needed(name, entry))
    return _report_errors('verify', errors, args.debug)


def _add_list(subparsers: Any, parents: list[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser('list', parents=parents, help='list the checkpoints')
    parser.add_argument('pattern', nargs='?', default='*', metavar='PATTERN', help="such as 'eca_resnet*'")
    parser.add_argument('--format', choices=('table', 'csv', 'json'), default='table')
    parser.set_defaults(run=_run_list)


def _run_list(args: argparse.Namespace) -> int:
    rows = _list_rows(args.pattern)
    if args.format == 'json':
        print(json.dumps(rows, indent=2))
    elif args.format == 'csv':
        writer = csv.DictWriter(sys.stdout, _COLUMNS, lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)
    else:
        _print_table(rows)
    return 0


def _list_rows(pattern: str) -> list[dict[str, Any]]:
    """The columns of ``_COLUMNS`` for each checkpoint; ``gmacs`` are 10^9 multiply-adds, reported figures percent."""
    from eca_zoo.weights.checkpoint_names import expand_checkpoint_names
    from eca_zoo.weights.manifest import load_manifest
    from eca_zoo.weights.sources.copies import copies_on_disk

    manifest, rows = load_manifest(), []
    for name in expand_checkpoint_names([pattern], manifest):
        entry = manifest.models[name]
        counts = _complexity(name, entry)
        status = 'convert needed'
        if entry.checkpoint is not None:
            status = 'here' if copies_on_disk(name, entry.checkpoint) else 'fetchable'
        reported = entry.reported
        top1 = reported.top1 if reported is not None else None
        box, mask = (figures and figures.ap for figures in (reported and reported.box, reported and reported.mask))
        cells = (name, counts.params, round(counts.macs / 1e9, 3), top1, box, mask, status)
        rows.append(dict(zip(_COLUMNS, cells, strict=True)))
    return rows


def _complexity(name: str, entry: Any) -> Any:
    """Counts of a network at its own size, or of a detector at that of its authors' table."""
    from eca_zoo.detection.complexity import detector_complexity
    from eca_zoo.harness.networks.complexity import complexity

    return detector_complexity(name) if entry.is_detector else complexity(name)


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


def _add_publish(subparsers: Any, parents: list[argparse.ArgumentParser]) -> None:
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
    _quiet_hub(args)
    measured = _measured_figures(name, manifest.models[name], args.results)
    if args.folder is not None:
        checkpoint = write_hub_folder(name, manifest.models[name], args.folder, args.repo, measured)
        print(f'{name}: {args.folder} ({checkpoint.size} bytes, SHA-256 {checkpoint.sha256})')
        return 0
    result = publish(name, manifest.models[name], args.repo, args.private, measured)
    print(f'# {name}: {result.repo}, commit {result.commit}, {result.size} bytes, SHA-256 {result.sha256}')
    print('# To publish it with the package, put this in the place of its entry in weights_manifest.yaml:')
    print(result.manifest_text, end='')
    return 0


def _measured_figures(name: str, entry: Any, results: Path | None) -> dict[str, str]:
    """Figures for the model card: complexity, which is counted now, and accuracy from a ``leaderboard.csv``."""
    counts = _complexity(name, entry)
    side = 'x'.join(map(str, counts.image_size if entry.is_detector else counts.input_size[1:]))
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
