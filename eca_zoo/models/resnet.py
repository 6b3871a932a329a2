"""ECA-Net on ResNets: timm's ResNet with an ECA layer at the end of each block, before the residual sum."""

import functools
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.models import register_model
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

from eca_zoo.models._build import KernelSizes, build_network
from eca_zoo.models._cfg import default_cfgs_of
from eca_zoo.models.eca import EcaLayer, adaptive_kernel_size, check_kernel_size, is_better_overwritten
from eca_zoo.weights.manifest import load_manifest

_NETWORK_FIELDS = {'first_conv': 'conv1', 'classifier': 'fc'}
default_cfgs = default_cfgs_of(
    load_manifest(),
    {
        'eca_resnet18': _NETWORK_FIELDS,
        'eca_resnet34': _NETWORK_FIELDS,
        'eca_resnet50': _NETWORK_FIELDS,
        'eca_resnet101': _NETWORK_FIELDS,
        'eca_resnet152': _NETWORK_FIELDS,
        'test_eca_resnet': {'first_conv': 'conv1.0', 'classifier': 'fc'},
    },
)

__all__: list[str] = []  # timm's register_model adds the entry points


class EcaBasicBlock(BasicBlock):
    """timm's basic block, whose last norm, ECA layer and residual sum take fewer passes over memory."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x
        x = self.act1(self.drop_block(self.bn1(self.conv1(x))))
        x = self.conv2(self.aa(x))  # type: ignore[misc]
        if self.downsample is not None:
            shortcut = self.downsample(shortcut)
        if not torch.jit.is_scripting():  # noqa: SIM102 (scripting leaves out what stands under this condition alone)
            if not self.training and _may_be_overwritten(x, self.conv2, self.bn2, self.se):
                return self.act2(_norm_scale_add_(x, self.bn2, self.se, shortcut))
        x = self.bn2(x)
        if self.drop_path is not None and self.training:
            return self.act2(self.drop_path(self.se(x)) + shortcut)
        return self.act2(self.se(x, shortcut))


class EcaBottleneck(Bottleneck):
    """timm's bottleneck block, whose last norm, ECA layer and residual sum take fewer passes over memory.

    In evaluation the last convolution and its norm are affine maps of each pixel, and so commute with the mean over the
    pixels: where that reads less, the gate is computed from the mean of their input, which has a quarter of the
    channels of their output, and the output is read once less.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.aa(self.act2(self.drop_block(self.bn2(self.conv2(x)))))  # type: ignore[misc]
        means: torch.Tensor | None = None
        if not torch.jit.is_scripting():
            means = _means_after(x, self.conv3, self.bn3)
        x = self.conv3(x)
        if self.downsample is not None:
            shortcut = self.downsample(shortcut)
        if not torch.jit.is_scripting():  # noqa: SIM102
            if not self.training and _may_be_overwritten(x, self.conv3, self.bn3, self.se):
                return self.act3(_norm_scale_add_(x, self.bn3, self.se, shortcut, means))
        x = self.bn3(x)
        if self.drop_path is not None and self.training:
            return self.act3(self.drop_path(self.se(x)) + shortcut)
        return self.act3(self.se(x, shortcut, means))


def _may_be_overwritten(x: torch.Tensor, conv: nn.Module, norm: nn.Module, eca: nn.Module) -> bool:
    """Whether ``_norm_scale_add_`` may take the place of ``norm`` and ``eca`` and write into the output of ``conv``.

    It may in eager evaluation on the CPU, where it saves the memory of the norm's output; not where somebody hooks or
    has replaced one of the modules, in a graph that others are to optimise, and in half precision, in which a norm
    computes more exactly than its tensors are.
    """
    if not is_better_overwritten(x) or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    if not (_runs_unseen(conv, nn.Conv2d) and _runs_unseen(norm, nn.BatchNorm2d) and _runs_unseen(eca, EcaLayer)):
        return False
    variance: Any = norm.running_var
    if norm.training or variance is None or not norm.affine:
        return False
    return x.dtype == variance.dtype and x.dtype in (torch.float32, torch.float64)


