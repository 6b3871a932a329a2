"""The first hour on a GPU: what cannot be known without one, in one command with a report.

PYTHONPATH=scripts python -m gpu_hour [--report gpu_report.md] [--timm CHECKOUT_OF_TIMM]

Without a GPU it says so and runs what needs none. A part that needs two GPUs, or timm's scripts, says that it was
skipped. The report is written after each part. The exit code is 1 if a part failed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from digits import write_digits
from gpu_hour.synchronisation import waits_of_a_step
from photographs import MODEL, write_classifier, write_photographs

import eca_zoo
from eca_zoo.harness.machine.environment import describe_environment
from eca_zoo.harness.table.files import write_text

_ROOT = Path(__file__).resolve().parents[2]
_DIGITS = 'test_eca_resnet.digits'
_PRECISIONS = ('tf32', 'fp16', 'bf16', 'amp', 'amp_bf16')
#: Tests of the GPU's paths that need no GPU.
_TESTS = (
    'tests/harness/accuracy/test_no_synchronisation.py', 'tests/harness/accuracy/test_memory_limits.py',
    'tests/harness/speed/test_fan_out.py', 'tests/harness/speed/test_compile.py', 'tests/harness/machine',
    'tests/test_slurm.py',
)  # fmt: skip


class Skipped(Exception):  # noqa: N818
    """Why a part was not run."""


@dataclass
class Hour:
    """What the parts share: folders, and timm's checkout."""

    folder: Path
    timm: Path | None
    gpus: int = field(default_factory=torch.cuda.device_count)

    def command(self, *arguments: str, processes: int = 0, fails: bool = False) -> str:
        """What a command of Python prints; it may fail only if ``fails``."""
        command = [sys.executable, *arguments]
        if processes:
            launcher = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(processes)]
            command = [sys.executable, *launcher, *arguments]
        environment = os.environ | {'PYTHONPATH': str(_ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=_ROOT, check=False)
        if done.returncode and not fails:
            raise RuntimeError(f'{" ".join(arguments)}: exit code {done.returncode}\n{done.stderr[-2000:]}')
        return done.stdout + (done.stderr if fails else '')

    def need_gpus(self, count: int) -> None:
        """Skip a part for which there are too few."""
        if self.gpus < count:
            raise Skipped(f'needs {count} GPUs, and there are {self.gpus}')

    def need_timm(self) -> Path:
        """timm's checkout."""
        if self.timm is None:
            raise Skipped("needs timm's scripts: --timm CHECKOUT_OF_TIMM")
        return self.timm

    def data(self) -> dict[str, tuple[Path, dict]]:
        """The digits and the photographs, each with the arguments that name its model."""
        digits, photographs = self.folder / 'digits', self.folder / 'photographs'
        checkpoint = self.folder / f'{MODEL}.safetensors'
        if not checkpoint.exists():
            write_digits(digits)
            write_photographs(photographs / 'validation', 240)
            write_classifier(checkpoint)
        return {
            'digits': (digits, {'models': _DIGITS}),
            'photographs': (photographs, {'models': MODEL, 'checkpoint': checkpoint}),
        }


def tests(hour: Hour) -> str:
    """The tests of the GPU's paths that need no GPU, and those that need one where there is one."""
    out = hour.command('-m', 'pytest', '-q', '-p', 'no:cacheprovider', *_TESTS)
    if hour.gpus:
        out += hour.command('-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-m', 'gpu', 'tests')
    return out.strip().splitlines()[-1]


def counts(hour: Hour) -> str:
    """(a) Counts of the CPU and of CUDA are equal in fp32; guesses that other precisions change."""
    hour.need_gpus(1)
    lines = []
    for name, (data, model) in hour.data().items():
        results = {}
        for device, precision in [('cpu', 'fp32'), ('cuda', 'fp32'), *(('cuda', one) for one in _PRECISIONS)]:
            file = hour.folder / f'{name}-{device}-{precision}.parquet'
            arguments = {**model, 'device': device, 'precision': precision, 'predictions': file}
            try:
                frame = eca_zoo.evaluate(data=data, **arguments)
            except eca_zoo.errors.InputError as error:
                lines.append(f'- {name}, {precision}: {error}')
                continue
            results[device, precision] = (frame, _guesses(file))
        [(expected, reference), (on_gpu, guesses)] = [results['cpu', 'fp32'], results['cuda', 'fp32']]
        same = (expected[['top1', 'top5']] == on_gpu[['top1', 'top5']]).all(axis=None)
        lines.append(f'- {name}, fp32: CPU and CUDA {"equal" if same else "DIFFERENT"}, top-1 {on_gpu.top1[0]}')
        for (_, precision), (frame, other) in list(results.items())[2:]:
            flips = sum(ours != theirs for ours, theirs in zip(other, guesses, strict=True))
            lines.append(f'- {name}, {precision}: top-1 {frame.top1[0]}, {flips} of {len(other)} first guesses change')
        if not same or reference != guesses:
            raise AssertionError('\n'.join(lines))
    return '\n'.join(lines)


def _guesses(file: Path) -> list[int]:
    import pyarrow.parquet

    return [classes[0] for classes in pyarrow.parquet.read_table(file)['top5_classes'].to_pylist()]


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
        common = ['--model', _DIGITS, '--pretrained', '--data-dir', str(data), '--device', 'cuda']
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
    return '```\n' + hour.command('-c', script, str(data)) + '```'


def fan_out(hour: Hour) -> str:
    """(c) Networks on all GPUs at once."""
    hour.need_gpus(2)
    return '```\n' + hour.command('-m', 'eca_zoo', 'benchmark', '--model', 'zoo', '--baseline', 'resnet50') + '```'


def torchrun(hour: Hour) -> str:
    """(d) As many processes as GPUs give the digits of one; a leaderboard under torchrun."""
    hour.need_gpus(2)
    data, _ = hour.data()['digits']
    rows = []
    for processes in (1, hour.gpus):
        file = hour.folder / f'{processes}.csv'
        arguments = ['validate.py', '--model', _DIGITS, '--data-dir', str(data), '--results-file', str(file)]
        hour.command(*arguments, processes=processes)
        rows.append(file.read_text(encoding='utf-8'))
    if rows[0] != rows[1]:
        raise AssertionError(f'different rows:\n{rows[0]}{rows[1]}')
    run = ['-m', 'eca_zoo', 'leaderboard', 'digits', '--run-dir', str(hour.folder / 'board'), '--data-dir', str(data)]
    hour.command(*run, processes=hour.gpus)
    return f'{hour.gpus} processes: the row of one process, and a leaderboard'


def compiled(hour: Hour) -> str:
    """(e) Compiled, and with CUDA graphs: the same counts, the smaller last batch included."""
    hour.need_gpus(1)
    data, model = hour.data()['digits']
    lines = []
    for mode in (None, 'default', 'reduce-overhead'):
        options = {'compile': 'inductor', 'compile_mode': mode if mode != 'default' else ''} if mode else {}
        frame = eca_zoo.evaluate(data=data, **model, device='cuda', batch_size=64, **options)
        lines.append(f'- {mode or "eager"}: top-1 {frame.top1[0]}, error {frame.error[0]}')
    return '\n'.join(lines)


def synchronisation(hour: Hour) -> str:
    """(f) No step of a pass waits for the device, in torch's own watch (set_sync_debug_mode)."""
    hour.need_gpus(1)
    return waits_of_a_step(torch.device('cuda:0'))


def block(hour: Hour) -> str:
    """(g) What ECA costs in a ResNet-50, in each precision."""
    hour.need_gpus(1)
    texts = []
    for flags in ([], ['--amp', 'float16'], ['--amp', 'bfloat16'], ['--compile', '--amp', 'float16']):
        arguments = ['benchmark/perf/block.py', '--device', 'cuda', '-b', '256', '--channels-last', *flags]
        texts.append(f'`{" ".join(arguments)}`\n```\n{hour.command(*arguments)}```')
    return '\n'.join(texts)


def beside_timms_benchmark(hour: Hour) -> str:
    """(h) Images a second beside timm's benchmark.py; the ratio should be 0.97 to 1.03."""
    hour.need_gpus(1)
    script, lines = hour.need_timm() / 'benchmark.py', []
    for model in ('resnet18', 'resnet50', 'mobilenetv2_100'):
        ratios = []
        for _ in range(3):
            rates = []
            for number, start in enumerate((['-m', 'eca_zoo', 'benchmark'], [str(script), '--bench', 'inference'])):
                file = hour.folder / f'rate-{number}.csv'
                flags = ['--model', model, '--batch-size', '256', '--amp', '--channels-last']
                hour.command(*start, *flags, '--results-file', str(file))
                header, row = file.read_text(encoding='utf-8').splitlines()[:2]
                rates.append(float(row.split(',')[header.split(',').index('infer_samples_per_sec')]))
            ratios.append(rates[0] / rates[1])
        lines.append(f'- {model}: {sorted(ratios)[1]:.3f} ({", ".join(f"{ratio:.3f}" for ratio in ratios)})')
    return '\n'.join(lines)


def forms(hour: Hour) -> str:
    """(i) The form for inference on the GPU, beside the plain network, at batch 1 and 256."""
    hour.need_gpus(1)
    texts = []
    for batch_size in ('1', '256'):
        arguments = ['--model', 'eca_resnet50', '--baseline', 'resnet50', '-b', batch_size, '--amp', '--channels-last']
        for fuse in ([], ['--fuse']):
            out = hour.command('-m', 'eca_zoo', 'benchmark', *arguments, *fuse)
            texts.append(f'batch {batch_size} {"in the form" if fuse else "plain"}\n```\n{out}```')
    return '\n'.join(texts)


PARTS: tuple[Callable[[Hour], str], ...] = (
    tests, counts, beside_timm, memory, fan_out, torchrun, compiled, synchronisation, block, beside_timms_benchmark,
    forms,
)  # fmt: skip


def run_parts(hour: Hour, report: Path, parts: tuple[Callable[[Hour], str], ...] = PARTS) -> bool:
    """Run the parts and write the report after each; returns whether none failed."""
    environment = describe_environment(sys.argv)
    names = ', '.join(gpu['name'] for gpu in environment['gpus'])
    text = f'# The first hour on a GPU\n\nGPUs: {names or "none; what needs one was skipped"}\n'
    text += '\n'.join(f'\n{line}\n' for line in environment['busy'])
    is_good = True
    for part in parts:
        print(f'{part.__name__}: {part.__doc__}', flush=True)
        try:
            outcome, content = 'passed', part(hour)
        except Skipped as error:
            outcome, content = 'skipped', str(error)
        except Exception as error:  # a part that fails is an outcome
            outcome, content, is_good = 'FAILED', f'```\n{type(error).__name__}: {error}\n```', False
        print(f'  {outcome}', flush=True)
        text += f'\n## {part.__name__}: {outcome}\n\n{part.__doc__}\n\n{content}\n'
        write_text(
            report, f'{text}\n## Environment\n\n```json\n{json.dumps(environment, indent=2, default=str)}\n```\n'
        )
    return is_good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--report', type=Path, default=Path('gpu_report.md'))
    parser.add_argument('--timm', type=Path, help='checkout of timm, for the comparisons with its scripts')
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print('There is no GPU here: what needs none is run, and the rest is skipped.', flush=True)
    with tempfile.TemporaryDirectory(prefix='eca-zoo-gpu-') as folder:
        is_good = run_parts(Hour(Path(folder), args.timm), args.report)
    print(f'written: {args.report}')
    sys.exit(not is_good)


if __name__ == '__main__':
    main()
