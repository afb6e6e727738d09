"""Adapts transformers' networks to the answer heads, with the scores of the library's own post-processing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from saccade.export.errors import SourceError
from saccade.export.network import Network, NetworkRequest
from saccade.export.sources.class_features import WithFeatures
from saccade.export.sources.transformers_checkpoint import Checkpoint
from saccade.export.sources.transformers_patches import QueriesInOrder, make_traceable
from saccade.export.sources.transformers_pictures import PictureOrDepth
from saccade.export.sources.vectors import without_classifier
from saccade.models.contract.specs import Task

_ONE_CLASS_PER_QUERY = ("detr", "table-transformer", "yolos")  # a softmax with a class for nothing
_TAKES_PIXEL_MASK = ("detr", "table-transformer", "conditional_detr", "deformable_detr", "dab-detr")
_MOST_DETECTIONS = 300
_MASK2FORMER_SIDE = 384  # its post-processing enlarges masks to this side, whatever the image's size


def adapted(model: nn.Module, checkpoint: Checkpoint, request: NetworkRequest) -> Network:
    """Raises SourceError for extra outputs that the network does not have."""
    make_traceable(model)
    model_type = checkpoint.config.model_type
    match checkpoint.task:
        case Task.CLASSIFY:
            module: nn.Module = Logits(model)
            if "features" not in request.extra_outputs:
                return Network(module.eval(), "logits")
            return Network(WithFeatures(module, request.classes).eval(), "logits", extra_outputs=("features",))
        case Task.SEGMENT:
            _refuse(request, "features")
            if hasattr(checkpoint.config, "num_queries") or model_type in _MASKS_PER_QUERY:
                return Network(MaskedClasses(model, model_type).eval(), "dense_logits", zero_bars=True)
            return Network(Logits(model).eval(), "dense_logits")
        case Task.DETECT:
            _refuse(request, "features")
            return _detector(model, model_type, request)
        case Task.INSTANCES:
            size = (request.preprocess.width, request.preprocess.height)
            return Network(MaskedObjects(model, size).eval(), "prototype_masks", zero_bars=True, dense_outputs=2)
        case Task.EMBED:
            return Network(Vectors(model, checkpoint.config).eval(), "vectors")
        case Task.IMAGE:
            return Network(PictureOrDepth(model).eval(), "pixels")


_MASKS_PER_QUERY = ("detr", "mask2former", "maskformer", "oneformer", "eomt", "eomt_dinov3", "videomt")


def detections_of(config: Any) -> int:
    """Rows of the answer: one per query where each names one class, else as many as the library keeps."""
    queries = int(getattr(config, "num_queries", 0) or getattr(config, "num_detection_tokens", 0) or _MOST_DETECTIONS)
    return min(queries, _MOST_DETECTIONS)


class Logits(nn.Module):
    """`model(images).logits`, or what PP-LCNet's classifier gives in their place: its head's output as a state."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        outputs = self.model(pixel_values=images)
        if "logits" in outputs:
            found: Tensor = outputs.logits
        elif (state := outputs.get("last_hidden_state")) is not None and state.ndim == 2:
            found = state
        else:
            raise SourceError(f"{type(self.model).__name__} gives no logits; export it to ONNX and say `source: onnx`")
        return found


class Vectors(nn.Module):
    """One vector per picture: CLIP's and its like's features of images, else what a backbone or a classifier pools."""

    def __init__(self, model: nn.Module, config: Any) -> None:
        super().__init__()
        self.reads_images = hasattr(model, "get_image_features")
        for part in ("text_model", "text_projection"):
            if self.reads_images and hasattr(model, part):
                delattr(model, part)
        is_classifier = "ForImageClassification" in type(model).__name__
        if is_classifier:
            without_classifier(model, int(config.num_labels))
        self.model: Any = Logits(model) if is_classifier else model

    def forward(self, images: Tensor) -> Tensor:
        if isinstance(self.model, Logits):
            found: Tensor | None = self.model(images)
        else:
            outputs = self.model.get_image_features(images) if self.reads_images else self.model(pixel_values=images)
            found = outputs if isinstance(outputs, Tensor) else _pooled(outputs)
        if found is None:
            raise SourceError(
                f"task: embed needs one vector per picture, and {type(self.model).__name__} pools none; take a network "
                "that does, or your own module around it"
            )
        return found.flatten(1)


def _pooled(outputs: Any) -> Tensor | None:
    embeds: Tensor | None = outputs.get("image_embeds")
    pooled: Tensor | None = outputs.get("pooler_output")
    return pooled if embeds is None else embeds


class MaskedClasses(nn.Module):
    """Masks and classes of queries as scores (n, classes, h, w): their product, summed over queries."""

    def __init__(self, model: nn.Module, model_type: str) -> None:
        super().__init__()
        self.model = model
        self.enlarges = model_type == "mask2former"

    def forward(self, images: Tensor) -> Tensor:
        outputs = self.model(pixel_values=images)
        if "pred_masks" in outputs:
            classes, masks = outputs.logits, outputs.pred_masks
        else:
            classes, masks = outputs.class_queries_logits, outputs.masks_queries_logits
        if self.enlarges:
            side = (_MASK2FORMER_SIDE, _MASK2FORMER_SIDE)
            masks = functional.interpolate(masks, size=side, mode="bilinear", align_corners=False)
        shares = classes.softmax(dim=-1)[..., :-1]  # without the class for nothing
        scores: Tensor = torch.matmul(shares.transpose(1, 2), masks.sigmoid().flatten(2))
        return scores.reshape(masks.shape[0], -1, masks.shape[2], masks.shape[3])


