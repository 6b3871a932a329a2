"""The networks once more, from timm's blocks and a gate written out: what any tool must find in ours."""

import copy

import timm
import torch
from timm.models import EfficientNet
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

import eca_zoo

# Both kinds of residual block, and the inverted residual.
KINDS = ['test_eca_resnet', 'eca_mobilenetv2']
SIDE = 128

_RESNETS = {
    'test_eca_resnet': {
        'block': (BasicBlock, BasicBlock, Bottleneck, BasicBlock),
        'layers': (1, 1, 1, 1),
        'channels': (32, 48, 48, 96),
        'stem_type': 'deep',
        'stem_width': 16,
        'avg_down': True,
    },
    'eca_resnet18': {'block': BasicBlock, 'layers': (2, 2, 2, 2)},
    'eca_resnet50': {'block': Bottleneck, 'layers': (3, 4, 6, 3)},
}
# Of MobileNetV2's blocks: without and with shortcut, gates of one tap and of three.
_FIVE_BLOCKS = [['ds_r1_k3_s1_c16'], ['ir_r2_k3_s2_e6_c24'], ['ir_r2_k3_s2_e6_c96']]


class PlainEca(nn.Module):
    """Scales each channel by the sigmoid of ``torch.nn``'s convolution over the channel means."""

    def __init__(self, kernel_size: int, **placement) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2, bias=False, **placement)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        means = x.mean((2, 3))
        gate = torch.sigmoid(self.conv(means.unsqueeze(1)).squeeze(1))
        return x * gate.unsqueeze(-1).unsqueeze(-1)


def images(batch: int, side: int = SIDE, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0)).to(dtype)


def ours_and_plain(name: str, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, nn.Module]:
    """The network with random norms and strong gates, and the plain one with its weights; both in evaluation mode."""
    arguments = {'num_classes': 10}
    if name == 'eca_mobilenetv2':
        arguments['block_args'] = decode_arch_def(_FIVE_BLOCKS)
    ours = _randomised(timm.create_model(name, **copy.deepcopy(arguments)))
    if name == 'eca_mobilenetv2':
        plain = EfficientNet(act_layer=nn.ReLU6, **arguments)
        for norm, gate in zip(_last_norms(plain), _gates_of(ours), strict=True):
            norm.act = PlainEca(gate.conv.kernel_size[0])
    else:
        sizes = iter([gate.conv.kernel_size[0] for gate in _gates_of(ours)])
        attention = {'attn_layer': lambda channels, **placement: PlainEca(next(sizes), **placement)}
        plain = ResNet(**arguments, block_args=attention, **_RESNETS[name])
    plain.load_state_dict(ours.state_dict())
    return ours.to(dtype).eval(), plain.to(dtype).eval()


def _randomised(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.0, generator=generator)
            nn.init.normal_(module.bias, 0, 0.2, generator=generator)
        if isinstance(module, eca_zoo.EcaLayer):
            nn.init.normal_(module.conv.weight, 0, 2, generator=generator)
    return network


def _gates_of(network: nn.Module) -> list[eca_zoo.EcaLayer]:
    return [module for module in network.modules() if isinstance(module, eca_zoo.EcaLayer)]


def _last_norms(network: nn.Module) -> list[nn.Module]:
    return [block.bn3 if hasattr(block, 'bn3') else block.bn2 for stage in network.blocks for block in stage]


def slots(network: nn.Module) -> list[tuple[nn.Module, str]]:
    """Where the gates are: the module that holds each, and its name in it."""
    if hasattr(network, 'blocks'):
        return [(norm, 'act') for norm in _last_norms(network)]
    return [(module, 'se') for module in network.modules() if hasattr(module, 'se')]


def last_layers(network: nn.Module) -> dict[str, nn.Module]:
    """The last layers of a block, by the names that they have in a bottleneck."""
    if hasattr(network, 'blocks'):
        block = network.blocks[2][1]
        return {'conv3': block.conv_pwl, 'bn2': block.bn2, 'bn3': block.bn3, 'se': block.bn3.act}
    block = next(module for module in network.modules() if isinstance(module, Bottleneck))
    return {name: getattr(block, name) for name in ('conv3', 'bn2', 'bn3', 'se')}


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())
