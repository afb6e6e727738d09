"""A small hybrid vision transformer for digit crops, with timm's blocks and names; all keep rates share weights.

Patches are cut from the feature map of a ResNet's first stages (Dosovitskiy et al., An Image is Worth 16x16 Words,
arXiv 2010.11929, hybrid architecture): with patches of pixels, so few crops do not train it in minutes.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from saccade.models.networks.evit import with_token_reorganisation
from saccade.models.networks.resnet import ResNet, digits_classifier

IMAGE_SIZE = 64
_STAGES = 2  # of the classifier's four: 32 channels at a quarter of the resolution
_FEATURE_RATIO, _PATCH = 4, 2  # 2x2 patches of its features: 64 tokens


class EarlyStages(nn.Module):
    """The digit classifier's stem and first stages, under its own names."""

    def __init__(self, classifier: ResNet) -> None:
        super().__init__()
        self.stem, self.stages = classifier.stem, classifier.stages[:_STAGES]
        self.num_features = classifier.config.widths[_STAGES - 1]  # timm reads it

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.stages(self.stem(images))
        return features


def digits_vit(
    classes: int = 10, width: int = 128, depth: int = 6, heads: int = 4, mlp_ratio: float = 2.0, keep_rate: float = 1.0
) -> nn.Module:
    """Float NCHW (n, 3, 64, 64) in 0..1 to logits (n, classes). Needs timm. Raises ValueError for a bad keep rate."""
    # The reference networks work where timm is not installed.
    from timm.layers.hybrid_embed import HybridEmbed
    from timm.models.vision_transformer import VisionTransformer

    def embed(**options: Any) -> nn.Module:
        early = EarlyStages(digits_classifier())
        return HybridEmbed(early, feature_size=IMAGE_SIZE // _FEATURE_RATIO, feature_ratio=_FEATURE_RATIO, **options)

    network: Any = VisionTransformer(
        img_size=IMAGE_SIZE,
        patch_size=_PATCH,
        num_classes=classes,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        mlp_ratio=mlp_ratio,
        embed_layer=embed,
    )
    for block in network.blocks:
        block.attn.fused_attn = False  # for 65 tokens plain products train twice as fast on a CPU
    return with_token_reorganisation(network, keep_rate)
