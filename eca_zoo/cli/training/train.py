"""The subcommand ``train``: a network by a recipe, any key of which is a flag with timm's name."""

import argparse
import gc
import logging
import sys
import types
import typing
from pathlib import Path
from typing import Any

from eca_zoo.cli.flags import KeyValues, add_run_dir, add_setting, add_workers
from eca_zoo.resources import packaged_names
from eca_zoo.training.recipes.recipe import Recipe, recipe_keys

_EPILOG = """\
The same command goes on with a run that was killed. A digit of the result depends on the number of processes, not on
that of --workers. On several GPUs:
  torchrun --nproc-per-node 8 -m eca_zoo train eca_resnet -m eca_resnet50 --data-dir /data/imagenet --run-dir runs/eca
"""
_SHORT = {'batch_size': ['-b'], 'decay_rate': ['--dr']}
# What stands for a value in the help, as in other commands.
_METAVARS = {'compile': 'BACKEND', 'global_pool': 'POOL', 'interpolation': 'NAME', 'mean': 'F', 'std': 'F'}
_LETTERS = {int: 'N', float: 'F', str: 'NAME'}
# Named among the arguments, not among the recipe's keys.
_ELSEWHERE = ('model', 'data')


def add_commands(subparsers: Any, parents: list[argparse.ArgumentParser]) -> None:
    """Add this module's subcommands."""
    parser = subparsers.add_parser(
        'train',
        parents=parents,
        help='train a network by a recipe',
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    names = ', '.join(packaged_names('recipes'))
    parser.add_argument('recipe', metavar='RECIPE', help=f'YAML file, or one of {names}')
    add_run_dir(parser, help='folder of the run; one that was killed goes on in it')
    parser.add_argument('--model', '-m', metavar='NAME', help="timm's name (default: the recipe's)")
    _add_data(parser.add_argument_group('data'))
    _add_running(parser.add_argument_group('running'))
    groups: dict[str, Any] = {}
    for name, field in recipe_keys().items():
        title = field.metadata['group']
        if name not in _ELSEWHERE:
            group = groups.setdefault(title, None) or parser.add_argument_group(f'recipe: {title}')
            groups[title] = group
            _add_key(group, name, field.metadata)
    parser.set_defaults(run=_run)


def _add_data(group: Any) -> None:
    group.add_argument(
        '--data-dir', metavar='DIR', type=Path, help='folder with train/CLASS and validation/CLASS, or COCO as unpacked'
    )
    group.add_argument('--dataset', metavar='NAME', default='', help="timm's name of a data set, as for validate")
    group.add_argument('--train-split', metavar='NAME', default='train', help='(default: train)')
    group.add_argument('--val-split', metavar='NAME', default='validation', help="(default: validation; '': none)")
    group.add_argument('--class-map', metavar='FILE', type=Path, help='class names, one a line, or JSON name: index')
    group.add_argument('--class-level', choices=('leaf', 'top'), help='folder that is the class, as for validate')
    group.add_argument('--input-key', metavar='KEY', help='field of the images; of a folder, extensions: .webp;.bmp')
    group.add_argument('--target-key', metavar='KEY', help='field of the labels')
    group.add_argument('--input-img-mode', metavar='MODE', help="Pillow's mode that images are converted to")
    add_setting(group, 'download', action='store_true', help='let timm download the data set')
    add_setting(group, 'trust_remote_code', action='store_true', help='let a hub data set run its code')
    for name, of in (('', 'training'), ('val-', 'validation')):
        where = f"of a detector's {of} (default: below --data-dir)"
        group.add_argument(f'--{name}annotations', metavar='FILE', type=Path, help=where)
        group.add_argument(f'--{name}images', metavar='DIR', type=Path, help=where)
    group.add_argument(
        '--skip-bad-images', action='store_true', help='count images that cannot be decoded; others take their places'
    )


def _add_running(group: Any) -> None:
    add_workers(group)
    add_setting(group, 'device', default='auto', help='auto, cpu, cuda, cuda:1, mps or xpu (default: auto)')
    group.add_argument('--initial-checkpoint', metavar='FILE', type=Path, help='file of the first weights')
    add_setting(group, 'validation_batch_size', '-vb', metavar='N', type=int, help='images a step of the validation')
    group.add_argument('--val-interval', metavar='N', type=int, default=1, help='epochs between validations')
    group.add_argument('--log-interval', metavar='N', type=int, default=50, help='steps between rows of the log')
    group.add_argument(
        '--save-every', metavar='TIME', type=_interval, default=(600.0, None),
        help='between states: 600 or 10m for a time, 500steps for steps; after each epoch too (default: 10m)',
    )  # fmt: skip
    group.add_argument(
        '--checkpoint-every', metavar='N', type=int, default=0, help='keep the weights of every Nth epoch'
    )
    group.add_argument('--tensorboard', action='store_true', help='the log for TensorBoard too, in RUN_DIR/tensorboard')
    group.add_argument('--restart', action='store_true', help='forget what the folder of the run holds')
    group.add_argument(
        '--allow-change', action='store_true', help='go on although something differs that changes bits, and record it'
    )


def _interval(text: str) -> tuple[float | None, int | None]:
    """Seconds, or steps, in ``600``, ``10m``, ``2h`` or ``500steps``."""
    for suffix, factor in (('steps', 0), ('s', 1), ('m', 60), ('h', 3600), ('', 1)):
        number = text.removesuffix(suffix)
        if text.endswith(suffix) and number.replace('.', '', 1).isdigit():
            if factor:
                return float(number) * factor, None
            if number.isdigit() and int(number) > 0:
                return None, int(number)
    raise argparse.ArgumentTypeError(f'{text!r} is no time: write 600, 10m, 2h or 500steps')


def _add_key(group: Any, name: str, about: Any) -> None:
    """A flag for a key of the recipe; what is not given stays as the recipe has it."""
    kind = _plain_type(typing.get_type_hints(Recipe)[name])
    options: dict[str, Any] = {'default': argparse.SUPPRESS, 'help': about['meaning']}
    if name in _METAVARS:
        options['metavar'] = _METAVARS[name]
    if kind is bool:
        # argparse takes every flag that begins with --no- for a negation.
        negated = name.startswith('no_')
        options |= {'action': 'store_true' if negated else argparse.BooleanOptionalAction}
    elif typing.get_origin(kind) is tuple:
        of = typing.get_args(kind)[0]
        options = {'nargs': '*', 'type': of, 'metavar': _LETTERS[of], 'action': _Tuple} | options
    elif typing.get_origin(kind) is dict:
        options |= {'nargs': '*', 'metavar': 'KEY=VALUE', 'action': KeyValues}
    else:
        shown = {'choices': about['choices']} if about['choices'] else {'metavar': _LETTERS[kind]}
        options = {'type': kind} | shown | options
    if name == 'compile':
        options |= {'nargs': '?', 'const': 'inductor'}
    add_setting(group, name, *_SHORT.get(name, []), **options)


def _plain_type(hint: Any) -> Any:
    """The type of a flag: of ``float | None`` the first, of ``int | float`` the wider one."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        return float if set(kinds) == {int, float} else kinds[0]
    return hint


class _Tuple(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, list(values))


def _run(args: argparse.Namespace) -> int:
    from eca_zoo.api import train
    from eca_zoo.errors import InputError
    from eca_zoo.harness.machine.devices import resolve_device
    from eca_zoo.harness.machine.memory import keep_freed_memory
    from eca_zoo.harness.machine.processes import process_group
    from eca_zoo.harness.resume.signals import stop_on_signals

    if args.run_dir is None:
        raise InputError('the run needs a folder; name one with --run-dir DIR')
    # What was imported stays: neither each validation nor the processes that decode images need to look at it again.
    gc.freeze()
    overrides = {name: getattr(args, name) for name in recipe_keys() if name not in _ELSEWHERE and hasattr(args, name)}
    seconds, steps = args.save_every
    with stop_on_signals() as stop, process_group(stop.ends_waiting) as processes:
        if args.owns_process and resolve_device(args.device).type == 'cpu':
            keep_freed_memory()
        if not processes.is_main:
            logging.getLogger('eca_zoo').setLevel(logging.ERROR)
        log = train(
            args.recipe, args.model, args.data_dir, args.run_dir, checkpoint_every=args.checkpoint_every,
            restart=args.restart, allow_change=args.allow_change, progress=not args.quiet,
            tensorboard=args.tensorboard,
            command_line=sys.argv, stop=stop, dataset=args.dataset, train_split=args.train_split,
            val_split=args.val_split, class_map=args.class_map,
            class_level=args.class_level, input_key=args.input_key, target_key=args.target_key,
            input_img_mode=args.input_img_mode, download=args.download,
            trust_remote_code=args.trust_remote_code, skip_bad_images=args.skip_bad_images,
            workers=args.workers, device=args.device, initial_checkpoint=args.initial_checkpoint,
            validation_batch_size=args.validation_batch_size, val_interval=args.val_interval,
            annotations=args.annotations, images=args.images, val_annotations=args.val_annotations,
            val_images=args.val_images,
            log_interval=args.log_interval, save_seconds=seconds, save_steps=steps, **overrides,
        )  # fmt: skip
    if processes.is_main:
        _print(log)
    return 0


def _print(log: Any) -> None:
    best = log.attrs['best']
    if best:
        print(f'best: {_figures(best)} of {best["num_images"]} images, epoch {best["epoch"]} of {len(log)}')
    print(f'written: {", ".join(log.attrs["files"])}', flush=True)


def _figures(best: dict[str, Any]) -> str:
    if 'top1' in best:
        return f'top-1 {best["top1"]:.2f} %'
    known = {name: best[f'{name}_ap'] for name in ('box', 'mask') if f'{name}_ap' in best}
    return ', '.join(f'{name} AP {value:.4f}' for name, value in known.items())
