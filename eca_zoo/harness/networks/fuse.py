"""Folds batch norms into the convolutions before them, in a copy of the network, for faster inference."""

import copy
from collections import Counter

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_eval

from eca_zoo.errors import InputError

_TOLERANCE = 1e-4


class _Tracer(fx.Tracer):
    """Sees a batch norm as one step, also timm's that carries an activation."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _BatchNorm) or super().is_leaf_module(m, module_qualified_name)


def fuse_batch_norms(model: nn.Module, input_size: tuple[int, int, int]) -> nn.Module:
    """A copy of ``model`` in evaluation mode whose batch norms are folded into the convolutions that feed them.

    A pair is folded where the norm is the only reader of the convolution's output and both run once; every other
    module stays. ``model`` itself is not touched. The copy is checked against it on one random image.

    Args:
        model: network on any device, with floating-point weights.
        input_size: (channels, height, width) of the image that the copy is checked with.

    Raises:
        InputError: the network cannot be traced, has no such pair, or its copy gives other outputs.
    """
    fused = copy.deepcopy(model).eval()
    try:
        graph = _Tracer().trace(fused)
    except Exception as error:
        reason = ' '.join(str(error).split())
        raise InputError(f'batch norms cannot be folded in a network that fx cannot trace: {reason}') from error
    pairs = _foldable_pairs(graph, fused)
    if not pairs:
        raise InputError('there is no convolution followed by a batch norm to fold; leave out --fuse')
    for conv_name, norm_name in pairs:
        conv, norm = fused.get_submodule(conv_name), fused.get_submodule(norm_name)
        _replace(fused, conv_name, fuse_conv_bn_eval(conv, norm))  # type: ignore[type-var,arg-type]
        _replace(fused, norm_name, _rest_of(norm))
    _check_equal(model, fused, input_size)
    return fused


def _foldable_pairs(graph: fx.Graph, model: nn.Module) -> list[tuple[str, str]]:
    """Names of (convolution, batch norm) that are read and run once."""
    modules = dict(model.named_modules(remove_duplicate=False))
    runs = Counter(id(modules[str(node.target)]) for node in graph.nodes if node.op == 'call_module')
    pairs = []
    for node in graph.nodes:
        if node.op != 'call_module' or not node.args or not isinstance(node.args[0], fx.Node):
            continue
        source = node.args[0]
        if source.op != 'call_module' or len(source.users) != 1:
            continue
        norm, conv = modules[str(node.target)], modules[str(source.target)]
        if (
            isinstance(norm, _BatchNorm)
            and norm.track_running_stats
            and isinstance(conv, _ConvNd)
            and runs[id(norm)] == runs[id(conv)] == 1
        ):
            pairs.append((str(source.target), str(node.target)))
    return pairs


def _rest_of(norm: nn.Module) -> nn.Module:
    """What is left of a folded norm: nothing, or the dropout and activation that timm's norms carry."""
    rest = [getattr(norm, name) for name in ('drop', 'act') if isinstance(getattr(norm, name, None), nn.Module)]
    rest = [module for module in rest if not isinstance(module, nn.Identity)]
    if not rest:
        return nn.Identity()
    return rest[0] if len(rest) == 1 else nn.Sequential(*rest)


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition('.')
    setattr(model.get_submodule(parent), child, module)


def _check_equal(model: nn.Module, fused: nn.Module, input_size: tuple[int, int, int]) -> None:
    """Compare both in evaluation mode on one random image; ``model`` gets its mode back."""
    parameter = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, *input_size, generator=generator).to(parameter.device, parameter.dtype)
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.inference_mode():
            expected, actual = model.eval()(image), fused(image)
    finally:
        for module, training in modes:
            module.training = training
    error = float((actual - expected).norm() / expected.norm())
    if not error <= _TOLERANCE:
        raise InputError(f'folding batch norms changes the output by {error:.1e} (relative); leave out --fuse')
