"""A network, verified weights, an accuracy and a throughput: the package in one screen, on data that needs no download.

Run it from a clone: python examples/quickstart.py
"""

import sys
import tempfile
from pathlib import Path

import timm
import torch

import eca_zoo  # registers the networks with timm

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'scripts'))
from digits import write_digits

MODEL = 'test_eca_resnet.digits'


def main() -> None:
    network = timm.create_model('eca_resnet50', num_classes=10).eval()
    with torch.no_grad():
        print('logits of eca_resnet50:', tuple(network(torch.randn(1, 3, 224, 224)).shape))
    with tempfile.TemporaryDirectory() as folder:
        write_digits(Path(folder))
        accuracy = eca_zoo.evaluate(MODEL, folder, device='cpu', workers=0)
    print(accuracy[['model', 'num_images', 'top1', 'top1_ci95']].to_string(index=False))
    counts = eca_zoo.complexity(['eca_resnet50', 'resnet50'], img_size=224)  # by default each network's own
    print(counts[['model', 'params', 'infer_gmacs', 'infer_img_size']].to_string(index=False))


if __name__ == '__main__':
    main()
