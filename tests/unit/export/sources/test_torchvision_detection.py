"""Detectors of torchvision. Promises: on a canvas for all pictures, the answers of the library to each one alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.models.detection.ssd import SSD
from torchvision.ops import MultiScaleRoIAlign, SqueezeExcitation

from saccade.export.convert.detection_heads import CandidatesHead, InstancesHead
from saccade.export.errors import SourceError
from saccade.export.network import NetworkRequest, Suppression
from saccade.export.sources import torchvision_detection
from saccade.export.sources.specs import TorchvisionSource
from saccade.export.sources.torchvision_detection_dense import FcosCandidates, RetinaNetCandidates, SsdCandidates
from saccade.export.sources.torchvision_detection_masks import MaskRcnnObjects, mask_spec
from saccade.export.sources.torchvision_detection_proposals import FasterRcnnCandidates
from saccade.models.contract.instance_masks import mask_windows
from saccade.models.contract.preprocessing import Geometry
from saccade.models.contract.specs import MaskSpec, Normalisation, PreprocessSpec, Task, TaskSpec
from tests.support.conversion import ConvertedModule

SIDE = 128
CLASSES = 5
ROWS = 30
NORMAL = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
AS_IT_IS = {**NORMAL, "min_size": SIDE, "max_size": SIDE}  # the longer side is that already: the library pads only


class TinyPyramid(nn.Module):
    """Three maps at strides 8, 16 and 64, with all that looks at neighbours or at the whole map."""

    def __init__(self, out_channels: Any) -> None:
        super().__init__()
        self.out_channels = out_channels
        channels = out_channels if isinstance(out_channels, int) else out_channels[0]
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.fine = nn.Sequential(nn.Conv2d(8, channels, 3, 2, 1), nn.ReLU(), SqueezeExcitation(channels, 4))
        self.down = nn.Sequential(nn.Conv2d(channels, channels, 3, 2, 1), nn.GroupNorm(2, channels), nn.ReLU())
        self.coarse = nn.Sequential(nn.Conv2d(channels, channels, 3, 4, 1), nn.ReLU())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        fine = self.fine(self.stem(images))
        middle = self.down(fine)
        return OrderedDict([("0", fine), ("1", middle), ("2", self.coarse(middle))])


def anchors() -> AnchorGenerator:
    return AnchorGenerator(sizes=((8, 16), (16, 32), (48, 64)), aspect_ratios=((0.5, 1.0),) * 3)


def ssd() -> nn.Module:
    generator = DefaultBoxGenerator([[2], [2], [2]], scales=[0.15, 0.4, 0.7, 0.9])
    settings = {"topk_candidates": 20, "score_thresh": 0.1, "detections_per_img": ROWS}
    return SSD(TinyPyramid([8, 8, 8]), generator, (SIDE, SIDE), CLASSES, **NORMAL, **settings)


def retinanet() -> nn.Module:
    settings = {"topk_candidates": 60, "score_thresh": 0.05, "nms_thresh": 0.1, "detections_per_img": ROWS}
    return RetinaNet(TinyPyramid(8), CLASSES, anchor_generator=anchors(), **AS_IT_IS, **settings)


def fcos() -> nn.Module:
    generator = AnchorGenerator(sizes=((24,), (48,), (128,)), aspect_ratios=((1.0,),) * 3)
    settings = {"topk_candidates": 60, "score_thresh": 0.05, "nms_thresh": 0.1, "detections_per_img": ROWS}
    return FCOS(TinyPyramid(32), CLASSES, anchor_generator=generator, **AS_IT_IS, **settings)


def faster_rcnn() -> nn.Module:
    return FasterRCNN(
        TinyPyramid(8),
        CLASSES,
        rpn_anchor_generator=anchors(),
        rpn_pre_nms_top_n_test=60,
        rpn_post_nms_top_n_test=40,
        box_roi_pool=MultiScaleRoIAlign(["0", "1"], 3, 2),
        box_detections_per_img=ROWS,
        box_nms_thresh=0.1,
        **AS_IT_IS,
    )


DETECTORS: dict[str, tuple[Callable[[], nn.Module], type[nn.Module]]] = {
    "ssd": (ssd, SsdCandidates),
    "retinanet": (retinanet, RetinaNetCandidates),
    "fcos": (fcos, FcosCandidates),
    "faster_rcnn": (faster_rcnn, FasterRcnnCandidates),
}


class Deployed(nn.Module):
    """Adapter and head, as `wrap` puts them together."""

    def __init__(self, detector: Any, adapter: type[nn.Module]) -> None:
        super().__init__()
        heads = getattr(detector, "roi_heads", detector)
        self.adapter = adapter(detector, SIDE, SIDE)
        self.head = CandidatesHead(ROWS, CLASSES, Suppression(heads.nms_thresh, heads.score_thresh))
        self.takes_mask = not isinstance(detector, SSD)

    def forward(self, images: Tensor, inside: Tensor) -> tuple[Tensor, ...]:
        raw = self.adapter(images, inside) if self.takes_mask else self.adapter(images)
        answer: tuple[Tensor, ...] = self.head(raw)
        return answer


class DeployedWithMasks(nn.Module):
    """Mask R-CNN's adapter and head."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.adapter = MaskRcnnObjects(detector, SIDE, SIDE)
        self.head = InstancesHead(4, ROWS, CLASSES)

    def forward(self, images: Tensor, inside: Tensor) -> tuple[Tensor, ...]:
        answer: tuple[Tensor, ...] = self.head(self.adapter(images, inside))
        return answer


