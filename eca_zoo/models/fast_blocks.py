"""The blocks of ECA networks for inference: norms folded, the gate early where that reads less, the rest in place.

They compute what timm's blocks with an ``EcaLayer`` compute in evaluation, from tensors that are made from theirs.
"""

from typing import Any

import torch
from timm.layers import DropPath
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from timm.models.resnet import BasicBlock, Bottleneck
from torch import nn

from eca_zoo.models.eca import EcaConv1d, EcaLayer
from eca_zoo.models.fold_norms import can_fold, folded, rest_of

# An early gate reads a matrix of 4 C x C to save a pass over 4 C channels. With 512 channels the matrix is larger than
# that pass up to a batch of 10 (224 pixels), and the product with it takes longer than the pass. So it is on CPUs; for
# another device, benchmark/perf/early_gate.py measures it.
WIDEST_EARLY_GATE = 256


class FilterGate(nn.Module):
    """The factors by which an ``EcaLayer`` scales the channels of its input."""

    def __init__(self, eca: EcaLayer) -> None:
        super().__init__()
        self.conv = eca.conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Gate (N, C, 1, 1) for ``x`` (N, C, H, W)."""
        return self.conv(x.mean((2, 3)).unsqueeze(1)).sigmoid().transpose(1, 2).unsqueeze(-1)


class OneTapGate(nn.Module):
    """A ``FilterGate`` whose filter has one tap: a factor for all channels."""

    def __init__(self, eca: EcaLayer) -> None:
        super().__init__()
        self.tap = _constant(eca.conv.weight.reshape(()), eca.conv.weight.dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Gate (N, C, 1, 1) for ``x`` (N, C, H, W)."""
        return (x.mean((2, 3), keepdim=True) * self.tap).sigmoid()


