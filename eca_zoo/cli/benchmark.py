"""The subcommand of ``eca-zoo`` that measures complexity and throughput."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eca_zoo.cli.collector import collect_as_usual
from eca_zoo.cli.flags import NAMES, KeyValues, add_compile, add_running, add_setting
from eca_zoo.cli.logs import complain
from eca_zoo.cli.names import add_names, names_in

if TYPE_CHECKING:
    import pandas as pd

_EPILOG = """\
Flags have the names of timm's benchmark.py. Without a counterpart: --opt and what belongs to it (training steps use
SGD with momentum 0.9), --torchscript, --aot-autograd, --fuser (outdated in PyTorch), --detail, --fast-norm,
--gp, --grad-checkpointing, --drop* (use --model-kwargs), --input-size, --use-train-size (use --img-size),
--num-bench-iter (use --rounds and --round-seconds), --no-retry.
"""


def add_commands(subparsers: Any, parents: list[argparse.ArgumentParser]) -> None:
    """Add this module's subcommands."""
    parser = subparsers.add_parser(
        'benchmark',
        parents=parents,
        help='complexity and throughput of networks, timed in turn',
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_flags(parser)
    parser.add_argument(
        '--baseline', metavar='MODEL',
        help="time this network too and give ratios to it; plain: to each network's own counterpart without ECA layers",
    )  # fmt: skip
    parser.add_argument(
        '--bench',
        choices=('inference', 'train', 'both', 'profile'),
        default='inference',
        help='what to time; profile: nothing, complexity alone (default: inference)',
    )
    parser.add_argument('--train', dest='bench', action='store_const', const='train', help='same as --bench train')
    add_throughput_flags(parser)
    parser.add_argument(
        '--results-file', type=Path, metavar='FILE', help='write the table here: .csv, .json, .md or .parquet'
    )
    parser.add_argument(
        '--results-format', choices=('csv', 'json', 'md', 'parquet'), help='of a file whose name does not end in one'
    )
    parser.set_defaults(run=_run, default_of=parser.get_default)


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that name networks."""
    add_names(parser, NAMES)
    parser.add_argument('--model-list', type=Path, metavar='FILE', help='text file with one name or pattern a line')
    parser.add_argument(
        '--model-kwargs', metavar='KEY=VALUE', nargs='*', action=KeyValues, default={}, help='of their entry points'
    )
    parser.add_argument('--num-classes', type=int, metavar='N', help='classes of the networks (default: their own)')
    parser.add_argument('--in-chans', type=int, metavar='N', help='channels of the images (default: their own)')


def add_throughput_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that say how a throughput is measured."""
    add_running(parser)
    add_compile(parser)
    parser.add_argument(
        '--img-size', type=int, metavar='N',
        help="height and width (default: each network's own; with --baseline, the first network's for all)",
    )  # fmt: skip
    parser.add_argument(
        '--precision', nargs='+', metavar='P',
        help='fp32, tf32, fp16, bf16, amp, amp_bf16; several give a row each (default: fp32, which is exact; what '
        "timm's scripts call float32 on CUDA is tf32)",
    )  # fmt: skip
    parser.add_argument(
        '--backend', nargs='+', default=['torch'], metavar='B',
        help='torch, onnxruntime or openvino; several give a row each (default: torch)',
    )  # fmt: skip
    parser.add_argument('--rounds', type=int, default=10, metavar='N', help='turns of each network (default: 10)')
    parser.add_argument(
        '--rounds-per-process', type=int, default=2, metavar='N',
        help='on the CPU, go on in a new process after N rounds, since memory is laid out anew in each and moves the '
        'speed (default: 2; 0: one process)',
    )  # fmt: skip
    parser.add_argument('--round-seconds', type=float, default=0.5, metavar='S', help='length of one (default: 0.5)')
    add_setting(parser, 'warmup_steps', type=int, default=5, metavar='N', help='untimed steps first (default: 5)')
    parser.add_argument('--threads', type=int, metavar='N', help="of the CPU (default: PyTorch's choice)")
    parser.add_argument(
        '--keep-freed-memory', action='store_true',
        help='on the CPU, in processes whose C library keeps the memory of freed tensors (see benchmark/README.md)',
    )  # fmt: skip


def _run(args: argparse.Namespace) -> int:
    from eca_zoo.cli.detectors import benchmark as of_detectors
    from eca_zoo.errors import EcaZooError
    from eca_zoo.harness.resume.signals import terminated_as_interrupted
    from eca_zoo.harness.table.text import to_text

    if of_detectors.are_detectors(args):
        return of_detectors.run(args)
    try:
        with terminated_as_interrupted():
            table = _measured(args)
    except EcaZooError as error:
        if error.measured is not None:
            print(to_text(error.measured), flush=True)
        raise
    print(to_text(table))
    if args.results_file:
        print(f'The table is in {args.results_file}', flush=True)
    failed = table.dropna(subset='error')
    for model, reason in failed[['model', 'error']].itertuples(index=False):
        complain(f'eca-zoo benchmark: failed: {model}: {reason}')
    return 0 if failed.empty else 1


def _measured(args: argparse.Namespace) -> 'pd.DataFrame':
    from eca_zoo.api import benchmark
    from eca_zoo.models.patterns import read_names

    collect_as_usual()
    return benchmark(
        [*names_in(args), *(read_names(args.model_list) if args.model_list else [])],
        baseline=args.baseline,
        bench=args.bench,
        precision=_precisions(args),
        backend=args.backend,
        num_classes=args.num_classes,
        in_chans=args.in_chans,
        model_kwargs=args.model_kwargs,
        results_file=args.results_file,
        results_format=args.results_format,
        progress=not args.quiet,
        device=args.device,
        channels_last=args.channels_last,
        compile=args.compile,
        compile_mode=args.compile_mode,
        fuse=args.fuse,
        batch_size=args.batch_size,
        img_size=args.img_size,
        rounds=args.rounds,
        rounds_per_process=args.rounds_per_process,
        round_seconds=args.round_seconds,
        warmup_steps=args.warmup_steps,
        threads=args.threads,
        reparameterize=args.reparameterize,
        keep_freed_memory=args.keep_freed_memory,
    )


def _precisions(args: argparse.Namespace) -> list[str]:
    from eca_zoo.errors import InputError

    if args.amp and args.precision:
        raise InputError('--precision and --amp exclude each other; give one')
    return [f'amp_{args.amp_dtype}'] if args.amp else args.precision or ['fp32']
