"""Complexity of a network: parameters, multiply-adds and activations, counted on the meta device."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import SelectAdaptivePool2d
from timm.utils import reparameterize_model
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from eca_zoo.errors import InputError, RunError, one_line
from eca_zoo.harness.networks.building import create_network, default_input_size, in_evaluation
from eca_zoo.harness.networks.model_spec import ModelSpec, network_arguments
from eca_zoo.models import EcaLayer

_aten = torch.ops.aten
_NORMS = (_aten.native_batch_norm, _aten.native_layer_norm, _aten.native_group_norm)
# fvcore's cost of an element of an upsampled image.
_UPSAMPLING = {_aten.upsample_nearest2d: 1, _aten.upsample_bilinear2d: 4}
_ADAPTIVE_AVERAGE = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)


@dataclass(frozen=True)
class Complexity:
    """Exact counts for one image.

    Attributes:
        model: name of the network.
        input_size: (channels, height, width) in pixels.
        params: trainable and frozen parameters; buffers are not counted.
        macs: multiply-adds of convolutions, linear layers and matrix products (attention included); no bias, no norms.
        activations: elements that those operators put out.
        macs_fvcore: ``macs`` and what fvcore adds: 2 an element of an affine batch norm, 5 of another affine norm and
            of a batch norm that computes its statistics, as that of standardised weights does, one less of norms that
            are not affine; 1 an input element of an adaptive average pooling; 1 an element that nearest, and 4 that
            bilinear upsampling puts out. timm's published tables hold this count.
        macs_ptflops: what ptflops counts: convolutions and linear layers with bias, 2 an element of an affine norm, and
            activations and poolings (twice where it counts both a module and the function that the module calls).
        paper_giga: what the paper's table calls a G of multiply-adds for this network: 2^30, or 10^9 for MobileNetV2.
    """

    model: str
    input_size: tuple[int, int, int]
    params: int
    macs: int
    activations: int
    macs_fvcore: int
    macs_ptflops: int
    paper_giga: int

    @property
    def params_paper(self) -> float:
        """Parameters / 2^20, the M of the paper's tables."""
        return self.params / 2**20

    @property
    def gflops_paper(self) -> float:
        """Multiply-adds as ptflops counts them, in the G of the paper's tables."""
        return self.macs_ptflops / self.paper_giga


def complexity(
    name: str, input_size: tuple[int, int, int] | None = None, model_kwargs: dict[str, Any] | None = None
) -> Complexity:
    """Count the network ``name`` of timm's registry; it is built on the meta device, so that no weight takes memory.

    Args:
        name: a model, with or without tag.
        input_size: (channels, height, width); the size that the model is evaluated at by default.
        model_kwargs: further arguments of its entry point.

    Raises:
        InputError: ``input_size`` is not positive.
        RunError: the network cannot be built or run on the meta device.
    """
    if input_size is not None and min(input_size) < 1:
        raise InputError(f'{name}: an image is at least 1 pixel high and wide, not {input_size}')
    with _counting(name):
        model = _on_meta(name, input_size[-1] if input_size else None, model_kwargs)
        return count_complexity(model, input_size or default_input_size(model), name)


def _on_meta(name: str, img_size: int | None, model_kwargs: dict[str, Any] | None) -> nn.Module:
    with torch.device('meta'), _NoValues():
        return create_network(name, img_size, model_kwargs)


@contextlib.contextmanager
def _counting(name: str) -> Iterator[None]:
    """Whatever goes wrong in it becomes a line about ``name``."""
    try:
        yield
    except Exception as error:
        raise RunError(f'{name}: its complexity cannot be counted: {one_line(error)}') from error


def complexity_of_spec(spec: ModelSpec, img_size: int | None = None, reparameterize: bool = False) -> Complexity:
    """Count a model as a user names it.

    Args:
        spec: the model; the size that it says itself goes before ``img_size``.
        img_size: height and width in pixels; its own size by default.
        reparameterize: count it with its branches folded, where it is made to be folded.

    Raises:
        InputError: ``img_size`` is not positive.
        RunError: the network cannot be built or run on the meta device.
    """
    img_size = spec.img_size or img_size
    if img_size is not None and img_size < 1:
        raise InputError(f'{spec.title}: an image is at least 1 pixel high and wide, not {img_size}')
    name = spec.name if spec.module is None else spec.title
    with _counting(name):
        model = _on_meta(spec.name, img_size, network_arguments(spec)) if spec.module is None else spec.module
        if reparameterize:
            with torch.device('meta' if spec.module is None else 'cpu'):
                model = reparameterize_model(model)
        channels, height, width = default_input_size(model)
        return count_complexity(model, (channels, img_size or height, img_size or width), name)


def count_complexity(model: nn.Module, input_size: tuple[int, int, int], name: str = '') -> Complexity:
    """Count ``model``, which is left as it was, for one image of ``input_size`` (channels, height, width)."""
    architecture = (getattr(model, 'pretrained_cfg', None) or {}).get('architecture')
    family = str(architecture or name.rpartition('/')[2])
    is_mobilenetv2 = 'mobilenetv2' in family
    state = {key: tensor.to('meta') for key, tensor in [*model.named_parameters(), *model.named_buffers()]}
    images = torch.empty(1, *input_size, device='meta', dtype=next(model.parameters()).dtype)
    counter = _OperatorCounter()
    module_counts = _ModuleCounts()
    with (
        torch.no_grad(),
        torch.device('meta'),
        in_evaluation(model),
        module_counts.hooked(model, ends_in_mean=is_mobilenetv2),
        counter,
    ):
        torch.func.functional_call(model, state, (images,))
    return Complexity(
        model=name,
        input_size=input_size,
        params=sum(parameter.numel() for parameter in model.parameters()),
        macs=counter.macs,
        activations=counter.activations,
        macs_fvcore=counter.macs + counter.others + module_counts.adaptive_average,
        macs_ptflops=module_counts.ptflops,
        paper_giga=10**9 if is_mobilenetv2 else 2**30,
    )