class EarlyGate(nn.Module):
    """The gate of what a convolution of each pixel puts out, from the means of its input, which are fewer.

    The convolution with its norm and the gate's filter are affine, so they commute with the mean over the pixels: with
    the weight W, the bias b and the filter as a banded matrix F, the gate is sigmoid(F W mean(x) + F b).
    """

    def __init__(self, eca: EcaLayer, conv: nn.Conv2d) -> None:
        super().__init__()
        assert conv.bias is not None
        band = _band(eca.conv.weight.detach().double().flatten(), conv.out_channels)
        self.linear = nn.Linear(conv.in_channels, conv.out_channels, device='meta')
        self.linear.weight = _constant(band @ conv.weight.double().flatten(1), conv.weight.dtype)
        self.linear.bias = _constant(band @ conv.bias.double(), conv.weight.dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Gate (N, C', 1, 1) of the convolution's output for its input ``x`` (N, C, H, W)."""
        return self.linear(x.mean((2, 3))).sigmoid().unsqueeze(-1).unsqueeze(-1)


def _band(taps: torch.Tensor, channels: int) -> torch.Tensor:
    """The matrix (channels, channels) that filters a vector, padded with zeros, as a convolution with ``taps`` does."""
    band = taps.new_zeros(channels, channels)
    half = taps.numel() // 2
    for offset in range(-half, half + 1):
        band.diagonal(offset).fill_(taps[half + offset])
    return band


def _constant(tensor: torch.Tensor, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(tensor.detach().to(dtype), requires_grad=False)


def _scaled_sum_(x: torch.Tensor, gate: torch.Tensor, shortcut: torch.Tensor) -> torch.Tensor:
    """``x * gate + shortcut``, written over ``x``; in eager mode by an operator that takes one pass."""
    if torch.jit.is_scripting() or torch.compiler.is_compiling():
        return x.mul_(gate).add_(shortcut)
    return torch.addcmul(shortcut, x, gate, out=x)


class FastBasicBlock(nn.Module):
    """timm's ``BasicBlock`` with an ``EcaLayer``, in evaluation."""

    def __init__(self, block: BasicBlock) -> None:
        super().__init__()
        self.conv1, self.act1 = folded(block.conv1, block.bn1), block.act1
        self.conv2, self.act2 = folded(block.conv2, block.bn2), block.act2
        self.gate = FilterGate(block.se)
        self.downsample = block.downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x
        x = self.act1(self.conv1(x))
        x = self.conv2(x)
        gate = self.gate(x)
        if self.downsample is not None:
            shortcut = self.downsample(shortcut)
        return self.act2(_scaled_sum_(x, gate, shortcut))


class FastBottleneck(nn.Module):
    """timm's ``Bottleneck`` with an ``EcaLayer``, in evaluation."""

    def __init__(self, block: Bottleneck, widest_early_gate: int = WIDEST_EARLY_GATE) -> None:
        super().__init__()
        self.conv1, self.act1 = folded(block.conv1, block.bn1), block.act1
        self.conv2, self.act2 = folded(block.conv2, block.bn2), block.act2
        self.conv3, self.act3 = folded(block.conv3, block.bn3), block.act3
        self.has_early_gate = self.conv3.in_channels <= widest_early_gate
        self.gate = EarlyGate(block.se, self.conv3) if self.has_early_gate else FilterGate(block.se)
        self.downsample = block.downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x
        x = self.act1(self.conv1(x))
        x = self.act2(self.conv2(x))
        if self.has_early_gate:
            gate = self.gate(x)
            x = self.conv3(x)
        else:
            x = self.conv3(x)
            gate = self.gate(x)
        if self.downsample is not None:
            shortcut = self.downsample(shortcut)
        return self.act3(_scaled_sum_(x, gate, shortcut))


class FastInvertedResidual(nn.Module):
    """timm's ``InvertedResidual`` or ``DepthwiseSeparableConv`` with an ``EcaLayer`` after the last norm."""

    def __init__(self, block: InvertedResidual | DepthwiseSeparableConv) -> None:
        super().__init__()
        *inner, (conv, norm) = _pairs(block)
        self.inner = nn.Sequential(*(layer for pair in inner for layer in (folded(*pair), rest_of(pair[1]))))
        self.conv = folded(conv, norm)
        self.gate = OneTapGate(norm.act) if norm.act.conv.kernel_size == (1,) else FilterGate(norm.act)
        self.has_skip = block.has_skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x
        x = self.conv(self.inner(x))
        gate = self.gate(x)
        return _scaled_sum_(x, gate, shortcut) if self.has_skip else x.mul_(gate)


def _pairs(block: Any) -> list[tuple[Any, Any]]:
    """The convolutions of a block of timm's, in order, each with the norm that follows it."""
    kind = type(block)
    if kind is BasicBlock:
        return [(block.conv1, block.bn1), (block.conv2, block.bn2)]
    if kind is Bottleneck:
        return [(block.conv1, block.bn1), (block.conv2, block.bn2), (block.conv3, block.bn3)]
    if kind is DepthwiseSeparableConv:
        return [(block.conv_dw, block.bn1), (block.conv_pw, block.bn2)]
    assert kind is InvertedResidual
    return [(block.conv_pw, block.bn1), (block.conv_dw, block.bn2), (block.conv_pwl, block.bn3)]


_FAST: dict[type[nn.Module], Any] = {
    BasicBlock: FastBasicBlock,
    Bottleneck: FastBottleneck,
    DepthwiseSeparableConv: FastInvertedResidual,
    InvertedResidual: FastInvertedResidual,
}
FAST_BLOCKS = (FastBasicBlock, FastBottleneck, FastInvertedResidual)


def has_fast_form(block: nn.Module) -> bool:
    """Whether ``block`` is one of timm's with an ``EcaLayer`` at its end, and every part of it what is expected."""
    if type(block) not in _FAST:
        return False
    pairs = _pairs(block)
    return (
        all(can_fold(conv, norm) for conv, norm in pairs)
        and _is_plain_eca(_last_layer(block))
        and all(map(_does_nothing, _left_out(block)))
        and (type(block) is not Bottleneck or _is_of_each_pixel(block.conv3))
    )


def fast_form(block: nn.Module, widest_early_gate: int = WIDEST_EARLY_GATE) -> nn.Module:
    """The fast block that takes over the layers of ``block``, for which ``has_fast_form`` holds.

    Args:
        block: one of timm's.
        widest_early_gate: a bottleneck's gate is early up to so many channels before its last convolution.
    """
    return FastBottleneck(block, widest_early_gate) if type(block) is Bottleneck else _FAST[type(block)](block)


def _last_layer(block: Any) -> Any:
    return block.se if isinstance(block, BasicBlock | Bottleneck) else getattr(_pairs(block)[-1][1], 'act', None)


def _is_plain_eca(layer: nn.Module | None) -> bool:
    return type(layer) is EcaLayer and type(layer.conv) is EcaConv1d and layer.conv.keeps_length_without_bias()


def _left_out(block: Any) -> list[nn.Module | None]:
    """The parts that the fast blocks do without."""
    if isinstance(block, BasicBlock | Bottleneck):
        return [block.aa, block.drop_block, block.drop_path, *(rest_of(norm) for _, norm in _pairs(block))]
    return [block.conv_s2d, block.bn_s2d, block.aa, block.se, block.drop_path, _pairs(block)[-1][1].drop]


def _does_nothing(module: nn.Module | None) -> bool:
    """In evaluation."""
    return module is None or type(module) in (nn.Identity, DropPath)


def _is_of_each_pixel(conv: nn.Conv2d) -> bool:
    return conv.kernel_size == conv.stride == (1, 1) and conv.padding == (0, 0) and conv.groups == 1
