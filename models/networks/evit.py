"""EViT token reorganisation (Liang et al., arXiv 2202.07800) on timm's DeiT, with static counts and timm's weights.

At some layers the patch tokens that the class token attends to most stay; the others are fused into one token. How many
stay follows from the image size and the keep rate alone, so that the graph exports with a dynamic batch. Every keep
rate has the same parameters under timm's own names: one checkpoint serves them all.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


class TokenReorganisation(nn.Module):
    """A block of timm's VisionTransformer that drops tokens between its attention and its MLP."""

    def __init__(self, block: Any, keep_rate: float) -> None:
        """Takes over the children of `block`, under the same names."""
        super().__init__()
        self.keep_rate = keep_rate
        self.norm1, self.attn, self.ls1, self.drop_path1 = block.norm1, block.attn, block.ls1, block.drop_path1
        self.norm2, self.mlp, self.ls2, self.drop_path2 = block.norm2, block.mlp, block.ls2, block.drop_path2

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (n, 1 + count, channels), class token first, to (n, 2 + kept, channels)."""
        attended, class_attention = self._attention(self.norm1(tokens))
        tokens = tokens + self.drop_path1(self.ls1(attended))
        tokens = reorganised(tokens, class_attention, kept_count(tokens.shape[1] - 1, self.keep_rate))
        out: Tensor = tokens + self.drop_path2(self.ls2(self.mlp(self.norm2(tokens))))
        return out

    def _attention(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What timm's Attention computes, and the class token's attention (n, count) to the others, over all heads."""
        attn = self.attn
        batch, count, _ = x.shape
        query, key, value = attn.qkv(x).reshape(batch, count, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        query, key = attn.q_norm(query), attn.k_norm(key)
        weights = ((query * attn.scale) @ key.transpose(-2, -1)).softmax(-1)
        mixed = (attn.attn_drop(weights) @ value).transpose(1, 2).reshape(batch, count, -1)
        return attn.proj_drop(attn.proj(attn.norm(mixed))), weights[:, :, 0, 1:].mean(1)


def kept_count(count: int, keep_rate: float) -> int:
    """The number of tokens that stay of `count`, not counting the class token."""
    return math.ceil(keep_rate * count)


def reorganised(tokens: Tensor, class_attention: Tensor, kept: int) -> Tensor:
    """The class token, the `kept` most attended tokens, and the attention-weighted sum of the rest."""
    count = class_attention.shape[1]
    attention, order = class_attention.topk(count, dim=1)
    ranked = tokens[:, 1:].gather(1, order[..., None].expand(-1, -1, tokens.shape[2]))
    fused = (ranked[:, kept:] * attention[:, kept:, None]).sum(1, keepdim=True)
    return torch.cat([tokens[:, :1], ranked[:, :kept], fused], 1)


def with_token_reorganisation(network: Any, keep_rate: float) -> nn.Module:
    """Changes a timm VisionTransformer in place: tokens are dropped in the blocks after each quarter of its depth.

    Keep rate 1 leaves it alone. Raises ValueError for a rate outside (0, 1].
    """
    if not 0.0 < keep_rate <= 1.0:
        raise ValueError(f"keep_rate must be in (0, 1], got {keep_rate}")
    if keep_rate < 1.0:
        for layer in reorganised_layers(len(network.blocks)):
            network.blocks[layer] = TokenReorganisation(network.blocks[layer], keep_rate)
    module: nn.Module = network
    return module


def reorganised_layers(depth: int) -> tuple[int, ...]:
    """Numbers of the layers that drop tokens, counted from 0: of twelve layers 3, 6 and 9, as published."""
    return tuple(depth * quarter // 4 for quarter in (1, 2, 3))
