"""Loads torchvision's detectors with the library's own thresholds, sizes, normalisation and labels.

Every detector becomes candidates plus non-maximum suppression in the graph; see `torchvision_detection_dense.py` for
SSD, RetinaNet and FCOS, `torchvision_detection_proposals.py` for Faster R-CNN, and `torchvision_detection_masks.py` for
Mask R-CNN, whose boxes may also be served alone: `task: {task: detect}`. On a canvas for pictures of every shape they
answer as the library does to each picture alone (`torchvision_detection_canvas.py`).
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision import models
from torchvision.models.detection import FCOS, FasterRCNN, KeypointRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.ssd import SSD
from torchvision.transforms import functional

from saccade.export.errors import SourceError
from saccade.export.network import LibraryTransform, Network, NetworkRequest, SourceFacts, Suppression
from saccade.export.sources.library_pixels import as_library_transform
from saccade.export.sources.names import generic_labels, near_names
from saccade.export.sources.specs import SourceSpec, TorchvisionSource
from saccade.export.sources.torchvision_detection_canvas import STRIDE
from saccade.export.sources.torchvision_detection_dense import FcosCandidates, RetinaNetCandidates, SsdCandidates
from saccade.export.sources.torchvision_detection_masks import MASK_DENSE_OUTPUTS, MaskRcnnObjects, mask_spec
from saccade.export.sources.torchvision_detection_proposals import FasterRcnnCandidates
from saccade.export.sources.weights import RANDOM_WEIGHTS_SEED, load_tensors, state_dict_of
from saccade.models.contract.specs import Normalisation, PreprocessSpec, Task, TaskSpec

_ADAPTERS = ((SSD, SsdCandidates), (RetinaNet, RetinaNetCandidates), (FCOS, FcosCandidates))


def facts(source: SourceSpec, weights: Path | None) -> SourceFacts:
    """Raises SourceError for detectors of key points."""
    assert isinstance(source, TorchvisionSource)
    categories = tuple(models.get_model_weights(_name(source)).DEFAULT.meta["categories"])
    classes = int(source.arguments.get("num_classes", len(categories)))
    with torch.device("meta"):  # its settings are wanted, not its weights
        detector = _built(source, classes)
    transform = detector.transform
    return SourceFacts(
        task=_task(detector),
        labels=categories if classes == len(categories) else generic_labels(classes),
        preprocess=_pixels(transform),
        normalisation=Normalisation(mean=tuple(transform.image_mean), std=tuple(transform.image_std)),
    )


def load(request: NetworkRequest) -> Network:
    """Raises SourceError when the arguments, the weights or the canvas do not fit."""
    source = request.source
    assert isinstance(source, TorchvisionSource)
    if request.extra_outputs:
        raise SourceError(f"extra_outputs: {source.name} answers boxes and has no {request.extra_outputs[0]!r}")
    torch.manual_seed(RANDOM_WEIGHTS_SEED)
    detector = _built(source, request.classes)
    if request.weights is not None:
        load_tensors(detector, state_dict_of(request.weights), request.weights.name)
    detector = detector.eval().requires_grad_(False)
    height, width = request.preprocess.height, request.preprocess.width
    heads = _heads(detector)
    suppression = Suppression(heads.nms_thresh, heads.score_thresh)
    resizes = detector.transform.fixed_size is None
    if resizes:
        _ensure_canvas(source, width, height)
    pads = resizes and request.preprocess.fit == "letterbox"
    if request.task.masks is not None:
        return Network(
            MaskRcnnObjects(detector, height, width).eval(),
            "box_masks",
            takes_padding_mask=pads,
            zero_bars=pads,
            dense_outputs=MASK_DENSE_OUTPUTS,
        )
    if isinstance(detector, FasterRCNN):
        module: torch.nn.Module = FasterRcnnCandidates(detector, height, width)
        dense_outputs = 4
    else:
        adapter = next(adapter for kind, adapter in _ADAPTERS if isinstance(detector, kind))
        module = adapter(detector, height, width)
        dense_outputs = 2
    return Network(
        module.eval(), "candidates", suppression, takes_padding_mask=pads, zero_bars=pads, dense_outputs=dense_outputs
    )


def library_transform(request: NetworkRequest) -> LibraryTransform | None:
    """Resizing and normalisation by the detector's own transform; None where a smaller canvas decides the size."""
    source, given = request.source, request.preprocess
    assert isinstance(source, TorchvisionSource)
    with torch.device("meta"):
        transform = _built(source, request.classes).transform
    if given != _pixels(transform).model_copy(update={"width": given.width, "height": given.height}):
        return None
    longest = given.longest_edge or 0
    if longest > min(given.width, given.height):
        return None
    transform.image_mean, transform.image_std = list(request.normalisation.mean), list(request.normalisation.std)
    if transform.fixed_size is not None:
        transform.fixed_size = (given.width, given.height)

    def run(image: Any) -> Tensor:
        images, _ = transform([functional.to_tensor(image)])
        height, width = images.image_sizes[0]
        content: Tensor = images.tensors[0, :, :height, :width]
        return content

    return as_library_transform(run)


