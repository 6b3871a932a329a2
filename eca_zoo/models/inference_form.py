"""The fast form of a network for inference: a copy with the same outputs, checked against the original."""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils import parametrize, prune
from torch.utils._pytree import tree_leaves

from eca_zoo.errors import InputError, one_line
from eca_zoo.models.fast_blocks import WIDEST_EARLY_GATE, fast_form, has_fast_form
from eca_zoo.models.fold_norms import StepTracer, fold_norms

_TOLERANCE = 1e-5
# On the network that is in this form, so that it is not made twice.
_MARK = 'is_inference_form'
_HOOKS = {
    '_forward_hooks': 'a forward hook',
    '_forward_pre_hooks': 'a forward pre-hook',
    '_backward_hooks': 'a backward hook',
    '_backward_pre_hooks': 'a backward pre-hook',
}


def optimize_for_inference(
    model: nn.Module,
    input_size: tuple[int, int, int] | None = None,
    *,
    widest_early_gate: int = WIDEST_EARLY_GATE,
) -> nn.Module:
    """A faster copy of ``model`` for evaluation, with the same outputs up to rounding; ``model`` is left as it was.

    Batch norms are folded into the convolutions that feed them, in any network that fx can trace. In this package's
    networks a block with an ECA layer becomes one of ``eca_zoo.models.fast_blocks``: the gate is computed before the
    last convolution where that reads less, and scale, residual sum and activation are written over its output.

    The copy is in evaluation mode, records no gradients of its weights, and has the device, the floating-point type and
    the memory format of ``model``. It can be compiled, exported, scripted, traced, copied, pickled and moved to another
    device or type. **Its state dict is not the checkpoint's**: norms are gone, convolutions have a bias, and blocks
    have other layers. Load weights into the network, then make the form.

    A network that fx cannot trace as a whole may name the part that it can, as detectors do with their backbone in
    ``traceable_part``; that part alone is replaced.

    The copy is compared with ``model`` on two random images, in float32 on the CPU (float64 for a float64 network); a
    relative error above 1e-5 is refused. torch's global random state is as before afterwards.

    Args:
        model: network in evaluation mode, with one floating-point type.
        input_size: (channels, height, width) of the images that it is compared with; by default those of timm's cfg.
        widest_early_gate: a bottleneck's gate is computed early up to so many channels before its last convolution. The
            default is right on CPUs; ``benchmark/perf/early_gate.py`` measures what is right on a device.

    Raises:
        InputError: ``model`` is no network, is in training mode, is in this form already, or has nothing to fold; fx
            cannot trace it; it has what a copy would lose (hooks, a replaced ``forward``, parametrisations, pruning, a
            compiled call); or the outputs differ.
    """
    _refuse_what_a_copy_would_lose(model)
    part = getattr(model, 'traceable_part', None)
    if isinstance(part, str):
        return _with_fast_part(model, part, input_size, widest_early_gate)
    dtype, device = _placement(model)
    with torch.random.fork_rng(devices=[]), torch.no_grad(), _plain_numbers():
        reference = _copied(model, torch.float64 if dtype == torch.float64 else torch.float32)
        shared = {id(tensor): tensor for tensor in [*reference.parameters(), *reference.buffers()]}
        form = copy.deepcopy(reference, shared).requires_grad_(False).eval()
        _make_fast(form, widest_early_gate)
        _check_equal(reference, form, input_size or _default_input_size(model))
    setattr(form, _MARK, True)
    return form.eval().to(device, dtype)


