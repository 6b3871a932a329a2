"""Detectors beside torchvision's: images a second, the time after the networks, and peak memory.

python benchmark/perf/detection.py --rounds 10 [--systems maskrcnn] [--processor-time]
python benchmark/perf/detection.py --part after --rounds 50
python benchmark/perf/detection.py --part memory

``images``: one 800x1216 image, random weights, torchvision's detector and ours in turn, ours on the plain ResNet-50, on
ECA-Net50, and both in the form for inference. ``after``: what follows the networks of Mask R-CNN for one image of
480x640 with 100 detections: ours from its heads' outputs to run-length codes, torchvision's to its masks of floats,
which are not encoded yet. ``memory``: the most that a fresh process took for one image.
"""

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
import torchvision
from torchvision.models.detection.roi_heads import maskrcnn_inference

import eca_zoo
from eca_zoo.detection import create_detector
from eca_zoo.detection.networks.boxes import to_resized
from eca_zoo.detection.networks.masks import paste_codes
from eca_zoo.detection.networks.roi_heads import DetectionSettings, select_detections
from eca_zoo.detection.networks.transform import DetectionTransform

SYSTEMS = ('fasterrcnn', 'maskrcnn', 'retinanet')
THEIRS = 'torchvision'
NETWORKS = (THEIRS, 'resnet50', 'eca_resnet50', 'resnet50+form', 'eca_resnet50+form')
IMAGE_SIZE, SMALL_SIZE = (800, 1216), (480, 640)


def make_detector(system: str, network: str) -> torch.nn.Module:
    """torchvision's detector, or ours on a backbone, in the form for inference if its name says so.

    The form is channels-last, as the commands run it.
    """
    if network == THEIRS:
        name = f'{system}_resnet50_fpn'
        return torchvision.models.get_model(name, weights=None, weights_backbone=None).eval()
    backbone, _, form = network.partition('+')
    detector = create_detector(system, backbone=backbone).eval()
    if not form:
        return detector
    return eca_zoo.optimize_for_inference(detector, (3, 224, 224)).to(memory_format=torch.channels_last)


def in_turn(
    steps: dict[str, Callable[[], Any]], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:  # fmt: skip
    """Seconds of each step, all of them in turn in each round, after two rounds that warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 2):
        for name, step in steps.items():
            start = clock()
            step()
            if number >= 2:
                seconds[name].append(clock() - start)
    return seconds


@torch.inference_mode()
def images_a_second(args: argparse.Namespace) -> None:
    """Print times of whole detectors, and our images a second over torchvision's."""
    image = torch.rand(3, *IMAGE_SIZE)
    for system in args.systems:
        detectors = {network: make_detector(system, network) for network in args.networks}
        steps = {name: (lambda detector=detector: detector([image])) for name, detector in detectors.items()}
        report(system, in_turn(steps, args.rounds, args.clock))


def report(title: str, seconds: dict[str, list[float]]) -> None:
    """Print times, and the ratio of the first one's to each: median of the rounds, and of the minimums."""
    theirs = next(iter(seconds.values()))
    for name, ours in seconds.items():
        ratios = [one / other for one, other in zip(theirs, ours, strict=True)]
        print(
            f'{title:11} {name:18} median {1e3 * statistics.median(ours):8.1f} ms, minimum {1e3 * min(ours):8.1f} ms; '
            f'rate over the first: median {statistics.median(ratios):.3f}, minimums {min(theirs) / min(ours):.3f}',
            flush=True,
        )


@torch.inference_mode()
def after_the_networks(args: argparse.Namespace) -> None:
    """Print times of what follows the heads: decode, suppress, paste, and in ours encode."""
    generator = torch.Generator().manual_seed(0)
    geometry = DetectionTransform().geometry(*SMALL_SIZE)
    height, width = geometry.size
    corner = torch.rand(1000, 2, generator=generator) * torch.tensor([width * 0.7, height * 0.7])
    proposals = torch.cat([corner, corner + 20 + torch.rand(1000, 2, generator=generator) * 250], dim=1)
    proposals = proposals.clamp(max=torch.tensor([width, height, width, height]))
    logits = torch.randn(1000, 81, generator=generator) * 1.5
    deltas = torch.randn(1000, 81, 4, generator=generator)
    maps = torch.randn(100, 81, 28, 28, generator=generator)
    theirs = torchvision.models.get_model('maskrcnn_resnet50_fpn', weights=None, weights_backbone=None, num_classes=81)

    def ours() -> list[Any]:
        found = select_detections(logits, deltas, proposals, geometry, DetectionSettings())
        to_resized(found['boxes'], geometry.scale)
        chosen = maps[torch.arange(len(found['labels'])), found['labels'] + 1].sigmoid()
        codes = paste_codes(chosen, found['boxes'], SMALL_SIZE)
        assert len(codes) == 100
        return codes

    def torchvisions() -> list[dict[str, torch.Tensor]]:
        boxes, scores, labels = theirs.roi_heads.postprocess_detections(
            logits, deltas.flatten(1), [proposals], [geometry.size]
        )
        (chosen,) = maskrcnn_inference(maps, labels)
        result = [{'boxes': boxes[0], 'scores': scores[0], 'labels': labels[0], 'masks': chosen}]
        results = theirs.eval().transform.postprocess(result, [geometry.size], [SMALL_SIZE])
        assert len(results[0]['masks']) == 100
        return results

    report('after', in_turn({THEIRS: torchvisions, 'ours': ours}, args.rounds, args.clock))


def peak_mebibytes(system: str, network: str, threads: int) -> float:
    """The most memory that this process has taken after one image."""
    torch.set_num_threads(threads)
    detector = make_detector(system, network)
    with torch.inference_mode():
        detector([torch.rand(3, *IMAGE_SIZE)])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def memory(args: argparse.Namespace) -> None:
    """Print the peak memory of each detector, each in a fresh process."""
    for system in args.systems:
        for network in args.networks:
            with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as executor:
                peak = executor.submit(peak_mebibytes, system, network, args.threads).result()
            print(f'{system:11} {network:18} {peak:8.1f} MiB', flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--part', choices=['images', 'after', 'memory'], default='images')
    parser.add_argument('--systems', nargs='+', choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument('--networks', nargs='+', default=list(NETWORKS), help='the first is what others are divided by')
    parser.add_argument('--rounds', type=int, default=10)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--processor-time', action='store_true', help='of the process instead of wall time')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.clock = time.process_time if args.processor_time else time.perf_counter
    print(f'torch {torch.__version__}, torchvision {torchvision.__version__}: {vars(args)}')
    {'images': images_a_second, 'after': after_the_networks, 'memory': memory}[args.part](args)


if __name__ == '__main__':
    main()
