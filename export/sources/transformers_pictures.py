"""Networks of transformers whose answer is a picture: monocular depth, and images made of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from saccade.export.errors import SourceError
from saccade.export.recipe_gaps import PICTURES
from saccade.models.contract.specs import PreprocessSpec, Task, TaskSpec

__all__ = ["PICTURES", "PictureOrDepth", "own_pixels", "picture_task"]
_TILE = 128  # pixels
_DEPTH = 384  # pixels, where neither the processor nor the configuration says a side


class PictureOrDepth(nn.Module):
    """Depths (n, h, w), or a reconstructed picture (n, 3, h, w) from 0 to 1."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        outputs = self.model(pixel_values=images)
        found: Tensor | None = outputs.get("predicted_depth")
        found = outputs.get("reconstruction") if found is None else found
        if found is None:
            raise SourceError(f"{type(self.model).__name__} gives neither a depth nor a picture")
        return found


def picture_task(model_class: str, config: Any) -> TaskSpec:
    if "Depth" in model_class or not hasattr(config, "upscale"):
        return TaskSpec(task=Task.IMAGE, picture="depth")
    return TaskSpec(task=Task.IMAGE, picture="rgb", scale=int(config.upscale))


def own_pixels(config: Any, arguments: Mapping[str, Any], processor: Any) -> PreprocessSpec:
    """How pictures are made where the processor's rule is none of the server's: it keeps the shape of each picture.

    Depth sees the whole picture, stretched; networks that enlarge a picture see it in tiles.
    """
    if hasattr(config, "upscale"):
        side = int(arguments.get("image_size", _TILE))
        return PreprocessSpec(width=side, height=side, fit="tile")
    size = getattr(processor, "size", None)
    side = int(arguments.get("image_size") or getattr(size, "height", None) or _DEPTH)
    multiple = int(getattr(processor, "ensure_multiple_of", None) or 1)
    side = max(multiple, round(side / multiple) * multiple)
    return PreprocessSpec(width=side, height=side, fit="stretch", resample="bicubic")