def mask_rcnn() -> nn.Module:
    return MaskRCNN(
        TinyPyramid(8),
        CLASSES,
        rpn_anchor_generator=anchors(),
        rpn_pre_nms_top_n_test=60,
        rpn_post_nms_top_n_test=40,
        box_roi_pool=MultiScaleRoIAlign(["0", "1"], 3, 2),
        box_detections_per_img=ROWS,
        mask_roi_pool=MultiScaleRoIAlign(["0", "1"], 7, 2),
        mask_head=MaskRCNNHeads(8, (256,), 1),
        **AS_IT_IS,
    )


def with_real_values(detector: nn.Module) -> nn.Module:
    """Scores that differ and boxes that overlap: a fresh detector answers the same everywhere."""
    generator = torch.Generator().manual_seed(7)
    for name, module in detector.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            scale = 2.5 if "backbone" in name or "logits" in name or "cls" in name else 1.0
            fan_in = module.weight[0].numel()
            module.weight.data = torch.randn(module.weight.shape, generator=generator) * scale * fan_in**-0.5
            if module.bias is not None:
                module.bias.data.zero_()
    return detector.eval().requires_grad_(False)


@cache
def detector_and_deployed(name: str) -> tuple[nn.Module, Deployed]:
    torch.manual_seed(0)
    build, adapter = DETECTORS[name]
    detector = with_real_values(build())
    return detector, Deployed(detector, adapter).eval()


@cache
def converted(name: str) -> ConvertedModule:
    _, deployed = detector_and_deployed(name)
    return ConvertedModule(deployed, canvas(pictures(name, 2)))


def pictures(name: str, count: int) -> list[Tensor]:
    """Images of different sizes, as the library takes them; SSD takes one size only.

    Of the others it makes canvases of 128x128, 96x128 and 128x64.
    """
    generator = torch.Generator().manual_seed(count)
    sizes = [(SIDE, SIDE)] * count if name == "ssd" else [(128, 128), (72, 128), (128, 40)][:count]
    return [torch.rand(3, *size, generator=generator) for size in sizes]


