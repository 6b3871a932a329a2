"""Parts of the first hour that count: digits on every device and precision, memory, processes, compiled networks."""

from pathlib import Path
from typing import Any

import pyarrow.parquet
import torch
from gpu_hour.hour import DIGITS, Hour, fenced
from gpu_hour.synchronisation import waits_of_a_step

import eca_zoo
from eca_zoo.errors import InputError
from eca_zoo.harness.networks.model_spec import ModelSpec

_PRECISIONS = ('tf32', 'fp16', 'bf16', 'amp', 'amp_bf16')
_COUNTS = ['top1', 'top5']


def counts(hour: Hour) -> str:
    """(a) Counts of the CPU and of CUDA are equal in fp32; ties, and guesses that other precisions change."""
    hour.need_gpus(1)
    lines, different = [], []
    for name, (data, model) in hour.data().items():
        expected, reference = counted(hour, data, model, 'cpu', 'fp32')
        for precision in ('fp32', *_PRECISIONS):
            try:
                frame, guesses = counted(hour, data, model, 'cuda', precision)
            except InputError as error:
                lines.append(f'- {name}, {precision}: {error}')
                continue
            flips = sum(ours[0] != theirs[0] for ours, theirs in zip(guesses, reference, strict=True))
            ties = sum(is_tie for _, is_tie in guesses)
            is_same = bool((expected[_COUNTS] == frame[_COUNTS]).all(axis=None))
            lines.append(
                f'- {name}, {precision}: top-1 {frame.top1[0]}, counts {"equal" if is_same else "DIFFERENT"}, {flips} '
                f'of {len(guesses)} first guesses change, {ties} ties'
            )
            if precision == 'fp32' and not is_same:
                different.append(name)
    if different:
        raise AssertionError('\n'.join([f'fp32 counts differ on {", ".join(different)}', *lines]))
    return '\n'.join(lines)


def counted(
    hour: Hour, data: Path, model: dict, device: str, precision: str, **options: Any
) -> tuple[Any, list[tuple[int, bool]]]:
    """The row of a model, and for each image its first guess and whether the second one is as probable."""
    file = hour.folder / 'guesses.parquet'
    frame = eca_zoo.evaluate(data=data, **model, device=device, precision=precision, predictions=file, **options)
    if frame.error.notna()[0]:
        raise RuntimeError(frame.error[0])
    columns = pyarrow.parquet.read_table(file).to_pydict()
    pairs = zip(columns['top5_classes'], columns['top5_probabilities'], strict=True)
    return frame, [(classes[0], shares[0] == shares[1]) for classes, shares in pairs]


def beside_timm(hour: Hour) -> str:
    """(a) The counts of timm's validate.py on the same GPU; its float32 allows TensorFloat-32, as our tf32 does."""
    hour.need_gpus(1)
    script, (data, _) = hour.need_timm() / 'validate.py', hour.data()['digits']
    lines = []
    for name, flags in {'theirs': [str(script)], 'ours': ['validate.py', '--precision', 'tf32']}.items():
        results = hour.folder / f'{name}.csv'
        loader = (
            'import runpy, sys, eca_zoo.models; sys.argv = sys.argv[1:]; '
            'runpy.run_path(sys.argv[0], run_name="__main__")'
        )
        common = ['--model', DIGITS, '--pretrained', '--data-dir', str(data), '--device', 'cuda']
        hour.command('-c', loader, *flags, *common, '--results-file', str(results))
        lines.append(f'- {name}: {results.read_text(encoding="utf-8").splitlines()[1]}')
    return '\n'.join(lines)


def memory(hour: Hour) -> str:
    """(b) With 2 % of the GPU's memory: a batch is halved, what does not fit is refused, and no pass is endless."""
    hour.need_gpus(1)
    data, _ = hour.data()['photographs']
    script = (
        'import sys, torch, eca_zoo; torch.cuda.set_per_process_memory_fraction(0.02); '
        "frame = eca_zoo.evaluate(['resnet152', 'vit_large_patch16_384', 'eca_resnet50'], sys.argv[1], device='cuda', "
        "pretrained=False, batch_size=256); print(frame[['model', 'batch_size', 'error']].to_string())"
    )
    return fenced(hour.command('-c', script, str(data)))


def torchrun(hour: Hour) -> str:
    """(d) As many processes as GPUs give the digits of one; a leaderboard under torchrun."""
    hour.need_gpus(2)
    data, _ = hour.data()['digits']
    rows = []
    for processes in (1, hour.gpus):
        file = hour.folder / f'{processes}.csv'
        arguments = ['validate.py', '--model', DIGITS, '--data-dir', str(data), '--results-file', str(file)]
        hour.command(*arguments, processes=processes)
        rows.append(file.read_text(encoding='utf-8'))
    if rows[0] != rows[1]:
        raise AssertionError(f'different rows:\n{rows[0]}{rows[1]}')
    run = ['-m', 'eca_zoo', 'leaderboard', 'digits', '--run-dir', str(hour.folder / 'board'), '--data-dir', str(data)]
    hour.command(*run, processes=hour.gpus)
    return f'{hour.gpus} processes: the row of one process, and a leaderboard'


def compiled(hour: Hour) -> str:
    """(e) Compiled, and with CUDA graphs: every image is counted, those of the smaller last batch too."""
    hour.need_gpus(1)
    data, model = hour.data()['digits']
    lines, rows = [], []
    for mode in (None, '', 'reduce-overhead'):
        options = {} if mode is None else {'compile': 'inductor', 'compile_mode': mode}
        # 60 images of the digits are no multiple of it.
        frame = eca_zoo.evaluate(data=data, **model, device='cuda', batch_size=32, **options)
        name = 'eager' if mode is None else mode or 'default'
        lines.append(f'- {name}: top-1 {frame.top1[0]} of {frame.num_images[0]} images, error {frame.error[0]}')
        rows.append((frame.num_images[0], frame.error[0]))
    if len(set(rows)) > 1:
        raise AssertionError('\n'.join(lines))
    return '\n'.join(lines)


def synchronisation(hour: Hour) -> str:
    """(f) No step of a pass waits for the device, in torch's own watch (set_sync_debug_mode)."""
    hour.need_gpus(1)
    (digits, _), (photographs, model) = (hour.data()[name] for name in ('digits', 'photographs'))
    classifier = ModelSpec(model['models'], checkpoint=model['checkpoint'])
    kinds = {'exact': (ModelSpec(DIGITS), digits), 'gpu': (classifier, photographs)}
    return '\n'.join(
        f'- preprocess {preprocess}: {waits_of_a_step(torch.device("cuda:0"), spec, data, preprocess)}'
        for preprocess, (spec, data) in kinds.items()
    )
