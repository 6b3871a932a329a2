"""Trains test_maskrcnn on digit canvases, writes its checkpoint into the package and prints its manifest entry.

From the packaged test_eca_resnet.digits on; each step sees new canvases. Tensors are stored in float16, so that the
package stays small; loading makes them float32.
"""

import argparse
import hashlib
import logging
from pathlib import Path

import torch
from digit_canvases import CATEGORIES, Canvases
from safetensors.torch import save_file

from eca_zoo.detection import create_detector
from eca_zoo.progress import ProgressBars

CHECKPOINT = Path(__file__).parents[2] / 'eca_zoo' / 'packaged' / 'checkpoints' / 'test_maskrcnn.digits.safetensors'
STEPS, BATCH_SIZE = 1500, 8
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, LARGEST_NORM = 0.02, 0.9, 1e-4, 10.0
WARM_UP, DECAYS = 100, (0.70, 0.92)


def learning_rate(step: int, steps: int) -> float:
    """Linear over the first steps, divided by ten at each of ``DECAYS``."""
    decayed = sum(step >= share * steps for share in DECAYS)
    return LEARNING_RATE * min((step + 1) / WARM_UP, 1.0) / 10**decayed


def batch(canvases: Canvases, step: int) -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]:
    """Images (3, H, W) in uint8 and their targets."""
    images, targets = [], []
    for number in range(step * BATCH_SIZE, (step + 1) * BATCH_SIZE):
        pixels, objects = canvases.make(number)
        boxes = torch.tensor([one['bbox'] for one in objects], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = [torch.from_numpy(one['mask']) for one in objects]
        images.append(torch.from_numpy(pixels).permute(2, 0, 1))
        targets.append(
            {
                'boxes': boxes,
                'labels': torch.tensor([one['category_id'] for one in objects], dtype=torch.int64),
                'masks': torch.stack(masks) if masks else torch.zeros(0, *pixels.shape[:2], dtype=torch.bool),
            }
        )
    return images, targets


def train(steps: int) -> torch.nn.Module:
    """A test_maskrcnn trained with SGD."""
    torch.manual_seed(1910)
    categories = {entry['id']: entry['name'] for entry in CATEGORIES}
    detector = create_detector('test_maskrcnn', categories=categories, pretrained_backbone=True).train()
    optimizer = torch.optim.SGD(
        detector.parameters(), LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )  # fmt: skip
    canvases = Canvases('train')
    with ProgressBars() as bars:
        for step in range(steps):
            optimizer.param_groups[0]['lr'] = learning_rate(step, steps)
            losses = detector(*batch(canvases, step))
            loss = torch.stack(list(losses.values())).sum()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(detector.parameters(), LARGEST_NORM)
            optimizer.step()
            bars.show('training', step + 1, steps, f'loss {loss.item():.3f}', 'step')
    return detector.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--steps', type=int, default=STEPS, metavar='N', help=f'default: {STEPS}')
    parser.add_argument('--out', type=Path, default=CHECKPOINT, metavar='FILE', help='default: in the package')
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    detector = train(args.steps)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    state = {
        key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in detector.state_dict().items()
    }
    save_file(state, args.out)
    content = args.out.read_bytes()
    print(f'{args.out}\nsize: {len(content)}\nsha256: {hashlib.sha256(content).hexdigest()}')


if __name__ == '__main__':
    main()
