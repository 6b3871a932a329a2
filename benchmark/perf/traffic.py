"""Memory traffic of a bottleneck's tail by variant: bytes for each image, and the time that they take at a bandwidth.

A model, not a measurement: passes over memory after the last convolution, with nothing left in a cache between them.

    python benchmark/perf/traffic.py --bytes 2 --bandwidth 3.35e12
"""

import argparse

# Blocks, output channels and side of the output of each stage of ResNet-50 at 224x224.
STAGES = [(3, 256, 56), (4, 512, 28), (6, 1024, 14), (3, 2048, 7)]
# Reads and writes of the block's output tensor by each pass. A quarter: the input of the last convolution, pooled
# instead (not in the last stage, where the form pools the output: one pass). What a compiler fuses is one pass: norm,
# scale, sum and activation; a mean with the pass before it.
VARIANTS = {
    'plain ResNet, eager': {'norm': 2, 'add in place': 3, 'relu in place': 2},
    'ECA, eager': {'norm': 2, 'mean': 1, 'scale': 2, 'add in place': 3, 'relu in place': 2},
    'plain ResNet in the form': {'add in place': 3, 'relu in place': 2},
    'ECA in the form': {'mean of the input': 0.25, 'scale and add in place': 3, 'relu in place': 2},
    'plain ResNet, compiled': {'norm, add, relu': 3},
    'ECA, compiled': {'norm, mean': 1, 'norm, scale, add, relu': 3},
    'ECA in the form, compiled': {'mean, in the pass that writes its input': 0, 'scale, add, relu': 3},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--bytes', type=int, default=2, help='of an element: 2 for fp16 and bf16, 4 for fp32')
    parser.add_argument(
        '--bandwidth', type=float, default=3.35e12, help='bytes a second (3.35e12: an H100 by its data sheet)'
    )
    args = parser.parse_args()
    output = sum(blocks * channels * side**2 for blocks, channels, side in STAGES) * args.bytes
    print(f'block outputs of ResNet-50, one image: {output / 1e6:.2f} MB')
    print(f'{"variant":26}{"passes":>8}{"MB/image":>10}{"us/image":>10}   pass: reads and writes of the output')
    for name, passes in VARIANTS.items():
        total = sum(passes.values()) * output
        detail = '; '.join(f'{what}: {count:g}' for what, count in passes.items())
        print(f'{name:26}{sum(passes.values()):8.2f}{total / 1e6:10.1f}{1e6 * total / args.bandwidth:10.2f}   {detail}')


if __name__ == '__main__':
    main()
