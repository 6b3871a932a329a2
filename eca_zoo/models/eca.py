"""The ECA layer: channel attention by a k-tap filter over the channel means (Wang et al., CVPR 2020)."""

import math

import torch
import torch.nn.functional as F
from torch import nn


def adaptive_kernel_size(channels: int) -> int:
    """Kernel size for ``channels`` by the paper's formula, with gamma = 2 and b = 1.

    t = int(|(log2 C + 1) / 2|), and k = t if t is odd, else t + 1 (arXiv:1910.03151, equation 12 and the listing).
    The published checkpoints do not follow it: they fix one size a stage.

    Raises:
        ValueError: ``channels`` is not positive.
    """
    if channels < 1:
        raise ValueError(f'channels must be positive, not {channels}')
    t = int(abs((math.log2(channels) + 1) / 2))
    return t if t % 2 else t + 1


def check_kernel_size(kernel_size: int) -> int:
    """``kernel_size`` if it is an odd, positive integer.

    Raises:
        ValueError: it is not.
    """
    if isinstance(kernel_size, bool) or not isinstance(kernel_size, int) or kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f'an ECA kernel size is an odd, positive integer (1, 3, 5, 7, ...), not {kernel_size!r}')
    return kernel_size


class EcaLayer(nn.Module):
    """Efficient channel attention: scales each channel by sigmoid(conv1d(mean over height and width)).

    Maps (N, C, H, W) to the same shape. Its one parameter is ``conv.weight``, of shape (1, 1, k).
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int | None = None,
        *,
        inplace: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make a layer for ``channels`` channels.

        Args:
            channels: number of channels of the input; used by the formula alone.
            kernel_size: taps of the filter, odd; without it the paper's formula applies.
            inplace: the input may be overwritten, which is done on the CPU while no gradient is recorded.
            device: of the parameter.
            dtype: of the parameter.

        Raises:
            ValueError: ``kernel_size`` is even or not positive.
        """
        super().__init__()
        k = adaptive_kernel_size(channels) if kernel_size is None else check_kernel_size(kernel_size)
        self.channels = channels
        self.inplace = inplace
        self.conv = nn.Conv1d(1, 1, k, padding=k // 2, bias=False, device=device, dtype=dtype)

    def gate(self, means: torch.Tensor) -> torch.Tensor:
        """Factors (N, C, 1, 1) in (0, 1) for the channel means (N, C)."""
        if not torch.jit.is_scripting():  # noqa: SIM102 (scripting leaves out what stands under this condition alone)
            if torch.compiler.is_compiling() and not (torch.compiler.is_exporting() or torch.is_grad_enabled()):
                # A compiler makes a loop of this, but would call the convolution; its gradients would be many loops.
                return _filter_by_taps(means, self.conv.weight).sigmoid()[:, :, None, None]
        return self.conv(means.unsqueeze(1)).sigmoid().transpose(1, 2).unsqueeze(-1)

    def forward(
        self, x: torch.Tensor, shortcut: torch.Tensor | None = None, means: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Scale the channels of ``x``.

        Args:
            x: (N, C, H, W).
            shortcut: of the same shape, added to the result. Then ``x`` may be overwritten, as timm's blocks do with
                theirs; elsewhere one pass over memory does both.
            means: (N, C), the means of ``x`` over height and width where the caller has them already.
        """
        gate = self.gate(x.mean((2, 3)) if means is None else means)
        if shortcut is None:
            return x.mul_(gate) if self.inplace and is_better_overwritten(x) else x * gate
        if is_better_overwritten(x):
            return x.mul_(gate).add_(shortcut)
        return torch.addcmul(shortcut, x, gate)

    def extra_repr(self) -> str:
        return f'channels={self.channels}' + (', inplace=True' if self.inplace else '')


def is_better_overwritten(x: torch.Tensor) -> bool:
    """Whether ``x`` is on the CPU and no gradient is recorded: new memory costs more than a second pass there."""
    return isinstance(x, torch.Tensor) and x.is_cpu and not torch.is_grad_enabled()


def _filter_by_taps(means: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Correlation of each row of (N, C), padded with zeros, with the k taps of ``weight`` (1, 1, k); (N, C)."""
    taps, channels = weight.flatten().to(means.dtype), means.shape[1]
    padded = F.pad(means, (taps.numel() // 2, taps.numel() // 2))
    filtered = padded[:, :channels] * taps[0]
    for i in range(1, taps.numel()):
        filtered = torch.addcmul(filtered, padded[:, i : i + channels], taps[i])
    return filtered
