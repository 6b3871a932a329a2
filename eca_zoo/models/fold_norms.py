"""Folds batch norms into the convolutions before them: W' = s W and b' = s (b - mean) + shift with s = scale / std."""

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from timm.layers import BatchNormAct2d, Conv2dSame
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

# Classes by name and not by descent: one that is derived from these may compute something else.
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, Conv2dSame)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, BatchNormAct2d)


def can_fold(conv: nn.Module | None, norm: nn.Module | None) -> bool:
    """Whether ``norm``, applied to the output of ``conv`` in evaluation, is a scale and a shift of each channel."""
    return type(conv) in _CONVOLUTIONS and type(norm) in _NORMS and getattr(norm, 'running_mean', None) is not None


def folded(conv: Any, norm: Any) -> Any:
    """A convolution that computes ``norm(conv(x))`` in evaluation, without the activation that a norm may carry.

    The product is computed in float64 and rounded once to the type of the weight, whose memory format is kept.
    """
    weight, bias, mean, variance, scale, shift = (
        None if tensor is None else tensor.detach().double()
        for tensor in (conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    fused: Any = fuse_conv_bn_weights(weight, bias, mean, variance, norm.eps, scale, shift)  # type: ignore[arg-type]
    result = copy.deepcopy(conv, {id(tensor): tensor for tensor in conv.parameters()})  # which are replaced
    result.weight, result.bias = (
        nn.Parameter(tensor.detach().to(conv.weight.dtype), requires_grad=False) for tensor in fused
    )
    return result


def rest_of(norm: nn.Module) -> nn.Module:
    """What is left of a folded norm: nothing, or the dropout and activation that timm's norms carry."""
    rest = [module for name in ('drop', 'act') if (module := getattr(norm, name, None)) is not None]
    rest = [module for module in rest if not isinstance(module, nn.Identity)]
    if not rest:
        return nn.Identity()
    return rest[0] if len(rest) == 1 else nn.Sequential(*rest)


class StepTracer(fx.Tracer):
    """Records a network as calls of layers, in which a batch norm is one step, as is what ``is_step`` names."""

    def __init__(self, is_step: Callable[[nn.Module], bool] = lambda module: False) -> None:
        super().__init__()
        self._is_step = is_step

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in _NORMS or self._is_step(m) or super().is_leaf_module(m, module_qualified_name)


def fold_norms(network: nn.Module, graph: fx.Graph) -> int:
    """Fold the batch norms of ``network``, in place, into the convolutions that feed them; returns how many.

    A pair is folded where the norm is the only reader of the convolution's output and both run once.

    Args:
        network: in evaluation mode.
        graph: of ``network``, by a ``StepTracer``.
    """
    pairs = list(_foldable_pairs(network, graph))
    for conv_name, norm_name in pairs:
        conv, norm = network.get_submodule(conv_name), network.get_submodule(norm_name)
        network.set_submodule(conv_name, folded(conv, norm))
        network.set_submodule(norm_name, rest_of(norm))
    return len(pairs)


def _foldable_pairs(network: nn.Module, graph: fx.Graph) -> Iterator[tuple[str, str]]:
    modules = dict(network.named_modules(remove_duplicate=False))
    runs = Counter(id(modules[str(node.target)]) for node in graph.nodes if node.op == 'call_module')
    for node in graph.nodes:
        if node.op != 'call_module' or not node.args or not isinstance(node.args[0], fx.Node):
            continue
        source = node.args[0]
        if source.op != 'call_module' or len(source.users) != 1:
            continue
        conv, norm = modules[str(source.target)], modules[str(node.target)]
        if can_fold(conv, norm) and runs[id(conv)] == runs[id(norm)] == 1:
            yield str(source.target), str(node.target)