def _refuse_what_a_copy_would_lose(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(
            f'a form for inference is made of a network (torch.nn.Module), not of {type(model).__name__}; '
            'build it with timm.create_model first'
        )
    if isinstance(model, torch.jit.ScriptModule | torch._dynamo.OptimizedModule):
        raise InputError('the network is scripted or compiled already; make the form of the network before that')
    for name, module in model.named_modules():
        title = name or type(module).__name__
        if getattr(module, _MARK, False):
            raise InputError(f'{title} is in the form for inference already; use it as it is')
        if module.training:
            raise InputError(f'{title} is in training mode; call eval() on the network first')
        if module._compiled_call_impl is not None:
            raise InputError(f'{title} is compiled, which a copy loses; make the form first and compile that')
        if parametrize.is_parametrized(module):
            raise InputError(
                f'{title} has a parametrised tensor; make it permanent first, with '
                'torch.nn.utils.parametrize.remove_parametrizations'
            )
        if any(isinstance(hook, prune.BasePruningMethod) for hook in module._forward_pre_hooks.values()):
            raise InputError(f'{title} is pruned; make it permanent first, with torch.nn.utils.prune.remove')
        for attribute, kind in _HOOKS.items():
            if getattr(module, attribute):
                raise InputError(f'{title} has {kind}, which the form for inference would not run; remove it first')
        if 'forward' in module.__dict__:
            raise InputError(f'the forward of {title} was replaced on the instance; restore it first')


def _with_fast_part(
    model: nn.Module, part: str, input_size: tuple[int, int, int] | None, widest_early_gate: int
) -> nn.Module:
    """A copy of ``model`` with the module ``part`` in its fast form."""
    original = model.get_submodule(part)
    fast = optimize_for_inference(original, input_size, widest_early_gate=widest_early_gate)
    form = copy.deepcopy(model, {id(original): fast})
    setattr(form, _MARK, True)
    return form.requires_grad_(False).eval()


def _placement(model: nn.Module) -> tuple[torch.dtype, torch.device]:
    """Floating-point type and device of the network."""
    tensors = [tensor for tensor in [*model.parameters(), *model.buffers()] if tensor.is_floating_point()]
    if not tensors:
        raise InputError('there is no convolution followed by a batch norm to fold; use the network as it is')
    if any(tensor.is_meta for tensor in tensors):
        raise InputError('the network has weights on the meta device; load them first')
    types = sorted({tensor.dtype for tensor in tensors}, key=str)
    if len(types) > 1:
        names = ', '.join(str(dtype).removeprefix('torch.') for dtype in types)
        raise InputError(f'the network has weights in {names}; convert it to one type first, such as with float()')
    return types[0], tensors[0].device


@contextlib.contextmanager
def _plain_numbers() -> Iterator[None]:
    """No autocast and no default device but the CPU, whatever surrounds the call."""
    with torch.autocast('cpu', enabled=False), torch.device('cpu'):
        yield


def _copied(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    try:
        # Copies of torchvision's feature extractors are in training mode.
        return copy.deepcopy(model).to('cpu', dtype).eval()
    except Exception as error:
        raise InputError(f'the network cannot be copied: {one_line(error)}') from error


def _make_fast(network: nn.Module, widest_early_gate: int) -> None:
    """Replace the blocks that have a fast form, and fold the norms that are left."""
    blocks = _called_blocks(network)
    for name, block in blocks.items():
        network.set_submodule(name, fast_form(block, widest_early_gate))
    count = fold_norms(network, _traced(network, StepTracer()))
    if not blocks and not count:
        raise InputError('there is no convolution followed by a batch norm to fold; use the network as it is')


def _called_blocks(network: nn.Module) -> dict[str, nn.Module]:
    """Blocks with a fast form that run as a whole, once, and of which nothing is used beside that."""
    graph = _traced(network, StepTracer(has_fast_form))
    modules = dict(network.named_modules(remove_duplicate=False))
    used = [str(node.target) for node in graph.nodes if node.op in ('call_module', 'get_attr')]
    return {
        name: modules[name]
        for name in dict.fromkeys(used)
        if name in modules
        and has_fast_form(modules[name])
        and sum(module is modules[name] for module in modules.values()) == 1
        and not any(other.startswith(f'{name}.') for other in used)
    }


def _traced(network: nn.Module, tracer: fx.Tracer) -> fx.Graph:
    try:
        return tracer.trace(network)
    except Exception as error:
        raise InputError(
            f'the network cannot be traced by torch.fx, so nothing is folded in it; use it as it is: {one_line(error)}'
        ) from error


def _default_input_size(model: nn.Module) -> tuple[int, int, int]:
    """As timm's cfg has it, with as many channels as the first convolution reads."""
    cfg: Any = getattr(model, 'pretrained_cfg', None) or {}
    size = tuple(cfg.get('test_input_size') or cfg.get('input_size') or ())
    if len(size) != 3:
        raise InputError('what images the network takes is not known; name it: input_size=(channels, height, width)')
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    channels = size[0] if first is None else first.in_channels
    return channels, size[1], size[2]


def _check_equal(reference: nn.Module, form: nn.Module, input_size: tuple[int, int, int]) -> None:
    dtype = next(reference.parameters()).dtype
    images = torch.randn(2, *input_size, generator=torch.Generator().manual_seed(0)).to(dtype)
    try:
        expected = tree_leaves(reference(images.clone()))
    except Exception as error:
        raise InputError(
            f'the network cannot be run on images of {"x".join(map(str, input_size))}; name a size that it takes: '
            f'input_size=(channels, height, width): {one_line(error)}'
        ) from error
    for ours, theirs in zip(tree_leaves(form(images)), expected, strict=True):
        deviation = _relative_error(ours, theirs)
        if not deviation <= _TOLERANCE:
            raise InputError(
                f'the form for inference differs from the network by {deviation:.1e} (relative) on random images, '
                f'more than {_TOLERANCE:g}; use the network as it is'
            )


def _relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    difference, size = float((actual - expected).norm()), float(expected.norm())
    return difference / size if size else difference
