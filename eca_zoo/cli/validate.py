"""The subcommand ``validate``: accuracy of one or many models on one data set, with the flags of timm's validate.py."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eca_zoo.cli.detectors import validate as validate_detectors
from eca_zoo.cli.flags import (
    NAMES,
    KeyValues,
    add_compile,
    add_restart,
    add_run_dir,
    add_running,
    add_setting,
    add_workers,
    restart_of,
    seconds,
)
from eca_zoo.cli.validate_report import exit_code, report, results_file
from eca_zoo.harness.data.data_spec import CLASS_LEVELS
from eca_zoo.harness.data.kinds import prefixes

if TYPE_CHECKING:
    from eca_zoo.harness.accuracy.results import AccuracyResult
    from eca_zoo.harness.accuracy.settings import EvalSettings
    from eca_zoo.harness.data.data_spec import DataSpec
    from eca_zoo.harness.networks.model_spec import ModelSpec

_NO_COUNTERPART = {
    '--num-gpu': 'start one process for each GPU: torchrun --nproc-per-node N validate.py ...',
    '--tf-preprocessing': 'there is no TensorFlow here',
    '--fuser': 'the fusers of TorchScript are gone from torch; use --compile',
    '--aot-autograd': 'use --compile aot_eager',
    '--fast-norm': 'it changes numbers; use --amp or --model-dtype',
    '--naflex-loader': 'images have one size here',
    '--naflex-max-seq-len': 'images have one size here',
}
_EPILOG = (
    "Flags of timm's validate.py that have no counterpart: "
    + '; '.join(f'{flag} ({why})' for flag, why in _NO_COUNTERPART.items())
    + '. Accepted without any effect: --pretrained (weights are loaded unless there is a --checkpoint), --retry (a '
    'batch that does not fit is always halved), --log-freq (progress is shown by time). Other defaults: '
    '--device is the GPU if there is one, fp32 is exact (TF32 only with --precision tf32), --batch-size is 16 on the '
    'CPU. A run with --run-dir can be killed at any moment; the same command continues it. Under torchrun each process '
    'counts its part of the images.'
)


def add_commands(subparsers: Any, parents: list[argparse.ArgumentParser]) -> None:
    """Add this module's subcommands."""
    parser = subparsers.add_parser(
        'validate',
        parents=parents,
        help='top-1 and top-5 of one or many models on one data set; average precision of detectors',
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    _add_data(parser.add_argument_group('data'))
    _add_models(parser.add_argument_group('models'))
    _add_input(parser.add_argument_group('input'))
    _add_running(parser.add_argument_group('running'))
    _add_output(parser.add_argument_group('output'))
    validate_detectors.add_flags(parser)
    for flag in _NO_COUNTERPART:
        parser.add_argument(flag, nargs='?', action=_NoCounterpart, help=argparse.SUPPRESS)
    for flag in ('--pretrained', '--retry'):
        parser.add_argument(flag, action='store_true', help=argparse.SUPPRESS)
    parser.add_argument('--log-freq', type=int, help=argparse.SUPPRESS)
    parser.set_defaults(run=_run_validate, no_counterpart=None, default_of=parser.get_default)


class _NoCounterpart(argparse.Action):
    """Notes a flag of timm's script that has no counterpart."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        namespace.no_counterpart = self.option_strings[0]


def _add_data(group: Any) -> None:
    group.add_argument(
        'data', nargs='*', metavar='DIR', help='folder or tar (or --data-dir); names of models before it (or --model)'
    )
    group.add_argument(
        '--data-dir', metavar='DIR', type=Path, action='append',
        help='folder with one folder a class, or a tar of it',
    )  # fmt: skip
    group.add_argument(
        '--dataset', metavar='NAME', default='',
        help=f"timm's name of a data set: {prefixes()} and a name (default: folder or tar)",
    )  # fmt: skip
    group.add_argument('--split', metavar='NAME', default='validation', help='of the data set (default: validation)')
    group.add_argument('--num-samples', metavar='N', type=int, help='images of a streamed data set')
    add_setting(group, 'download', action='store_true', help='let timm download the data set')
    add_setting(group, 'trust_remote_code', action='store_true', help='let a hub data set run its code')
    group.add_argument('--class-map', metavar='FILE', type=Path, help='class names, one a line, or JSON name: index')
    group.add_argument(
        '--class-level', choices=CLASS_LEVELS,
        help='folder that is the class: leaf (the innermost one) or top (default: leaf, where names are unique)',
    )  # fmt: skip
    group.add_argument('--input-key', metavar='KEY', help='field of the images; of a folder, extensions: .webp;.bmp')
    group.add_argument('--target-key', metavar='KEY', help='field of the labels')
    group.add_argument('--input-img-mode', metavar='MODE', help="Pillow's mode that images are converted to")
    group.add_argument(
        '--ground-truth', metavar='FILE', type=Path, help='labels of images that lie in no class folders'
    )
    group.add_argument(
        '--real-labels', metavar='FILE', nargs='?', const='default',
        help='ReaL labels of ImageNet validation images: their real.json, or without FILE the copy that timm carries',
    )  # fmt: skip
    group.add_argument(
        '--valid-labels', metavar='FILE',
        help='restrict results to these class indices: a file with one a line, imagenet-a or imagenet-r',
    )  # fmt: skip
    group.add_argument(
        '--skip-other-classes', action='store_true',
        help='images whose class is not among the --valid-labels do not count (default: they are an error)',
    )  # fmt: skip
    group.add_argument(
        '--sets', metavar='PATTERN',
        help="folders below the --data-dir that are a data set each, such as '*/[1-5]' for ImageNet-C",
    )  # fmt: skip
    group.add_argument('--skip-bad-images', action='store_true', help='count and list images that cannot be decoded')


def _add_models(group: Any) -> None:
    group.add_argument(
        '--model', '-m', metavar='NAME', nargs='+', action='extend', default=[], help=NAMES,
    )  # fmt: skip
    group.add_argument(
        '--checkpoint', metavar='FILE', type=Path, nargs='+', action='extend',
        help='weights, or a folder of them; several give a row each',
    )  # fmt: skip
    group.add_argument('--use-ema', action='store_true', help='averaged weights of a training checkpoint')
    group.add_argument('--num-classes', metavar='N', type=int, help="of the model (default: the model's)")
    group.add_argument('--in-chans', metavar='N', type=int, help="channels of the input (default: the model's)")
    add_setting(group, 'global_pool', metavar='POOL', help='global pooling: fast, avg, max, avgmax or catavgmax')
    group.add_argument(
        '--model-kwargs', metavar='KEY=VALUE', nargs='*', action=KeyValues, default={}, help='of the entry point'
    )
    group.add_argument('--seed', metavar='N', type=int, default=42, help='of weights that no checkpoint has')


def _add_input(group: Any) -> None:
    group.add_argument('--img-size', metavar='N', type=int, help="height and width (default: the model's)")
    group.add_argument('--input-size', metavar='N', type=int, nargs=3, help='channels, height and width')
    group.add_argument('--use-train-size', action='store_true', help='the size in training, not the one for testing')
    group.add_argument('--crop-pct', metavar='F', type=float, help='share of the resized image that the crop keeps')
    group.add_argument('--crop-mode', metavar='MODE', help='center, squash or border')
    group.add_argument('--crop-border-pixels', metavar='N', type=int, help='trimmed before anything else')
    group.add_argument('--mean', metavar='F', type=float, nargs='+', help='of the channels, for values in [0, 1]')
    group.add_argument('--std', metavar='F', type=float, nargs='+', help='of the channels, for values in [0, 1]')
    group.add_argument('--interpolation', metavar='NAME', default='', help='bilinear, bicubic, nearest, ...')
    group.add_argument(
        '--preprocess', choices=('exact', 'fast', 'gpu'), default='exact',
        help="fast: nearly timm's pixels, in less time; gpu: JPEG files by the GPU, with its decoder's pixels",
    )  # fmt: skip
    group.add_argument('--test-pool', action='store_true', help='test-time pooling for larger input')


def _add_running(group: Any) -> None:
    add_running(group)
    add_workers(group)
    add_setting(group, 'prefetch', metavar='N', type=int, help='batches that each makes ahead (default: 2)')
    group.add_argument(
        '--precision', metavar='P',
        help="fp32, tf32, fp16, bf16, amp or amp_bf16 (default: fp32, which is exact; timm's float32 on CUDA is tf32)",
    )  # fmt: skip
    group.add_argument('--model-dtype', choices=('float32', 'float16', 'bfloat16'), help='of parameters and input')
    compilers = group.add_mutually_exclusive_group()
    compilers.add_argument('--torchscript', action='store_true', help='torch.jit.script')
    add_compile(compilers)
    group.add_argument(
        '--cudnn-benchmark', action='store_true', help='let cuDNN race for its algorithms: faster, digits may move'
    )
    add_setting(group, 'normalize_in_workers', action='store_true', help='normalise images one by one, in the workers')
    add_setting(group, 'pin_memory', action='store_true', default=None, help='page-locked batches (default: on CUDA)')


def _add_output(group: Any) -> None:
    group.add_argument(
        '--results-file', metavar='FILE', type=Path, help="table with timm's columns: .csv, .json, .md or .parquet"
    )
    group.add_argument(
        '--results-format', choices=('csv', 'json', 'md', 'parquet'), help='of a file whose name does not end in one'
    )
    group.add_argument('--metrics-avg', choices=('micro', 'macro', 'weighted'), help='also precision, recall and F1')
    add_setting(group, 'predictions', metavar='FILE', type=Path, help='Parquet: best five classes of each image')
    formats = '.csv, .json, .md or .parquet'
    group.add_argument('--per-class', metavar='FILE', type=Path, help=f'what was counted of each class: {formats}')
    group.add_argument(
        '--confusion', metavar='FILE', type=Path, help=f'images for each class and first guess: {formats}'
    )
    add_run_dir(group, help='folder with a journal, in which a run that was killed goes on')
    group.add_argument(
        '--record-every', metavar='S', type=seconds, default=5.0, help='seconds between two records in it (default: 5)'
    )
    add_restart(group)


def _run_validate(args: argparse.Namespace) -> int:
    from eca_zoo.api.accuracy import evaluation_results
    from eca_zoo.errors import InputError
    from eca_zoo.harness.machine.devices import resolve_device
    from eca_zoo.harness.machine.memory import keep_freed_memory
    from eca_zoo.harness.machine.processes import agreed, process_group
    from eca_zoo.harness.resume.signals import stop_on_signals

    if args.no_counterpart is not None:
        raise InputError(f'{args.no_counterpart}: {_NO_COUNTERPART[args.no_counterpart]}')
    _find_data(args)
    _quiet_hub(args.verbose)
    if validate_detectors.are_detectors(args.model):
        return validate_detectors.run(args, _precision(args))
    validate_detectors.check_classifier_flags(args)
    with stop_on_signals() as stop, process_group(stop.ends_waiting) as processes:
        models, data, settings, file = agreed(
            lambda: (_model_specs(args), _data_spec(args), _settings(args), results_file(args))
        )
        if args.owns_process and resolve_device(settings.device).type == 'cpu':
            # No accuracy depends on it.
            keep_freed_memory()
        codes: list[int] = []

        def finish(results: list['AccuracyResult']) -> None:
            codes.append(report(args, results, file) if processes.is_main else exit_code(results))

        evaluation_results(
            models, data, settings, run_dir=args.run_dir, restart=restart_of(args), predictions=args.predictions,
            per_class=args.per_class, confusion=args.confusion, record_every=args.record_every,
            progress=not args.quiet, stop=stop, measured=finish,
        )  # fmt: skip
        return codes[0]


def _quiet_hub(verbose: bool) -> None:
    """Let the hub's client log its retries only where the user asked for a log."""
    from huggingface_hub.utils import logging as hub_logging

    (hub_logging.set_verbosity_warning if verbose else hub_logging.set_verbosity_error)()


def _find_data(args: argparse.Namespace) -> None:
    """Make ``args.data_dir`` the one path that was given for the data, or None.

    ``--model NAME DIR`` and ``--checkpoint FILE DIR`` is how timm's users type it; the list, or that of ``--restart``,
    has taken the folder.

    Raises:
        InputError: there are several.
    """
    from eca_zoo.errors import InputError

    has_flag, words, args.data = bool(args.model), args.data, []
    for word in words:
        is_name = not has_flag and not _looks_like_data(word)
        (args.model if is_name else args.data).append(word)
    given = [*map(Path, args.data), *(args.data_dir or [])]
    for taken, least in ((args.model, 1), (args.checkpoint or [], 1), (args.restart or [], 0)):
        if not given and not args.dataset and len(taken) > least and _looks_like_data(str(taken[-1])):
            given.append(Path(taken.pop()))
    if len(given) > 1:
        raise InputError(f'{" and ".join(map(str, given))}: data is one folder or tar; name one, and run each alone')
    args.data_dir = given[0] if given else None


def _looks_like_data(word: str) -> bool:
    from eca_zoo.harness.networks.user_checkpoint import SUFFIXES

    path = Path(word)
    if path.is_file() or word.endswith(('.txt', *SUFFIXES)):
        return word.endswith('.tar') and not word.endswith(SUFFIXES)
    return word.endswith('.tar') or path.is_dir() or ('/' in word and ':' not in word)


def _model_specs(args: argparse.Namespace) -> list['ModelSpec']:
    from eca_zoo.arguments import model_specs

    return model_specs(args.model, args.checkpoint, True, args.num_classes, args.in_chans, args.model_kwargs)


def _data_spec(args: argparse.Namespace) -> 'DataSpec':
    from eca_zoo.harness.data.data_spec import DataSpec

    return DataSpec(
        root=args.data_dir,
        dataset=args.dataset,
        split=args.split,
        class_map=args.class_map,
        ground_truth=args.ground_truth,
        class_level=args.class_level,
        real_labels=args.real_labels,
        valid_labels=args.valid_labels,
        skip_other_classes=args.skip_other_classes,
        sets=args.sets,
        num_samples=args.num_samples,
        input_key=args.input_key,
        target_key=args.target_key,
        input_img_mode=args.input_img_mode,
        skip_bad_images=args.skip_bad_images,
        download=args.download,
        trust_remote_code=args.trust_remote_code,
    )


def _settings(args: argparse.Namespace) -> 'EvalSettings':
    from eca_zoo.harness.accuracy.settings import EvalSettings

    return EvalSettings(
        batch_size=args.batch_size,
        workers=args.workers,
        img_size=args.img_size,
        input_size=tuple(args.input_size) if args.input_size else None,
        crop_pct=args.crop_pct,
        crop_mode=args.crop_mode,
        crop_border_pixels=args.crop_border_pixels,
        mean=tuple(args.mean) if args.mean else None,
        std=tuple(args.std) if args.std else None,
        interpolation=args.interpolation or None,
        use_train_size=args.use_train_size,
        test_pool=args.test_pool,
        device=args.device,
        precision=_precision(args),
        channels_last=args.channels_last,
        compile=args.compile,
        compile_mode=args.compile_mode,
        torchscript=args.torchscript,
        global_pool=args.global_pool,
        reparameterize=args.reparameterize,
        fuse=args.fuse,
        use_ema=args.use_ema,
        normalize_in_workers=args.normalize_in_workers,
        pin_memory=args.pin_memory,
        prefetch=args.prefetch,
        cudnn_benchmark=args.cudnn_benchmark,
        seed=args.seed,
        preprocess=args.preprocess,
    )


def _precision(args: argparse.Namespace) -> str:
    """timm's flags for precision as one name."""
    from eca_zoo.errors import InputError

    asked = {'--precision': args.precision, '--amp': args.amp, '--model-dtype': args.model_dtype}
    given = [flag for flag, value in asked.items() if value]
    if args.amp and args.model_dtype == 'float32':
        given.remove('--model-dtype')
    if len(given) > 1:
        raise InputError(f'{" and ".join(given)} exclude each other; give one')
    if args.amp:
        return f'amp_{args.amp_dtype}'
    return args.precision or args.model_dtype or 'fp32'
