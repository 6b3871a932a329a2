"""Which backend runs an ECA network best, and what ECA costs in each: images a second, in turn with ResNet-50.

python benchmark/perf/backends.py --batch-size 1 --rounds 20 [--threads 2]

Within a backend the networks run in turn; `relative` is the median of the ratios to ResNet-50 in the same round.
Backends run one after the other: on a machine that drifts, compare their ratios rather than their images a second.
"""

import argparse
import importlib.util

import torch

from eca_zoo.harness.machine.environment import processor_name
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.speed.rounds import measure_throughput
from eca_zoo.harness.speed.settings import ThroughputSettings

BASELINE = ModelSpec('resnet50')
NETWORKS = (
    ModelSpec('eca_resnet50'),
    ModelSpec('seresnet50'),
)
CONFIGURATIONS = {
    'torch': {},
    'torch, channels-last': {'channels_last': True},
    'torch, channels-last, fused': {'channels_last': True, 'fuse': True},
    'torch, inductor': {'compile': 'inductor'},
    'torch, inductor, fused': {'compile': 'inductor', 'fuse': True},
    'onnxruntime': {'backend': 'onnxruntime'},
    'onnxruntime, fused': {'backend': 'onnxruntime', 'fuse': True},
    'openvino': {'backend': 'openvino'},
    'openvino, fused': {'backend': 'openvino', 'fuse': True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--batch-size', '-b', type=int, default=1)
    parser.add_argument('--rounds', type=int, default=20)
    parser.add_argument('--round-seconds', type=float, default=0.5)
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--only', nargs='+', choices=tuple(CONFIGURATIONS), default=tuple(CONFIGURATIONS))
    args = parser.parse_args()
    print(f'torch {torch.__version__}, {processor_name()}, {args.threads} threads: {vars(args)}')
    print(f'{"backend":30}{"network":28}{"images/s":>10}{"spread %":>10}{"relative":>10}')
    for title in args.only:
        changes = CONFIGURATIONS[title]
        if importlib.util.find_spec(str(changes.get('backend', 'torch'))) is None:
            print(f'{title:30}not installed')
            continue
        settings = ThroughputSettings(
            device='cpu', img_size=224, batch_size=args.batch_size, rounds=args.rounds,
            round_seconds=args.round_seconds, threads=args.threads, **changes,
        )  # fmt: skip
        for result in measure_throughput(NETWORKS, settings, BASELINE):
            if result.error is not None or result.samples_per_sec is None:
                print(f'{title:30}{result.model:28}{result.error}')
                continue
            figures = f'{result.samples_per_sec:10.2f}{result.spread_percent:10.1f}{result.relative:10.3f}'
            print(f'{title:30}{result.model:28}{figures}', flush=True)


if __name__ == '__main__':
    main()
