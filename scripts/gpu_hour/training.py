"""Parts of the first hour that train, and that detect: on every device that is there."""

import hashlib

import pandas as pd
from canvases.digit_canvases import write_canvases
from gpu_hour.hour import Hour

import eca_zoo
from eca_zoo.detection.coco_images import open_coco
from eca_zoo.detection.evaluation.detector_spec import DetectorSettings, DetectorSpec
from eca_zoo.detection.evaluation.run import evaluate_detectors

_DETECTOR = 'test_maskrcnn.digits'
_CANVASES = {'train': 32, 'validation': 24}
_PRECISIONS = {'fp32': [], 'amp': ['--amp'], 'amp_bf16': ['--amp', '--amp-dtype', 'bfloat16']}


def training(hour: Hour) -> str:
    """(j) An epoch of the digits on every device and precision; the same run again has the same bits."""
    lines = []
    for device in _devices(hour):
        for name in _PRECISIONS if device == 'cuda' else ('fp32',):
            (epochs, first), (_, second) = (_digits(hour, device, number, *_PRECISIONS[name]) for number in (0, 1))
            bits = 'equal' if first == second else 'DIFFERENT'
            lines.append(
                f'- {device}, {name}: loss {epochs.loss.iloc[-1]:.6f}, top-1 {epochs.top1.iloc[-1]:.2f} %, '
                f'{epochs.images_per_sec.iloc[-1]:g} images/s, again: bits {bits}'
            )
            if first != second:
                raise AssertionError('\n'.join(lines))
    return '\n'.join(lines)


def detection(hour: Hour) -> str:
    """(j) The packaged detector on every device and precision, and an epoch of its training; the CPU's AP beside."""
    canvases = hour.folder / 'canvases'
    for split, count in _CANVASES.items():
        write_canvases(canvases, split, count)
    data, lines = open_coco(canvases, 'validation'), []
    for device in _devices(hour):
        for precision in ('fp32', 'amp', 'amp_bf16') if device == 'cuda' else ('fp32',):
            settings = DetectorSettings(device, precision)
            [result] = evaluate_detectors([DetectorSpec(_DETECTOR)], data, settings, resamples=0)
            if result.error is not None:
                raise RuntimeError(result.error)
            found = ', '.join(f'{task} AP {one.figures["ap"]:.6f}' for task, one in result.tasks.items())
            lines.append(f'- {device}, {precision}: {found} of {result.num_images} canvases')
        folder = hour.folder / f'detection-{device}'
        frame = eca_zoo.train('canvases', data_dir=canvases, run_dir=folder, device=device, epochs=1)
        lines.append(f'- {device}, training: loss {frame.loss[0]:.6f}, {frame.images_per_sec[0]:g} images/s')
    return '\n'.join(lines)


def _devices(hour: Hour) -> list[str]:
    return ['cpu', 'cuda'] if hour.gpus else ['cpu']


def _digits(hour: Hour, device: str, number: int, *flags: str) -> tuple[pd.DataFrame, str]:
    """The epochs of a training, and the hash of its weights."""
    folder = hour.folder / '-'.join(['training', device, *flags, str(number)])
    command = ['-m', 'eca_zoo', 'train', 'digits', '--epochs', '1', '--deterministic', '--device', device, *flags]
    hour.command(*command, '--run-dir', str(folder), CUBLAS_WORKSPACE_CONFIG=':4096:8')
    log = pd.read_csv(folder / 'log.csv')
    return log[log.kind == 'epoch'], hashlib.sha256((folder / 'last.safetensors').read_bytes()).hexdigest()
