"""Batch norms whose statistics are those of all processes, as one process with the whole batch would have them."""

import copy
from typing import Any

import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import nn

from eca_zoo.harness.machine.processes import Processes


def with_shared_norms(network: nn.Module, group: Any = None) -> nn.Module:
    """``network`` with norms over all processes in training: torch's on CUDA (in ``group``), ours elsewhere."""
    if next(network.parameters()).is_cuda:
        return convert_sync_batchnorm(network, group)
    for module in list(network.modules()):
        for name, child in module.named_children():
            kind = _KINDS.get(type(child))
            if kind is not None:
                # Parameters and buffers stay the same objects.
                shared: Any = copy.copy(child)
                shared.__class__ = kind
                setattr(module, name, shared)
    return network


def gradient_group(device: torch.device, processes: Processes) -> Any:
    """The processes once more, connected by their GPUs; None where there are none, and gloo does the rest."""
    if processes.world_size == 1 or device.type != 'cuda':
        return None
    torch.cuda.set_device(device)
    return torch.distributed.new_group(backend='nccl')


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; each has a part in every process's result, and so in its gradient."""

    @staticmethod
    def forward(context: Any, tensor: torch.Tensor) -> torch.Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class SharedBatchNorm2d(nn.BatchNorm2d):
    """A batch norm over the images of all processes, which may have different numbers of them."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) normalised by the statistics of all processes in training, else by the running ones."""
        return _normalised(self, input) if self.training else super().forward(input)


class SharedBatchNormAct2d(BatchNormAct2d):
    """The same for timm's batch norm with an activation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As ``SharedBatchNorm2d``, then the activation."""
        return self.act(self.drop(_normalised(self, x))) if self.training else super().forward(x)


_KINDS: dict[type, type] = {nn.BatchNorm2d: SharedBatchNorm2d, BatchNormAct2d: SharedBatchNormAct2d}


def _normalised(norm: nn.BatchNorm2d, images: torch.Tensor) -> torch.Tensor:
    own = images.new_tensor([images.numel() // images.shape[1]])
    sums = _SumOverProcesses.apply(torch.cat([images.sum((0, 2, 3)), own]))
    count = sums[-1].detach()
    mean = sums[:-1] / count
    centred = images - mean[None, :, None, None]
    variance = _SumOverProcesses.apply(centred.square().sum((0, 2, 3))) / count
    if norm.track_running_stats:
        with torch.no_grad():
            assert norm.num_batches_tracked is not None and norm.running_mean is not None
            assert norm.running_var is not None
            norm.num_batches_tracked.add_(1)
            factor = norm.momentum if norm.momentum is not None else 1.0 / float(norm.num_batches_tracked)
            norm.running_mean.lerp_(mean, factor)
            norm.running_var.lerp_(variance * (count / (count - 1)), factor)
    scale = torch.rsqrt(variance + norm.eps) * norm.weight
    return centred * scale[None, :, None, None] + norm.bias[None, :, None, None]