def _runs_unseen(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether ``module`` does what its class does, and no hook of its own would notice that it is not called."""
    hooks = module._forward_hooks or module._forward_pre_hooks
    return type(module) is kind and not hooks and 'forward' not in module.__dict__


def _norm_scale_add_(
    x: torch.Tensor, norm: Any, eca: EcaLayer, shortcut: torch.Tensor, means: torch.Tensor | None = None
) -> torch.Tensor:
    """``eca(norm(x), shortcut, means)`` written into ``x``: norm and gate are one scale and one shift of a channel."""
    scale = torch.rsqrt(norm.running_var + norm.eps) * norm.weight
    shift = torch.addcmul(norm.bias, norm.running_mean, scale, value=-1)
    if means is None:
        means = torch.addcmul(shift, x.sum((2, 3)), scale, value=1 / (x.shape[2] * x.shape[3]))
    gate = eca.gate(means)
    return x.mul_(gate * scale[:, None, None]).add_(gate * shift[:, None, None]).add_(shortcut)


def _means_after(x: torch.Tensor, conv: nn.Module, norm: nn.Module) -> torch.Tensor | None:
    """Means (N, C') over height and width of ``norm(conv(x))``, from the means of ``x`` (N, C, H, W) alone.

    None where that reads more than it saves, or the two are not known to be an affine map of each pixel: a norm that
    uses the statistics of the batch, or modules that somebody has put in the place of these, or that compute their
    weight when they are called.
    """
    if not _is_cheaper_to_pool(x) or type(conv) is not nn.Conv2d or conv._forward_pre_hooks:
        return None
    if type(norm) is nn.Identity:  # folded into the convolution
        return F.linear(x.mean((2, 3)), conv.weight.flatten(1), conv.bias)
    if type(norm) not in (nn.BatchNorm2d, nn.SyncBatchNorm) or norm.training or norm.running_mean is None:
        return None
    means: Any = F.linear(x.mean((2, 3)), conv.weight.flatten(1), conv.bias)
    bn: Any = norm
    return F.batch_norm(means, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps)


def _is_cheaper_to_pool(x: torch.Tensor) -> bool:
    """Whether ``x`` (N, C, H, W) is larger than half of the weight (4 C, C), or in eager mode than two times that.

    In eager mode two more calls are made, which cost more than the read of a small output (docs/performance.md).
    Exports assume a large ``x``.
    """
    if torch.compiler.is_exporting() or not isinstance(x, torch.Tensor):
        return True
    batch, channels, height, width = x.shape
    return batch * height * width > (2 if torch.compiler.is_compiling() else 8) * channels


def _kernel_size_of_width(kernel_sizes: KernelSizes, widths: tuple[int, ...]) -> dict[int, int]:
    """Output channels of a stage to the kernel size of its ECA layers.

    Raises:
        ValueError: not one odd, positive size for each stage.
    """
    if kernel_sizes == 'adaptive':
        return {width: adaptive_kernel_size(width) for width in widths}
    if not isinstance(kernel_sizes, tuple) or len(kernel_sizes) != len(widths):
        raise ValueError(
            f"kernel_sizes must be {len(widths)} odd, positive integers, one for each stage, or 'adaptive'; "
            f'not {kernel_sizes!r}'
        )
    return dict(zip(widths, map(check_kernel_size, kernel_sizes), strict=True))


def _eca_of_width(
    kernel_size_of_width: dict[int, int],
    width: int,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> EcaLayer:
    return EcaLayer(width, kernel_size_of_width[width], device=device, dtype=dtype)


def _make_resnet(
    block: type[EcaBasicBlock | EcaBottleneck] | tuple[type[EcaBasicBlock | EcaBottleneck], ...],
    channels: tuple[int, ...] = (64, 128, 256, 512),
    *,
    kernel_sizes: KernelSizes,
    **kwargs: Any,
) -> ResNet:
    blocks = block if isinstance(block, tuple) else (block,) * len(channels)
    widths = tuple(planes * stage.expansion for planes, stage in zip(channels, blocks, strict=True))
    attention = functools.partial(_eca_of_width, _kernel_size_of_width(kernel_sizes, widths))
    return ResNet(cast(Any, block), channels=channels, block_args={'attn_layer': attention}, **kwargs)


def _eca_resnet(variant: str, pretrained: bool, default_kernel_sizes: tuple[int, ...], **kwargs: Any) -> ResNet:
    """Build ``variant`` with the arguments of its block and timm's."""
    network = build_network(_make_resnet, variant, pretrained, default_kernel_sizes=default_kernel_sizes, **kwargs)
    return cast(ResNet, network)


@register_model
def eca_resnet18(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ECA-Net18: ResNet-18 with kernel sizes 3, 5, 7, 7."""
    arguments = {'block': EcaBasicBlock, 'layers': (2, 2, 2, 2)}
    return _eca_resnet('eca_resnet18', pretrained, (3, 5, 7, 7), **{**arguments, **kwargs})


@register_model
def eca_resnet34(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ECA-Net34: ResNet-34 with kernel sizes 3, 3, 5, 7."""
    arguments = {'block': EcaBasicBlock, 'layers': (3, 4, 6, 3)}
    return _eca_resnet('eca_resnet34', pretrained, (3, 3, 5, 7), **{**arguments, **kwargs})


@register_model
def eca_resnet50(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ECA-Net50: ResNet-50 with kernel sizes 3, 5, 5, 7."""
    arguments = {'block': EcaBottleneck, 'layers': (3, 4, 6, 3)}
    return _eca_resnet('eca_resnet50', pretrained, (3, 5, 5, 7), **{**arguments, **kwargs})


@register_model
def eca_resnet101(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ECA-Net101: ResNet-101 with kernel sizes 3, 3, 5, 7."""
    arguments = {'block': EcaBottleneck, 'layers': (3, 4, 23, 3)}
    return _eca_resnet('eca_resnet101', pretrained, (3, 3, 5, 7), **{**arguments, **kwargs})


@register_model
def eca_resnet152(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ECA-Net152: ResNet-152 with kernel sizes 3, 3, 5, 7."""
    arguments = {'block': EcaBottleneck, 'layers': (3, 8, 36, 3)}
    return _eca_resnet('eca_resnet152', pretrained, (3, 3, 5, 7), **{**arguments, **kwargs})


@register_model
def test_eca_resnet(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """A network under 0.6 M parameters with both kinds of block, for tests and the demo."""
    arguments = {
        'block': (EcaBasicBlock, EcaBasicBlock, EcaBottleneck, EcaBasicBlock),
        'layers': (1, 1, 1, 1),
        'channels': (32, 48, 48, 96),
        'stem_type': 'deep',
        'stem_width': 16,
        'avg_down': True,
    }
    return _eca_resnet('test_eca_resnet', pretrained, (3, 3, 5, 5), **{**arguments, **kwargs})
