"""The ECA layer: channel attention by a k-tap filter over the channel means (Wang et al., CVPR 2020)."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from eca_zoo.errors import InputError


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


class EcaConv1d(nn.Conv1d):
    """``nn.Conv1d`` of one channel over the channel means; a compiler without gradients gets it as a sum of products.

    A compiler makes one loop of the sum, mean, gate and scale around it, where it would call the convolution. The sum
    is used for what it covers: stride 1, zero padding to the same length, no bias.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Filter (N, 1, C) along its last dimension; the same shape for odd kernels."""
        if not torch.jit.is_scripting():  # noqa: SIM102 (scripting leaves out what stands under this condition alone)
            if _is_compiled_without_gradients() and self.keeps_length_without_bias():
                return _sum_of_shifted_products(input, self.weight)
        return self._conv_forward(input, self.weight, self.bias)

    def keeps_length_without_bias(self) -> bool:
        plain = self.stride == (1,) and self.dilation == (1,) and self.groups == self.in_channels == 1
        same_length = self.kernel_size[0] % 2 == 1 and self.padding == (self.kernel_size[0] // 2,)
        return plain and same_length and self.out_channels == 1 and self.padding_mode == 'zeros' and self.bias is None


def _is_compiled_without_gradients() -> bool:
    return torch.compiler.is_compiling() and not torch.compiler.is_exporting() and not torch.is_grad_enabled()


def _sum_of_shifted_products(means: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Correlation along the last dimension of (N, 1, C), padded with zeros, with the k taps of ``weight`` (1, 1, k)."""
    taps, channels = weight.flatten(), means.shape[-1]
    padded = F.pad(means, (taps.numel() // 2, taps.numel() // 2))
    filtered = padded[..., :channels] * taps[0]
    for i in range(1, taps.numel()):
        filtered = torch.addcmul(filtered, padded[..., i : i + channels], taps[i])
    return filtered


def _check_images(x: torch.Tensor) -> None:
    if x.ndim != 4:
        raise InputError(
            f'EcaLayer takes images (N, C, H, W), not a tensor of shape {tuple(x.shape)}; give one image a batch '
            'dimension with x[None], and sequences (N, C, L) a width with x[..., None]'
        )


class EcaLayer(nn.Module):
    """Efficient channel attention: scales each channel by sigmoid(conv1d(mean over height and width)).

    Maps (N, C, H, W) to the same shape. Its one parameter is ``conv.weight``, of shape (1, 1, k).
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make a layer for ``channels`` channels.

        Args:
            channels: number of channels of the input; used by the formula alone.
            kernel_size: taps of the filter, odd; without it the paper's formula applies.
            device: of the parameter.
            dtype: of the parameter.

        Raises:
            ValueError: ``kernel_size`` is even or not positive.
        """
        super().__init__()
        k = adaptive_kernel_size(channels) if kernel_size is None else check_kernel_size(kernel_size)
        self.channels = channels
        self.conv = EcaConv1d(1, 1, k, padding=k // 2, bias=False, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale the channels of ``x`` (N, C, H, W); the result is a new tensor of the same shape.

        Raises:
            InputError: ``x`` has not four dimensions.
        """
        if not torch.jit.is_scripting():  # noqa: SIM102 (scripting leaves out what stands under this condition alone)
            if isinstance(x, torch.Tensor):  # and no proxy of torch.fx
                _check_images(x)
        gate = self.conv(x.mean((2, 3)).unsqueeze(1)).sigmoid()  # (N, 1, C)
        return x * gate.transpose(1, 2).unsqueeze(-1)

    def extra_repr(self) -> str:
        return f'channels={self.channels}'