def canvas(images: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The images in the top left corner of zeros, and what lies inside."""
    whole, inside = torch.zeros(len(images), 3, SIDE, SIDE), torch.zeros(len(images), SIDE, SIDE, dtype=torch.bool)
    for row, image in enumerate(images):
        whole[row, :, : image.shape[1], : image.shape[2]] = image
        inside[row, : image.shape[1], : image.shape[2]] = True
    return whole, inside


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", list(DETECTORS))
def test_graph_answers_what_the_library_answers(name: str, count: int) -> None:
    detector, _ = detector_and_deployed(name)
    images = pictures(name, count)

    boxes, scores, class_ids, counts = converted(name)(*canvas(images))

    for row, expected in enumerate(detector([image])[0] for image in images):
        found = int(counts[row])
        assert found == len(expected["scores"]) >= 5
        np.testing.assert_allclose(scores[row, :found], expected["scores"].numpy(), rtol=1e-4)
        np.testing.assert_allclose(boxes[row, :found], expected["boxes"].numpy(), atol=1e-2)
        np.testing.assert_array_equal(class_ids[row, :found], expected["labels"].numpy())


def test_masks_are_those_of_the_library_in_the_picture_s_pixels() -> None:
    torch.manual_seed(0)
    detector = with_real_values(mask_rcnn())
    deployed = DeployedWithMasks(detector).eval()
    images = pictures("mask_rcnn", 3)

    answer = ConvertedModule(deployed, canvas(pictures("mask_rcnn", 2)))(*canvas(images))

    for row, image in enumerate(images):
        (expected,) = detector([image])
        found = int(answer[3][row])
        assert found == len(expected["scores"]) >= 5
        np.testing.assert_allclose(answer[0][row, :found], expected["boxes"].numpy(), atol=1e-2)
        height, width = image.shape[1:]
        windows = mask_windows(
            [array[row] for array in answer],
            np.arange(found),
            mask_spec(detector),
            (SIDE, SIDE),
            Geometry(width, height, 0, 0, width, height),
        )
        for window, mask in zip(windows, expected["masks"][:, 0].numpy() > 0.5, strict=True):
            whole = window.whole(height, width)
            # Boxes are cut to whole pixels, where rounding may move a border.
            assert (whole & mask).sum() >= 0.98 * (whole | mask).sum()
        assert any(window.pixels.any() for window in windows)


def test_masks_or_the_boxes_alone_are_served() -> None:
    source = TorchvisionSource(kind="torchvision", name="maskrcnn_resnet50_fpn", arguments={"num_classes": 3})

    facts = torchvision_detection.facts(source, None)

    masks = MaskSpec(form="boxes", height=28, width=28)
    assert facts.task == TaskSpec(task=Task.INSTANCES, max_detections=100, masks=masks)


@pytest.mark.parametrize("name", list(DETECTORS))
def test_suppression_has_something_to_do(name: str) -> None:
    _, deployed = detector_and_deployed(name)
    inputs = canvas(pictures(name, 1))
    deployed_without = CandidatesHead(ROWS, CLASSES)

    kept = deployed(*inputs)[1]
    boxes, scores, class_ids = (deployed.adapter(*inputs) if deployed.takes_mask else deployed.adapter(inputs[0]))[:3]

    assert not torch.allclose(kept, deployed_without((boxes, scores, class_ids))[1])


def request(name: str, **preprocess: object) -> NetworkRequest:
    source = TorchvisionSource(kind="torchvision", name=name, arguments={"num_classes": 3})
    facts = torchvision_detection.facts(source, None)
    assert facts.task is not None
    assert facts.preprocess is not None
    assert facts.labels is not None
    pixels = facts.preprocess.model_copy(update=preprocess)
    return NetworkRequest(source, None, facts.task, 3, pixels, facts.normalisation or Normalisation())


def test_facts_are_those_of_the_library() -> None:
    source = TorchvisionSource(kind="torchvision", name="retinanet_resnet50_fpn")

    facts = torchvision_detection.facts(source, None)

    assert facts.task == TaskSpec(task=Task.DETECT, max_detections=300)
    assert facts.labels is not None
    assert facts.labels[:2] == ("__background__", "person")
    assert facts.preprocess == PreprocessSpec(
        width=1344,
        height=1344,
        fit="letterbox",
        shortest_edge=800,
        longest_edge=1333,
        rounding="floor_each",
        anchor="top_left",
        antialias=False,
    )
    assert facts.normalisation == Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def test_network_of_a_library_detector_has_the_requested_size_and_thresholds() -> None:
    network = torchvision_detection.load(request("ssdlite320_mobilenet_v3_large"))

    with torch.no_grad():
        boxes, scores, class_ids, *dense = network.module(torch.zeros(1, 3, 320, 320))

    assert boxes.shape == (1, 600, 4)  # 300 of each class, background apart
    assert scores.shape == class_ids.shape == (1, 600)
    assert len(dense) == network.dense_outputs
    assert network.suppression == Suppression(0.55, 0.001)


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("keypointrcnn_resnet50_fpn", {}, "answers key points, which no task here serves"),
        ("ssd300_vgg16", {"colour": 3}, "has no argument 'colour'"),
    ],
)
def test_detector_that_cannot_be_served_is_refused(name: str, arguments: dict[str, Any], text: str) -> None:
    source = TorchvisionSource(kind="torchvision", name=name, arguments=arguments)

    with pytest.raises(SourceError, match=text):
        torchvision_detection.facts(source, None)


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
def test_canvas_that_would_cut_the_library_s_own_is_refused_with_the_next_size(fit: str) -> None:
    with pytest.raises(SourceError, match=r"a canvas of 333x320 would cut that; say width: 352 and height: 320"):
        torchvision_detection.load(request("fasterrcnn_mobilenet_v3_large_320_fpn", width=333, height=320, fit=fit))
