"""Anchors: the boxes that predictions are relative to, several around each place of a feature map."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Anchors:
    """The anchors of all levels, as mmdetection v1 lays them out.

    Anchors of a place are ordered by ratio, then by size; those of a level by row, column and this order.

    Attributes:
        strides: of each level, in pixels.
        sizes: for each level, square roots of the areas in pixels.
        ratios: heights over widths.
    """

    strides: tuple[int, ...]
    sizes: tuple[tuple[float, ...], ...]
    ratios: tuple[float, ...]

    @property
    def per_place(self) -> int:
        """Anchors of each place; they are as many on every level."""
        return len(self.sizes[0]) * len(self.ratios)

    def cell(self, level: int) -> torch.Tensor:
        """The anchors (A, 4) around the first place of a level, in float64; their corners are whole numbers.

        The framework centres them on the middle of the first stride x stride pixels, half a stride further than
        torchvision, and rounds the first and the last pixel (mmdetection v1, ``AnchorGenerator``).
        """
        centre = (self.strides[level] - 1) / 2
        ratios = torch.tensor(self.ratios, dtype=torch.float64)[:, None]
        sizes = torch.tensor(self.sizes[level], dtype=torch.float64)
        widths, heights = (sizes / ratios.sqrt()).flatten(), (sizes * ratios.sqrt()).flatten()
        first = torch.stack([centre - (widths - 1) / 2, centre - (heights - 1) / 2], dim=1).round()
        last = torch.stack([centre + (widths - 1) / 2, centre + (heights - 1) / 2], dim=1).round()
        return torch.cat([first, last + 1], dim=1)

    def at(self, level: int, index: torch.Tensor, columns: int) -> torch.Tensor:
        """The anchors (N, 4) number ``index`` (N,) of a level whose map has ``columns`` columns, in float32.

        Places are one stride apart, whatever the size of the image; torchvision divides sizes.
        """
        cell = self.cell(level).to(index.device, torch.float32)
        place = index // self.per_place
        shift = torch.stack([place % columns, place // columns], dim=1) * self.strides[level]
        return cell[index % self.per_place] + shift.repeat(1, 2)

    def grid(self, level: int, size: Sequence[int], device: torch.device) -> torch.Tensor:
        """All the anchors (H * W * A, 4) of a level whose map has ``size`` (H, W), in float32."""
        height, width = size
        return self.at(level, torch.arange(height * width * self.per_place, device=device), width)