class MaskedObjects(nn.Module):
    """Masks and classes of queries as objects: the best (query, class) pairs, each with its query's mask.

    Scores are those of Mask2Former's `post_process_instance_segmentation`: the class's share times the mean probability
    of the mask's pixels. Boxes are drawn around the masks, and an object without a pixel has the score 0.
    """

    def __init__(self, model: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.model = model
        self.size = size  # width, height of the network's input

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs = self.model(pixel_values=images)
        classes, masks = outputs.class_queries_logits, outputs.masks_queries_logits
        queries = masks.shape[1]
        shares = classes.softmax(dim=-1)[..., :-1]  # without the class for nothing
        best, pairs = torch.topk(shares.flatten(1), queries, dim=1)
        query = torch.div(pairs, shares.shape[2], rounding_mode="floor")
        side = (_MASK2FORMER_SIDE, _MASK2FORMER_SIDE)
        large = functional.interpolate(masks, size=side, mode="bilinear", align_corners=False)
        inside = (large > 0).to(large.dtype)
        certainty = (large.sigmoid() * inside).flatten(2).sum(2) / (inside.flatten(2).sum(2) + 1e-6)
        boxes = torch.gather(self._boxes(inside), 1, query.unsqueeze(2).expand(-1, -1, 4))
        chosen = torch.eye(queries, dtype=masks.dtype)[query]  # (n, objects, queries): which of the masks
        scores = best * torch.gather(certainty, 1, query)
        return boxes, scores, pairs - query * shares.shape[2], chosen, masks, classes, masks

    def _boxes(self, inside: Tensor) -> Tensor:
        """(n, queries, 4) around what is inside, in pixels of the network's input."""
        places = torch.arange(_MASK2FORMER_SIDE, dtype=inside.dtype)
        edges = []
        for axis, side in ((2, self.size[0]), (3, self.size[1])):
            occupied = inside.amax(axis)  # (n, queries, places): 1 where some pixel is inside
            low = torch.where(occupied > 0, places, float(_MASK2FORMER_SIDE)).amin(2)
            high = ((places + 1) * occupied).amax(2)
            scale = side / _MASK2FORMER_SIDE
            edges.append((torch.minimum(low, high) * scale, high * scale))
        (left, right), (top, bottom) = edges
        return torch.stack([left, top, right, bottom], dim=2)


class SetPrediction(nn.Module):
    """Boxes of queries in model pixels and their scores, with no suppression to do.

    Boxes are shares of what lies inside the bars, as in the library's post-processing.
    """

    def __init__(self, model: Any, model_type: str, gives_logits: bool) -> None:
        super().__init__()
        self.model = model
        self.is_exclusive = model_type in _ONE_CLASS_PER_QUERY
        self.takes_pixel_mask = model_type in _TAKES_PIXEL_MASK
        self.gives_logits = gives_logits
        self.queries = int(getattr(model.config, "num_queries", 0))

    def forward(self, images: Tensor, inside: Tensor | None = None) -> tuple[Tensor, ...]:
        if inside is None:
            inside = torch.ones_like(images[:, 0], dtype=torch.bool)
        masks = {"pixel_mask": inside.to(torch.int64)} if self.takes_pixel_mask else {}
        with QueriesInOrder(self.queries):
            outputs = self.model(pixel_values=images, **masks)
        logits, shares = outputs.logits, outputs.pred_boxes
        boxes = corners(shares) * _content_sizes(inside, images.dtype).unsqueeze(1)
        extras = (logits,) if self.gives_logits else ()
        if self.is_exclusive:
            scores, class_ids = logits.softmax(dim=-1)[..., :-1].max(dim=-1)
            return boxes, scores, class_ids, *extras, logits, shares
        return boxes, logits.sigmoid(), *extras


def _detector(model: nn.Module, model_type: str, request: NetworkRequest) -> Network:
    gives_logits = "logits" in request.extra_outputs
    module = SetPrediction(model, model_type, gives_logits)
    pads = module.takes_pixel_mask or model_type == "yolos"
    return Network(
        module.eval(),
        "candidates" if module.is_exclusive else "boxes",
        extra_outputs=("logits",) if gives_logits else (),
        zero_bars=pads,
        takes_padding_mask=pads,
        dense_outputs=2 if module.is_exclusive else 0,
    )


def corners(boxes: Tensor) -> Tensor:
    """Centre x, centre y, width, height to x1 y1 x2 y2; of a quadrilateral, the box around it.

    Quadrilaterals are a centre and four offsets, each half a picture too large: PP-DocLayoutV4's own form.
    """
    centres, sizes = boxes[..., :2], boxes[..., 2:]
    if sizes.shape[-1] > 2:
        points = centres.unsqueeze(-2) + sizes.reshape(*sizes.shape[:-1], -1, 2) - 0.5
        return torch.cat([points.amin(dim=-2), points.amax(dim=-2)], dim=-1)
    return torch.cat([centres - 0.5 * sizes, centres + 0.5 * sizes], dim=-1)


def _content_sizes(inside: Tensor, dtype: torch.dtype) -> Tensor:
    """(n, 4) width, height, width, height of what is not bar."""
    heights, widths = inside.any(dim=2).sum(dim=1), inside.any(dim=1).sum(dim=1)
    return torch.stack([widths, heights, widths, heights], dim=1).to(dtype)


def _refuse(request: NetworkRequest, name: str) -> None:
    if name in request.extra_outputs:
        raise SourceError(f"extra_outputs: {name} come from classifiers; this network offers logits")
