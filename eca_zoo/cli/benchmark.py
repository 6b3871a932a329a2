"""The subcommand of ``eca-zoo`` that measures complexity and throughput."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eca_zoo.cli.collector import collect_as_usual

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
    parser.add_argument('--baseline', metavar='NAME', help='time this network too and give ratios to it')
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
    parser.set_defaults(run=_run)


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that name networks."""
    parser.add_argument(
        '--model', '-m', nargs='+', default=[], metavar='NAME',
        help="networks of timm's registry, patterns such as 'eca_resnet*', zoo (the authors'), plain (the same "
        'without ECA), all, or text files of names',
    )  # fmt: skip
    parser.add_argument('--model-list', type=Path, metavar='FILE', help='text file with one name or pattern a line')
    parser.add_argument('--model-kwargs', nargs='*', default=[], metavar='KEY=VALUE', help='for their entry points')
    parser.add_argument('--num-classes', type=int, metavar='N', help='classes of the networks (default: their own)')


def add_throughput_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that say how a throughput is measured."""
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda, cuda:1, mps or xpu (default: auto)')
    parser.add_argument('-b', '--batch-size', type=int, metavar='N', help='default: 256 on a GPU, 16 on the CPU')
    parser.add_argument(
        '--img-size', type=int, metavar='N',
        help="height and width (default: each network's own; with --baseline, the first network's for all)",
    )  # fmt: skip
    parser.add_argument(
        '--precision', nargs='+', default=['fp32'], metavar='P',
        help='fp32, tf32, fp16, bf16, amp, amp_bf16; several give a row each (default: fp32)',
    )  # fmt: skip
    parser.add_argument('--amp', action='store_true', help='same as --precision amp')
    parser.add_argument('--amp-dtype', default='float16', metavar='T', help='of --amp: float16 or bfloat16')
    parser.add_argument('--channels-last', action='store_true', help='memory format of parameters and images')
    parser.add_argument(
        '--torchcompile', nargs='?', const='inductor', default='', metavar='BACKEND', help='compile (default: inductor)'
    )
    parser.add_argument('--torchcompile-mode', default='', metavar='MODE', help='such as max-autotune')
    parser.add_argument(
        '--backend', nargs='+', default=['torch'], metavar='B',
        help='torch, onnxruntime or openvino; several give a row each (default: torch)',
    )  # fmt: skip
    parser.add_argument('--reparam', action='store_true', help='fold the branches of models that are made for it')
    parser.add_argument('--fuse', action='store_true', help='time the form for inference: batch norms folded')
    parser.add_argument('--rounds', type=int, default=10, metavar='N', help='turns of each network (default: 10)')
    parser.add_argument('--round-seconds', type=float, default=0.5, metavar='S', help='length of one (default: 0.5)')
    parser.add_argument('--num-warm-iter', type=int, default=5, metavar='N', help='untimed steps first (default: 5)')
    parser.add_argument('--threads', type=int, metavar='N', help="of the CPU (default: PyTorch's choice)")
    parser.add_argument(
        '--keep-freed-memory', action='store_true',
        help='on the CPU, in processes whose C library keeps the memory of freed tensors (see benchmark/README.md)',
    )  # fmt: skip


def _run(args: argparse.Namespace) -> int:
    from eca_zoo.errors import EcaZooError
    from eca_zoo.harness.resume.signals import terminated_as_interrupted
    from eca_zoo.harness.table.text import to_text

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
        print(f'eca-zoo benchmark: failed: {model}: {reason}', file=sys.stderr)
    return 0 if failed.empty else 1


def _measured(args: argparse.Namespace) -> 'pd.DataFrame':
    from eca_zoo.api import benchmark
    from eca_zoo.harness.networks.model_names import read_names

    collect_as_usual()
    return benchmark(
        [*args.model, *(read_names(args.model_list) if args.model_list else [])],
        baseline=args.baseline,
        bench=args.bench,
        precision=f'amp_{args.amp_dtype}' if args.amp else args.precision,
        backend=args.backend,
        num_classes=args.num_classes,
        model_kwargs=parse_model_kwargs(args.model_kwargs),
        results_file=args.results_file,
        results_format=args.results_format,
        progress=True,
        device=args.device,
        channels_last=args.channels_last,
        compile=args.torchcompile,
        compile_mode=args.torchcompile_mode,
        fuse=args.fuse,
        batch_size=args.batch_size,
        img_size=args.img_size,
        rounds=args.rounds,
        round_seconds=args.round_seconds,
        warmup_steps=args.num_warm_iter,
        threads=args.threads,
        reparameterize=args.reparam,
        keep_freed_memory=args.keep_freed_memory,
    )


def parse_model_kwargs(pairs: Sequence[str]) -> dict[str, Any]:
    """``['drop_rate=0.1', 'kernel_sizes=(3,3,5,7)']`` as a dictionary; a value that is no Python literal is a string.

    Raises:
        InputError: a pair has no ``=``.
    """
    import ast

    from eca_zoo.errors import InputError

    values = {}
    for pair in pairs:
        key, equals, text = pair.partition('=')
        if not key or not equals:
            raise InputError(f'--model-kwargs {pair!r}: write KEY=VALUE')
        try:
            values[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[key] = text
    return values
