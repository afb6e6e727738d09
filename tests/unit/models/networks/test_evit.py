"""EViT on timm's DeiT: keep rate 1 is timm's network, attention is timm's, the most attended tokens stay.

What holds for every network with it (shared weights, static counts, a dynamic batch) is in `test_digits_vit.py`.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from saccade.models.networks.evit import TokenReorganisation, reorganised
from tests.matrix.networks.evit import evit_deit_tiny

SIZE = 64  # 16 patches


def _network(keep_rate: float) -> Any:
    torch.manual_seed(0)
    return evit_deit_tiny(classes=5, keep_rate=keep_rate, image_size=SIZE).eval()


def _logits(network: Any, images: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = network(images)
    return logits


def test_keep_rate_one_is_timms_network() -> None:
    from timm import create_model

    plain = create_model("deit_tiny_patch16_224", num_classes=5, img_size=SIZE).eval()
    evit = _network(1.0)
    evit.load_state_dict(plain.state_dict())
    images = torch.rand(2, 3, SIZE, SIZE)
    assert torch.equal(_logits(evit, images), _logits(plain, images))


def test_attention_of_a_reorganised_block_is_timms() -> None:
    block = _network(1.0).blocks[3]
    tokens = torch.randn(2, 17, 192)
    attended, class_attention = TokenReorganisation(block, 0.7)._attention(tokens)
    assert torch.allclose(attended, block.attn(tokens), atol=1e-5)
    assert class_attention.shape == (2, 16)
    assert bool((class_attention.sum(1) < 1).all())  # the class token's attention to itself is left out


def test_most_attended_tokens_stay_and_the_rest_is_fused() -> None:
    tokens = torch.tensor([[[9.0], [1.0], [2.0], [3.0], [4.0]]])
    attention = torch.tensor([[0.1, 0.4, 0.2, 0.3]])
    out = reorganised(tokens, attention, kept=2)
    assert out[0, :3, 0].tolist() == [9.0, 2.0, 4.0]
    assert out[0, 3, 0].item() == pytest.approx(1.0 * 0.1 + 3.0 * 0.2)
