"""Trains test_eca_resnet on the digits, writes its checkpoint into the package and prints its manifest entry."""

import argparse
import hashlib
import tempfile
from pathlib import Path

import timm
import torch
from digits import write_digits
from safetensors.torch import save_file
from timm.data import create_dataset, create_transform
from torch import nn

import eca_zoo  # noqa: F401 (registers the networks)

CHECKPOINT = Path(__file__).parents[1] / 'eca_zoo' / 'packaged' / 'checkpoints' / 'test_eca_resnet.digits.safetensors'
# The evaluation transform of the manifest entry; the scans are grey, so one mean and deviation serve all channels.
TRANSFORM = {
    'input_size': (3, 32, 32),
    'crop_pct': 1.0,
    'interpolation': 'bilinear',
    'mean': (0.5,) * 3,
    'std': (0.5,) * 3,
}
EPOCHS, BATCH_SIZE, LEARNING_RATE, MAX_SHIFT = 40, 64, 4e-3, 3


def read_split(folder: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 3, H, W), transformed as for evaluation, and labels (N,)."""
    dataset = create_dataset('', root=str(folder), split=split, transform=create_transform(**TRANSFORM))
    images, labels = zip(*(dataset[i] for i in range(len(dataset))), strict=True)
    return torch.stack(images), torch.tensor(labels)


def shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """``images``, each moved by up to ``MAX_SHIFT`` pixels; the border is dark as in the scans."""
    padded = nn.functional.pad(images, (MAX_SHIFT,) * 4, value=-1.0)
    height, width = images.shape[-2:]
    offsets = torch.randint(2 * MAX_SHIFT + 1, (len(images), 2), generator=generator).tolist()
    return torch.stack([image[:, y : y + height, x : x + width] for image, (y, x) in zip(padded, offsets, strict=True)])


def train(images: torch.Tensor, labels: torch.Tensor) -> nn.Module:
    """A test_eca_resnet trained with AdamW and one cycle of the learning rate."""
    torch.manual_seed(1910)
    generator = torch.Generator().manual_seed(1910)
    model = timm.create_model('test_eca_resnet', num_classes=10)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    steps = EPOCHS * (len(images) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    model.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images), generator=generator).split(BATCH_SIZE)[: len(images) // BATCH_SIZE]:
            logits = model(shifted(images[batch], generator))
            loss = nn.functional.cross_entropy(logits, labels[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_digits(Path(folder))
        model = train(*read_split(Path(folder), 'train'))
        images, labels = read_split(Path(folder), 'validation')
    with torch.inference_mode():
        correct = int((model(images).argmax(1) == labels).sum())
    CHECKPOINT.parent.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), CHECKPOINT)
    content = CHECKPOINT.read_bytes()
    print(f'{correct} of {len(labels)} held-out digits are right ({100 * correct / len(labels):.2f} %)')
    print(f'size: {len(content)}\nsha256: {hashlib.sha256(content).hexdigest()}')


if __name__ == '__main__':
    main()