def _changes_values_alone(func: Any, args: tuple) -> bool:
    """Whether an operator does nothing on the meta device: one in place, whose only tensor is there.

    Activations and random numbers are such; PyTorch derives the shapes of many of them by decomposition, which is slow.
    """
    return (
        func._schema.name.endswith('_')
        and torch.Tag.inplace_view not in func.tags
        and isinstance(args[0], torch.Tensor)
        and args[0].is_meta
        and not any(isinstance(arg, torch.Tensor | list) for arg in args[1:])
    )


class _NoValues(TorchDispatchMode):
    """Leaves out what would fill tensors of the meta device with values."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        return args[0] if _changes_values_alone(func, args) else func(*args, **(kwargs or {}))


class _OperatorCounter(TorchDispatchMode):
    """Counts multiply-adds and output elements of every operator that torch's FLOP counter has a formula for."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0
        self.activations = 0
        self.others = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        operator = func._overloadpacket
        if operator is _aten.native_batch_norm:
            # Only shapes matter; PyTorch derives them by decomposing the norm, which takes longer than all the rest.
            out: Any = (torch.empty_like(args[0]), *(args[0].new_empty(args[0].shape[1]) for _ in range(2)))
        elif _changes_values_alone(func, args):
            out = args[0]
        else:
            out = func(*args, **kwargs)
        if operator in flop_registry:
            self.macs += flop_registry[operator](*args, **kwargs, out_val=out) // 2
            self.activations += (out[0] if isinstance(out, tuple) else out).numel()
            if 'attention' in str(operator):
                # The scores, which the fused operator does not put out, are what the matrix product would.
                self.activations += args[0].shape[:-1].numel() * args[1].shape[-2]
        elif operator in _NORMS:
            is_affine = args[2 if operator is _aten.native_layer_norm else 1] is not None
            self.others += args[0].numel() * (_fvcore_cost(operator, args) - (not is_affine))
        elif operator in _UPSAMPLING:
            self.others += out.numel() * _UPSAMPLING[operator]
        return out


def _fvcore_cost(norm: Any, args: tuple) -> int:
    """fvcore's cost of an element that is normalised with an affine transform."""
    computes_statistics = norm is not _aten.native_batch_norm or args[5]
    return 5 if computes_statistics else 2


@contextlib.contextmanager
def hooks_on(modules: Iterable[nn.Module], hook: Callable[..., None]) -> Iterator[None]:
    """Call ``hook`` after each of ``modules``, as long as the body runs."""
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _ModuleCounts:
    """Counts that other tools make for each module, by its type."""

    def __init__(self) -> None:
        self.ptflops = 0
        self.adaptive_average = 0

    @contextlib.contextmanager
    def hooked(self, model: nn.Module, ends_in_mean: bool) -> Iterator[None]:
        """Count while ``model`` runs.

        Args:
            model: the network.
            ends_in_mean: the reference implementation has a mean over the pixels, which ptflops does not see, where
                timm's network has a pooling module before the classifier.
        """
        pools = [module for module in model.modules() if ends_in_mean and isinstance(module, SelectAdaptivePool2d)]
        skipped = {child for pool in pools for child in pool.modules()}
        counted = [module for module in model.modules() if _rule_of(module) and module not in skipped]
        with hooks_on(counted, self._count):
            yield

    def _count(self, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        rule = _rule_of(module)
        assert rule is not None
        self.ptflops += rule(module, inputs[0], output)
        if isinstance(module, (*_ADAPTIVE_AVERAGE, EcaLayer)):
            self.adaptive_average += inputs[0].numel()


_Rule = Callable[[Any, torch.Tensor, torch.Tensor], int]


def _conv(module: _ConvNd, x: torch.Tensor, y: torch.Tensor) -> int:
    positions = (x if module.transposed else y)[:, 0].numel()
    return module.weight.numel() * positions + (y.numel() if module.bias is not None else 0)


def _linear(module: nn.Linear, x: torch.Tensor, y: torch.Tensor) -> int:
    return x.numel() * y.shape[-1] + (y.shape[0] * y.shape[-1] if module.bias is not None else 0)


def _norm(module: Any, x: torch.Tensor, y: torch.Tensor) -> int:
    is_affine = getattr(module, 'affine', getattr(module, 'elementwise_affine', False))
    return x.numel() * (2 if is_affine else 1)


def _inputs_once(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> int:
    return x.numel()


def _inputs_twice(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> int:
    return 2 * x.numel()


# ptflops 0.7 counts a module by its type and, for these functions of torch.nn.functional, once more the function that
# the module calls. An ECA layer is an average pooling and a convolution, which has a rule of its own. Checked against
# complexity_measured.csv, whose six counts these rules give.
_PTFLOPS_RULES: list[tuple[tuple[type[nn.Module], ...], _Rule]] = [
    ((_ConvNd,), _conv),
    ((nn.Linear,), _linear),
    ((_BatchNorm, nn.LayerNorm, nn.GroupNorm), _norm),
    ((nn.ReLU6, nn.LeakyReLU, nn.SiLU), _inputs_once),
    ((nn.ReLU, nn.PReLU, nn.ELU, nn.GELU), _inputs_twice),
    ((nn.MaxPool2d, nn.AvgPool2d, *_ADAPTIVE_AVERAGE, EcaLayer), _inputs_twice),
]


def _rule_of(module: nn.Module) -> _Rule | None:
    return next((rule for types, rule in _PTFLOPS_RULES if isinstance(module, types)), None)
