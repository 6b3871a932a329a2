"""Compares parameters and multiply-adds with a benchmark table that timm publishes, and says why rows differ.

python scripts/compare_complexity.py CHECKOUT_OF_TIMM/results/benchmark-infer-amp-nchw-pt291-cu130-pro6000maxq.csv

A row agrees where both figures are within 0.5 %, or within half of the last digit that is printed. Each reason is
checked and not only claimed: what it stands for is counted, and the row must agree then. A row that no reason explains
is printed, and the exit code is 1. Activations are compared too, for the sum alone.
"""

import argparse
import collections
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from timm.layers import set_fused_attn, use_fused_attn
from torch import nn

from eca_zoo.harness.networks.building import create_network
from eca_zoo.harness.networks.complexity import Complexity, complexity_of_spec, count_complexity
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.table.frames import read_table

AGREES = 'agrees'
FOLDED = 'its branches are folded: timm ran it with --reparam'
UNCOUNTED = "fvcore does not count its LSTMs, or its convolutions with padding='same'"
NOT_FUSED = (
    'its differential attention multiplies the values twice where it is fused, as it runs; timm counted it not fused'
)
OTHER = 'the row is that of another network'
UNEXPLAINED = 'unexplained'
# Found by looking for the network whose counts the row has.
_ROWS_OF_OTHERS = {'ecaresnext50t_32x4d': 'ecaresnext26t_32x4d'}


class Counts(NamedTuple):
    """Millions of parameters, thousand millions of multiply-adds as fvcore counts them, millions of activations."""

    params: float
    gmacs: float
    macts: float


def counts(found: Complexity) -> Counts:
    """Of a network that we have counted."""
    return Counts(found.params / 1e6, found.macs_fvcore / 1e9, found.activations / 1e6)


def agree(ours: float, theirs: float) -> bool:
    """Whether two figures are equal within 0.5 %, or half of the second digit after the point."""
    return math.isclose(ours, theirs, rel_tol=0.005, abs_tol=0.00501)


def same(ours: Counts, theirs: Counts) -> bool:
    """Whether a row has our figures."""
    return agree(ours.params, theirs.params) and agree(ours.gmacs, theirs.gmacs)


def without_uncounted(name: str, img_size: int) -> Counts:
    """Our counts, without what fvcore has no handle for."""
    missed = 0

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
        nonlocal missed
        if isinstance(module, nn.LSTM):
            # Each weight is used once for each element of the sequence.
            weights = sum(weight.numel() for key, weight in module.named_parameters() if key.startswith('weight'))
            missed += weights * inputs[0].shape[:2].numel()
        elif isinstance(module, nn.Conv2d) and isinstance(module.padding, str):
            missed += module.weight.numel() * output[:, 0].numel()

    with torch.device('meta'):
        model = create_network(name, img_size)
    for module in model.modules():
        module.register_forward_hook(count)
    found = counts(count_complexity(model, (3, img_size, img_size), name))
    return found._replace(gmacs=found.gmacs - missed / 1e9)


def with_attention_not_fused(name: str, img_size: int) -> Counts:
    """Our counts of a network whose attention is made of matrix products."""
    before = use_fused_attn()
    set_fused_attn(False)
    try:
        return counts(complexity_of_spec(ModelSpec(name), img_size))
    finally:
        set_fused_attn(before)


def reason(name: str, img_size: int, ours: Counts, theirs: Counts) -> str:
    """Why a row has other figures."""

    def reasons() -> Iterator[tuple[str, Counts]]:
        yield AGREES, ours
        yield FOLDED, counts(complexity_of_spec(ModelSpec(name), img_size, reparameterize=True))
        yield UNCOUNTED, without_uncounted(name, img_size)
        yield NOT_FUSED, with_attention_not_fused(name, img_size)
        if name in _ROWS_OF_OTHERS:
            yield OTHER, counts(complexity_of_spec(ModelSpec(_ROWS_OF_OTHERS[name]), img_size))

    return next((text for text, counted in reasons() if same(counted, theirs)), UNEXPLAINED)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('table', type=Path, help='results/benchmark-infer-*.csv of timm, with infer_gmacs')
    parser.add_argument('--limit', type=int, help='only so many rows, evenly spread')
    args = parser.parse_args()
    table = read_table(args.table)
    if args.limit:
        table = table.iloc[:: max(1, len(table) // args.limit)].head(args.limit)
    rows: dict[str, list[str]] = collections.defaultdict(list)
    agreeing: collections.Counter[str] = collections.Counter()
    start = time.process_time()
    columns = ['model', 'infer_img_size', 'param_count', 'infer_gmacs', 'infer_macts']
    for name, img_size, *figures in table[columns].itertuples(index=False):
        theirs = Counts(*map(float, figures))
        ours = counts(complexity_of_spec(ModelSpec(name), int(img_size)))
        agreeing.update(key for key in Counts._fields if agree(getattr(ours, key), getattr(theirs, key)))
        text = reason(name, int(img_size), ours, theirs)
        rows[text].append(name)
        if text == UNEXPLAINED:
            print(f'{name} at {img_size}: ours {[round(figure, 3) for figure in ours]}, timm {list(theirs)}')
    print(f'{len(table)} rows, {time.process_time() - start:.0f} s of processor time')
    print('agree: ' + ', '.join(f'{key} {agreeing[key]}' for key in Counts._fields))
    for text, names in sorted(rows.items(), key=lambda item: -len(item[1])):
        shown = '' if text == AGREES else f': {", ".join(names[:4])}{", ..." if len(names) > 4 else ""}'
        print(f'{len(names):5} {text}{shown}')
    return int(UNEXPLAINED in rows)


if __name__ == '__main__':
    sys.exit(main())