def _task(detector: Any) -> TaskSpec:
    rows = _heads(detector).detections_per_img
    if isinstance(detector, MaskRCNN):
        return TaskSpec(task=Task.INSTANCES, max_detections=rows, masks=mask_spec(detector))
    return TaskSpec(task=Task.DETECT, max_detections=rows)


def _name(source: TorchvisionSource) -> str:
    return source.name.partition(".")[0]


def _built(source: TorchvisionSource, classes: int) -> Any:
    """The detector with random weights. Raises SourceError for arguments that do not fit, and for key points."""
    arguments = {"num_classes": classes, **source.arguments}
    try:
        detector = models.get_model(_name(source), weights=None, weights_backbone=None, **arguments).eval()
    except (TypeError, ValueError, AssertionError) as error:
        raise SourceError(
            f"source.arguments {arguments} do not fit torchvision/{_name(source)}: {error}; "
            "they go to the library's builder"
        ) from error
    _ensure_known_arguments(source, detector)
    if isinstance(detector, KeypointRCNN):
        raise SourceError(
            f"source: torchvision/{_name(source)} answers key points, which no task here serves; "
            "its boxes alone are those of a fasterrcnn_* network"
        )
    return detector


def _ensure_known_arguments(source: TorchvisionSource, detector: Any) -> None:
    """The library's builders swallow names that nobody reads. Raises SourceError."""
    takers = (models.get_model_builder(_name(source)), type(detector), type(detector.transform))
    known = {name for taker in takers for name in inspect.signature(taker).parameters}
    for name in source.arguments:
        if name not in known:
            near = near_names(name, sorted(known))
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise SourceError(f"source.arguments: torchvision/{_name(source)} has no argument {name!r}{hint}")


def _ensure_canvas(source: TorchvisionSource, width: int, height: int) -> None:
    """Raises SourceError where the library's canvas of a picture would be larger than the graph's."""
    larger = [-(-side // STRIDE) * STRIDE for side in (width, height)]
    if larger != [width, height]:
        raise SourceError(
            f"preprocess: torchvision/{source.name} pads pictures to a multiple of {STRIDE}, and a canvas of "
            f"{width}x{height} would cut that; say width: {larger[0]} and height: {larger[1]}"
        )


def _heads(detector: Any) -> Any:
    """Where the thresholds of the final answer are."""
    return detector.roi_heads if isinstance(detector, FasterRCNN) else detector


def _pixels(transform: Any) -> PreprocessSpec:
    """The library resizes without antialiasing. Bars lie on the right and at the bottom of a canvas that fits all."""
    if transform.fixed_size is not None:
        width, height = transform.fixed_size
        return PreprocessSpec(width=width, height=height, fit="stretch", antialias=False)
    side = -(-transform.max_size // STRIDE) * STRIDE
    return PreprocessSpec(
        width=side,
        height=side,
        fit="letterbox",
        shortest_edge=transform.min_size[-1],
        longest_edge=transform.max_size,
        rounding="floor_each",
        anchor="top_left",
        antialias=False,
    )
