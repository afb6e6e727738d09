"""Reference networks. Promises held here: shapes, batch independence, widths, the papers' sizes from the same code."""

import pytest
import torch
from torch import nn

from saccade.models.networks.ddrnet import SegmentationLogits, ddrnet23_slim, digits_segmenter
from saccade.models.networks.layers import as_float, trained_parameters
from saccade.models.networks.resnet import digits_classifier, resnet18, resnet50
from saccade.models.networks.yolov10 import DualPredictions, anchor_points, digits_detector, yolov10_s


def test_classifier_answers_one_row_of_logits_per_image() -> None:
    assert digits_classifier().eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 10)


def test_detector_answers_boxes_and_scores_for_every_anchor() -> None:
    boxes, scores = digits_detector().eval()(torch.rand(2, 3, 256, 256))
    assert boxes.shape == (2, 32 * 32 + 16 * 16 + 8 * 8, 4)
    assert scores.shape == (2, 1344, 10)
    assert 0.0 <= float(scores.min().detach()) <= float(scores.max().detach()) <= 1.0
    assert bool((boxes[..., 2:] >= boxes[..., :2]).all())


def test_detector_training_returns_both_heads_and_shields_features_from_one_to_one() -> None:
    network = digits_detector().train()
    raw = network(torch.rand(2, 3, 256, 256))
    assert isinstance(raw, DualPredictions)
    assert raw.one_to_many.distances.shape == raw.one_to_one.distances.shape == (2, 1344, 64)
    raw.one_to_one.logits.sum().backward()
    assert all(parameter.grad is None for parameter in network.backbone.parameters())


def test_detector_decodes_uniform_distributions_to_boxes_centred_on_anchors() -> None:
    network = digits_detector()
    boxes = network.decode_boxes(torch.zeros(1, 1344, 64))[0]
    centres, strides = anchor_points(256)
    assert torch.allclose((boxes[:, :2] + boxes[:, 2:]) / 2, centres)
    assert torch.allclose(boxes[:, 2:] - boxes[:, :2], 15.0 * strides.expand(-1, 2))  # mean bin 7.5 on each side


def test_segmenter_answers_at_input_size_and_trains_two_heads_at_an_eighth() -> None:
    network = digits_segmenter()
    images = torch.rand(2, 3, 256, 256)
    assert network.eval()(images).shape == (2, 11, 256, 256)
    assert network.logits_at_stride(images).shape == (2, 11, 32, 32)
    raw = network.train()(images)
    assert isinstance(raw, SegmentationLogits)
    assert raw.main.shape == raw.auxiliary.shape == (2, 11, 32, 32)


@pytest.mark.parametrize(
    ("factory", "size"), [(digits_classifier, 64), (digits_detector, 256), (digits_segmenter, 256)]
)
def test_an_image_is_answered_alike_alone_and_in_a_batch(factory: type[nn.Module], size: int) -> None:
    network = factory().eval()
    images = torch.rand(3, 3, size, size)
    with torch.inference_mode():
        together, alone = network(images), network(images[1:2])
    if isinstance(together, tuple):
        together, alone = together[0], alone[0]
    assert torch.allclose(together[1:2], alone, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("factory", [digits_classifier, digits_detector, digits_segmenter])
@pytest.mark.parametrize("width", [1.0, 2.0])
def test_hidden_channels_are_multiples_of_sixteen(factory: type[nn.Module], width: float) -> None:
    with torch.device("meta"):
        network = factory(width=width)
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.bias is None:  # with bias: a head's last layer, sized by the task
            assert layer.out_channels % 16 == 0, name


@pytest.mark.parametrize(
    ("factory", "shape", "million_parameters"),
    [
        (resnet18, (1, 3, 224, 224), 11.69),
        (resnet50, (1, 3, 224, 224), 25.56),
        (yolov10_s, (1, 3, 640, 640), 8.1),  # 7.2 at inference, where the one-to-many head is gone
        (ddrnet23_slim, (1, 3, 1024, 2048), 5.7),
    ],
)
def test_the_papers_sizes_come_from_the_same_code(
    factory: type[nn.Module], shape: tuple[int, ...], million_parameters: float
) -> None:
    with torch.device("meta"):
        network = factory().eval()
        network(torch.empty(shape))
    assert trained_parameters(network) / 1e6 == pytest.approx(million_parameters, rel=0.01)


def test_silu_is_an_option_of_the_detector() -> None:
    with torch.device("meta"):
        kinds = {type(layer) for layer in digits_detector(activation="silu").modules()}
    assert nn.SiLU in kinds
    assert nn.ReLU not in kinds


def test_detector_refuses_sizes_its_strides_do_not_divide() -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        digits_detector(image_size=250)


def test_pixels_become_channels_first_in_zero_to_one() -> None:
    pixels = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)
    assert torch.allclose(as_float(pixels), torch.tensor([[[[0.0]], [[0.2]], [[1.0]]]]))
