"""EViT on timm's DeiT-tiny, for the matrix."""

from __future__ import annotations

from typing import Any

from timm import create_model
from torch import nn

from saccade.models.networks.evit import with_token_reorganisation


def evit_deit_tiny(classes: int = 10, keep_rate: float = 0.7, image_size: int = 224) -> nn.Module:
    """DeiT-tiny with tokens dropped at layers 3, 6 and 9; keep rate 1 is timm's network itself."""
    network: Any = create_model("deit_tiny_patch16_224", num_classes=classes, img_size=image_size)
    return with_token_reorganisation(network, keep_rate)
