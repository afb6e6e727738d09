"""Finds the bars of a letterbox in the pixels and keeps them zero after normalisation.

Deploy graphs get only bytes, so a trailing row or column counts as bar when it and everything behind it is exactly
`pad_value` in every channel. Bars lie at the right and the bottom only. An image whose own last rows are exactly that
grey loses those rows; an image of nothing else keeps all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from saccade.export.convert.normalisation import FoldedNetwork, normalise, proven_front
from saccade.export.errors import SourceError
from saccade.export.network import Network
from saccade.models.contract.specs import Normalisation, PreprocessSpec


def padded_network(
    network: Network, module: nn.Module, normalisation: Normalisation, preprocess: PreprocessSpec
) -> FoldedNetwork:
    """`module`, the folded form of `network.module`, behind normalisation that leaves bars at zero.

    Raises SourceError when the recipe puts bars on the left or the top, GraphError as `proven_front`.
    """
    front, error = proven_front(normalisation)
    if preprocess.fit != "letterbox":
        whole = WholeImage(front, module, network.takes_padding_mask)
        return FoldedNetwork(whole.eval(), "depthwise_convolution", error)
    if preprocess.anchor != "top_left":
        raise SourceError(
            f"preprocess.anchor: {type(network.module).__name__} pads on the right and at the bottom only; say top_left"
        )
    size = (preprocess.height, preprocess.width)
    bars = BarsToZero(front, module, size, preprocess.pad_value, network.takes_padding_mask)
    return FoldedNetwork(bars.eval(), "depthwise_convolution", error)


class WholeImage(nn.Module):
    """Normalises pixels of images without bars; every pixel counts as inside."""

    def __init__(self, front: nn.Conv2d, network: nn.Module, takes_mask: bool) -> None:
        super().__init__()
        self.front = front
        self.network = network
        self.takes_mask = takes_mask

    def forward(self, pixels: Tensor) -> object:
        images = self.front(pixels)
        mask = (torch.ones_like(images[:, 0], dtype=torch.bool),) if self.takes_mask else ()
        return self.network(images, *mask)


class BarsToZero(nn.Module):
    """Normalises pixels 0..255 and sets bars to zero *after* that, as libraries pad; can also pass the mask on."""

    last_rows: Tensor
    last_columns: Tensor

    def __init__(
        self,
        front: nn.Conv2d,
        network: nn.Module,
        size: tuple[int, int],
        pad_value: int,
        takes_mask: bool,
    ) -> None:
        super().__init__()
        self.front = front
        self.network = network
        self.pad_value = pad_value
        self.takes_mask = takes_mask
        height, width = size
        self.register_buffer("last_rows", torch.ones(height, height).tril(), persistent=False)
        self.register_buffer("last_columns", torch.ones(width, width).tril(), persistent=False)

    def forward(self, pixels: Tensor) -> object:
        """Takes pixels (n, 3, height, width) float 0..255."""
        rows = self._holds_content(pixels, 3, self.last_rows)  # (n, height)
        columns = self._holds_content(pixels, 2, self.last_columns)  # (n, width)
        inside = rows.unsqueeze(2) & columns.unsqueeze(1)
        images = self.front(pixels) * inside.unsqueeze(1).to(pixels.dtype)
        return self.network(images, inside) if self.takes_mask else self.network(images)

    def _holds_content(self, pixels: Tensor, across: int, from_here_on: Tensor) -> Tensor:
        """Tells which lines lie before the last line that is not bar; all pixels of a bar line are the bar's grey."""
        darkest, lightest = pixels.amin(dim=(1, across)), pixels.amax(dim=(1, across))
        content = ((darkest != self.pad_value) | (lightest != self.pad_value)).to(pixels.dtype)
        inside = torch.matmul(content, from_here_on) > 0
        # A picture of nothing but that grey is kept whole: attention over nothing would be NaN.
        return inside | (content.sum(dim=1, keepdim=True) == 0)


def plain_content_mask(images: Tensor, pad_value: int) -> Tensor:
    """Returns (n, height, width) bool for uint8 images (n, height, width, 3): True inside the image."""
    mask = torch.ones(images.shape[:3], dtype=torch.bool)
    for inside, image in zip(mask, images, strict=True):
        is_bar = (image == pad_value).all(dim=2)
        content_rows, content_columns = (torch.where(~is_bar.all(dim=dim))[0] for dim in (1, 0))
        if len(content_rows):
            inside[int(content_rows[-1]) + 1 :] = False
            inside[:, int(content_columns[-1]) + 1 :] = False
    return mask


def plain_input(
    network: Network, images: Tensor, normalisation: Normalisation, preprocess: PreprocessSpec
) -> tuple[Tensor, ...]:
    """Computes what `network.module` takes for uint8 images (n, height, width, 3) straightforwardly, as a reference."""
    pixels = normalise(images.permute(0, 3, 1, 2).contiguous().float(), normalisation)
    if not (network.zero_bars or network.takes_padding_mask):
        return (pixels,)
    has_bars = preprocess.fit == "letterbox"
    inside = plain_content_mask(images, preprocess.pad_value) if has_bars else torch.ones(images.shape[:3]).bool()
    pixels = pixels * inside.unsqueeze(1)
    return (pixels, inside) if network.takes_padding_mask else (pixels,)
