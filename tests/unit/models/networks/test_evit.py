"""EViT. Promises held here: keep rate 1 is timm's DeiT, every rate shares its weights, token counts are static."""

from typing import Any

import pytest
import torch
from torch import Tensor

from saccade.models.networks.evit import TokenReorganisation, evit_deit_tiny, kept_count, reorganised

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


def test_every_keep_rate_loads_the_same_checkpoint() -> None:
    plain = _network(1.0)
    for keep_rate in (0.5, 0.9):
        result = _network(keep_rate).load_state_dict(plain.state_dict())
        assert not result.missing_keys
        assert not result.unexpected_keys


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


def test_token_counts_follow_the_keep_rate() -> None:
    network = _network(0.5)
    counts: list[int] = []
    for block in network.blocks:
        block.register_forward_hook(lambda module, inputs, output: counts.append(output.shape[1]))
    _logits(network, torch.rand(1, 3, SIZE, SIZE))
    first = 2 + kept_count(16, 0.5)
    second = 2 + kept_count(first - 1, 0.5)
    third = 2 + kept_count(second - 1, 0.5)
    assert counts == [17] * 3 + [first] * 3 + [second] * 3 + [third] * 3


def test_images_of_a_batch_do_not_touch_each_other() -> None:
    network = _network(0.7)
    images = torch.rand(3, 3, SIZE, SIZE)
    alone = torch.cat([_logits(network, images[index : index + 1]) for index in range(3)])
    assert torch.allclose(_logits(network, images), alone, atol=1e-5)


def test_exported_program_keeps_a_dynamic_batch() -> None:
    network = _network(0.7)
    batch = torch.export.Dim("batch", min=1, max=16)
    program = torch.export.export(network, (torch.rand(2, 3, SIZE, SIZE),), dynamic_shapes=({0: batch},))
    images = torch.rand(5, 3, SIZE, SIZE)
    assert torch.allclose(program.module()(images), _logits(network, images), atol=1e-5)


@pytest.mark.parametrize("keep_rate", [0.0, 1.1])
def test_impossible_keep_rate_is_refused(keep_rate: float) -> None:
    with pytest.raises(ValueError, match="keep_rate"):
        evit_deit_tiny(keep_rate=keep_rate)
