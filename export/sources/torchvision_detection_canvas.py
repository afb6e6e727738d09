"""Makes a map of a large canvas answer as the library does with the smaller canvas that it makes for a picture alone.

The library pads a picture to the next multiple of 32 and no further. A graph has one canvas for all pictures, and
beyond the picture's own canvas its layers would see what biases made of the bars, its averages would count them, and
its anchors would stand on another grid. Here every layer sees zeros there, as at the border of a map.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torchvision.models.detection.anchor_utils import AnchorGenerator

from saccade.export.errors import SourceError

STRIDE = 32  # the library's canvas is a multiple of it


def own_canvas(limits: Tensor) -> Tensor:
    """(n, 2) height and width of the canvas that the library makes of a picture alone, of `content_limits` (n, 4)."""
    return torch.ceil(limits[:, :2].flip(1) / STRIDE) * STRIDE


def halvings(whole: int, part: int) -> int:
    """How often a side of `whole` pixels was halved, each time rounded up. Raises SourceError when it was not."""
    for times in range(whole.bit_length() + 1):
        if -(-whole // 2**times) == part:
            return times
    raise SourceError(
        f"the network makes {part} rows or columns of {whole} pixels, which no number of halvings does; "
        "the size of its canvas must be a multiple of 32"
    )


class OwnCanvas(TorchFunctionMode):
    """While it is entered, layers with a neighbourhood or an average end at each picture's own canvas.

    `own` is (n, 2) height and width, `size` the graph's canvas. Maximum pooling is right behind a ReLU only, where no
    value is below the zeros beyond.
    """

    def __init__(self, own: Tensor, size: tuple[int, int]) -> None:
        super().__init__()
        self.own, self.size = own, size
        self.masks: dict[tuple[int, int], Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        replaced = _REPLACED.get(func)
        return func(*args, **(kwargs or {})) if replaced is None else replaced(self, func, *args, **(kwargs or {}))

    def mask(self, maps: Tensor) -> Tensor:
        """(n, 1, h, w): 1 inside the own canvas at the size of `maps`, 0 beyond."""
        size = (maps.shape[2], maps.shape[3])
        if size not in self.masks:
            self.masks[size] = inside(counts(self.own, self.size, size), size).to(maps.dtype)
        return self.masks[size]

    def convolved(self, func: Any, maps: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Any:
        has_neighbours = max(weight.shape[2:]) > 1
        return func(maps * self.mask(maps) if has_neighbours else maps, weight, *args, **kwargs)

    def pooled(self, func: Any, maps: Tensor, kernel_size: Any, *args: Any, **kwargs: Any) -> Any:
        return func(maps if kernel_size == 1 else maps * self.mask(maps), kernel_size, *args, **kwargs)

    def mean(self, func: Any, maps: Tensor, output_size: Any, *args: Any, **kwargs: Any) -> Any:
        if output_size not in (1, (1, 1), [1, 1]):
            return func(maps, output_size, *args, **kwargs)
        mask = self.mask(maps)
        return (maps * mask).sum((2, 3), keepdim=True) / mask.sum((2, 3), keepdim=True)

    def group_norm(
        self,
        func: Any,
        maps: Tensor,
        num_groups: int,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
        *unused: Any,
        **kwargs: Any,
    ) -> Tensor:
        mask = self.mask(maps).unsqueeze(2)
        groups = maps.reshape(maps.shape[0], num_groups, -1, *maps.shape[2:])  # (n, groups, channels of a group, h, w)
        count = mask.sum((2, 3, 4), keepdim=True) * groups.shape[2]
        around = groups - (groups * mask).sum((2, 3, 4), keepdim=True) / count
        variance = ((around * mask) ** 2).sum((2, 3, 4), keepdim=True) / count
        normal: Tensor = (around / torch.sqrt(variance + eps)).flatten(1, 2)
        if weight is not None:
            normal = normal * weight.view(1, -1, 1, 1)
        return normal if bias is None else normal + bias.view(1, -1, 1, 1)


def ended_at(own: Tensor, size: tuple[int, int], mask: Tensor | None) -> AbstractContextManager[Any]:
    """`OwnCanvas` where there is a mask of bars; without one every picture fills the canvas."""
    return nullcontext() if mask is None else OwnCanvas(own, size)


_REPLACED: dict[Any, Callable[..., Any]] = {
    torch.conv2d: OwnCanvas.convolved,
    functional.max_pool2d: OwnCanvas.pooled,
    functional.adaptive_avg_pool2d: OwnCanvas.mean,
    functional.group_norm: OwnCanvas.group_norm,
}


def counts(own: Tensor, size: tuple[int, int], map_size: tuple[int, int]) -> Tensor:
    """(n, 2) rows and columns of a map of `map_size` that come from the own canvas (n, 2) within one of `size`."""
    times = [halvings(whole, part) for whole, part in zip(size, map_size, strict=True)]
    return torch.ceil(own / own.new_tensor([2.0**each for each in times]))


def inside(counted: Tensor, map_size: tuple[int, int]) -> Tensor:
    """(n, 1, h, w) bool: the first rows and columns, `counted` (n, 2) of them."""
    rows, columns = (torch.arange(side, dtype=counted.dtype) for side in map_size)
    return ((rows < counted[:, :1]).unsqueeze(2) & (columns < counted[:, 1:]).unsqueeze(1)).unsqueeze(1)


def edge_repeated(maps: Tensor, own: Tensor, size: tuple[int, int]) -> Tensor:
    """Zeros beyond the own canvas, but for one row and column more that repeat its last ones.

    RoIAlign takes the last row for what lies half a step beyond it.
    """
    counted = counts(own, size, (maps.shape[2], maps.shape[3]))
    for axis in (2, 3):
        shape = [-1, 1, 1, 1]
        shape[axis] = maps.shape[axis]
        places = torch.arange(maps.shape[axis], dtype=maps.dtype).view(1, -1)
        last = counted[:, axis - 2 : axis - 1]
        before = torch.cat(
            [torch.zeros_like(maps.narrow(axis, 0, 1)), maps.narrow(axis, 0, maps.shape[axis] - 1)], axis
        )
        maps = maps * (places < last).to(maps.dtype).view(shape) + before * (places == last).to(maps.dtype).view(shape)
    return maps


class Anchors(nn.Module):
    """The library's anchors on each picture's own canvas: the step from one to the next hangs on its size."""

    cells: Tensor
    places: Tensor

    def __init__(self, generator: AnchorGenerator, size: tuple[int, int], map_sizes: list[tuple[int, int]]) -> None:
        super().__init__()
        self.size, self.map_sizes = size, map_sizes
        cells, places, self.level_sizes = [], [], []
        for shapes, (rows, columns) in zip(generator.cell_anchors, map_sizes, strict=True):
            y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
            grid = torch.stack([x, y], dim=2).view(-1, 1, 2)
            places.append(grid.expand(-1, len(shapes), -1).flatten(0, 1))
            cells.append(shapes.expand(rows * columns, -1, -1).flatten(0, 1))
            self.level_sizes.append(len(cells[-1]))
        self.register_buffer("cells", torch.cat(cells).unsqueeze(0), persistent=False)
        self.register_buffer("places", torch.cat(places).unsqueeze(0).to(self.cells.dtype), persistent=False)

    def forward(self, own: Tensor) -> tuple[Tensor, Tensor]:
        """Anchors (n, all, 4), and which of them lie on the own canvas (n, 2): (n, all)."""
        steps, limits = [], []
        for map_size, anchors in zip(self.map_sizes, self.level_sizes, strict=True):
            counted = counts(own, self.size, map_size)
            step = torch.floor(own / counted)
            steps.append(step.flip(1).unsqueeze(1).expand(-1, anchors, -1))
            limits.append(counted.flip(1).unsqueeze(1).expand(-1, anchors, -1))
        shifts = self.places * torch.cat(steps, dim=1)
        is_inside = (self.places < torch.cat(limits, dim=1)).all(dim=2)
        return self.cells + torch.cat([shifts, shifts], dim=2), is_inside
