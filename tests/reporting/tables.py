"""Tables for the tests of the page."""

import json
from pathlib import Path

from eca_zoo.harness.table.files import to_csv
from eca_zoo.harness.table.frames import to_frame

HOSTILE = '</script><img src=x onerror=document.title="pwned">'
NETWORKS = (
    # model, top-1 of 50,000 ImageNet images, images/s
    ('eca_resnet18', 70.9, 50.0),
    ('eca_resnet34', 74.2, 30.0),
    ('eca_resnet50', 77.4, 20.0),
    ('resnet50', 77.3, 21.0),
    ('slow', 70.0, 19.0),
)


def rows():
    """Rows of ImageNet under two settings, of digits, with a reported figure, and one that failed."""
    found = []
    for precision, factor in (('fp32', 1), ('bf16', 3)):
        for name, top1, rate in NETWORKS:
            found.append(
                {
                    'model': name, 'dataset': 'imagenet-1k', 'num_images': 50_000, 'top1': top1, 'top5': top1 + 15,
                    'infer_samples_per_sec': rate * factor, 'precision': precision, 'device': 'cpu', 'img_size': 224,
                    'infer_gmacs': top1 / 20, 'reported_top1': 77.42 if name == 'eca_resnet50' else None,
                    'delta_top1': -0.02 if name == 'eca_resnet50' else None,
                }
            )  # fmt: skip
    found.append(
        {'model': 'digits', 'dataset': 'digits', 'num_images': 300, 'top1': 99.7, 'infer_samples_per_sec': 99.0}
    )
    found.append(
        {'model': 'eca_mobilenetv2', 'reported_top1': 72.56, 'infer_samples_per_sec': 70.0, 'precision': 'fp32'}
    )
    found.append({'model': HOSTILE, 'error': f'failed: {HOSTILE}'})
    return found


def run_directory(folder: Path, more: float = 0.0) -> Path:
    """A run directory with the table of ``rows``, whose top-1 are ``more`` percentage points higher."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [row | ({'top1': row['top1'] + more} if 'top1' in row else {}) for row in rows()]
    (folder / 'leaderboard.csv').write_text(to_csv(to_frame(made)), encoding='utf-8')
    environment = {
        'suite': 'imagenet', 'command_line': ['/somewhere/bin/eca-zoo', 'leaderboard', 'imagenet', '--out', 'a b'],
        'versions': {'torch': '2.14.1', 'timm': '1.0.31'}, 'processor': 'a processor', 'cpus': 2, 'gpus': [],
    }  # fmt: skip
    (folder / 'environment.json').write_text(json.dumps(environment), encoding='utf-8')
    reasons = {'eca_mobilenetv2': {'top1': 'the weights need conversion'}}
    (folder / 'reasons.json').write_text(json.dumps(reasons), encoding='utf-8')
    return folder


def long_table(path: Path, number: int) -> Path:
    """A table of ``number`` rows with as much in a row as timm's published ones."""
    made = [
        {
            'model': f'network_{index:05d}.tag_of_some_length_in1k', 'dataset': 'imagenet-1k', 'num_images': 50_000,
            'img_size': 224 + 32 * (index % 5), 'top1': 60 + index % 2900 / 100, 'top5': 80 + index % 1900 / 100,
            'top1_err': 40 - index % 2900 / 100, 'top5_err': 20 - index % 1900 / 100, 'crop_pct': 0.9,
            'interpolation': 'bicubic', 'param_count': 5 + index % 700, 'infer_gmacs': 0.3 + index % 97,
            'infer_macts': 3 + index % 89, 'infer_samples_per_sec': 40 + index * 7919 % 9973, 'infer_step_time': 12.5,
        }
        for index in range(number)
    ]  # fmt: skip
    path.write_text(to_csv(to_frame(made)), encoding='utf-8')
    return path
