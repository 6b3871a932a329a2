"""The subcommand of ``eca-zoo`` that measures complexity and throughput."""

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_EPILOG = """\
Flags have the names of timm's benchmark.py. Without a counterpart: --opt and what belongs to it (training steps use
SGD with momentum 0.9), --torchscript, --aot-autograd, --fuser (outdated in PyTorch), --detail, --fast-norm, --reparam,
--gp, --grad-checkpointing, --drop* (use --model-kwargs), --input-size, --use-train-size (use --img-size),
--num-bench-iter (use --rounds and --round-seconds), --no-retry.
"""


_TEXT = 40


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
    parser.add_argument('--results-file', type=Path, metavar='FILE', help='write the table here')
    parser.add_argument('--results-format', choices=('csv', 'json'), default='csv', help='of that file (default: csv)')
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
    parser.add_argument('--fuse', action='store_true', help='fold batch norms into convolutions, in a copy')
    parser.add_argument('--rounds', type=int, default=10, metavar='N', help='turns of each network (default: 10)')
    parser.add_argument('--round-seconds', type=float, default=0.5, metavar='S', help='length of one (default: 0.5)')
    parser.add_argument('--num-warm-iter', type=int, default=5, metavar='N', help='untimed steps first (default: 5)')
    parser.add_argument('--threads', type=int, metavar='N', help="of the CPU (default: PyTorch's choice)")


def _run(args: argparse.Namespace) -> int:
    import json

    from eca_zoo.harness.networks.model_names import expand_model_names, expand_one, read_names
    from eca_zoo.harness.networks.spec import ModelSpec
    from eca_zoo.harness.table.columns import FVCORE
    from eca_zoo.harness.table.files import to_csv, write_text
    from eca_zoo.harness.table.measurements import Measurements
    from eca_zoo.harness.table.text import to_text

    names = expand_model_names([*args.model, *(read_names(args.model_list) if args.model_list else [])])
    model_kwargs = parse_model_kwargs(args.model_kwargs)
    baseline = ModelSpec(expand_one(args.baseline)) if args.baseline else None
    specs = [ModelSpec(name, num_classes=args.num_classes, model_kwargs=model_kwargs) for name in names]
    if baseline is not None:
        specs = [baseline if spec.name == baseline.name else spec for spec in specs]
    benchmark = Measurements(specs, throughput_settings(args), args.bench, baseline)

    def save() -> list[dict[str, Any]]:
        rows = benchmark.rows()
        if args.results_file:
            if args.results_format == 'json':
                public = [{key: value for key, value in row.items() if key != FVCORE} for row in rows]
                text = json.dumps(public, indent=2) + '\n'
            else:
                text = to_csv(rows)
            write_text(args.results_file, text)
        return rows

    rows = save()
    with PartBars() as bars:
        for _ in benchmark.run(functools.partial(bars.show, 'throughput')):
            rows = save()
    print(to_text(rows))
    failed = [row for row in rows if row['error']]
    if args.results_file:
        print(f'The table is in {args.results_file}', flush=True)
    for row in failed:
        print(f'eca-zoo benchmark: failed: {row["model"]}: {row["error"]}', file=sys.stderr)
    return 1 if failed else 0


def throughput_settings(args: argparse.Namespace) -> list[Any]:
    """One ``ThroughputSettings`` for each backend and precision."""
    from eca_zoo.harness.speed.settings import ThroughputSettings

    return [
        ThroughputSettings(
            device=args.device,
            precision=precision,
            channels_last=args.channels_last,
            compile=args.torchcompile,
            compile_mode=args.torchcompile_mode,
            backend=backend,
            fuse=args.fuse,
            batch_size=args.batch_size,
            img_size=args.img_size,
            rounds=args.rounds,
            round_seconds=args.round_seconds,
            warmup_steps=args.num_warm_iter,
            threads=args.threads,
        )
        for backend in args.backend
        for precision in ([f'amp_{args.amp_dtype}'] if args.amp else args.precision)
    ]


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


class PartBars:
    """A progress bar with rate and time left for one part of a run after the other, on a terminal alone."""

    def __init__(self) -> None:
        self._part = ''
        self._bar: Any = None

    def __enter__(self) -> 'PartBars':
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, part: str, done: int, total: int, text: str) -> None:
        """Show that ``done`` of ``total`` of a part is done, and with ``text`` what is done now."""
        from tqdm import tqdm

        if part != self._part:
            self.__exit__()
            # disable=None: no bar where stderr is no terminal.
            self._bar = tqdm(desc=part, total=total, initial=done, disable=None, leave=False)
            self._part = part
        self._bar.total = total
        self._bar.set_postfix_str(text if len(text) <= _TEXT else f'{text[: _TEXT - 3]}...', refresh=False)
        self._bar.update(done - self._bar.n)
