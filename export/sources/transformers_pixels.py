"""Converts a transformers image processor into the server's resize rule, or into None when it is unknown.

A processor is read after transformers built it, so that defaults of its class and keys of older files are settled.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from saccade.export.errors import SourceError
from saccade.export.network import LibraryTransform
from saccade.export.sources.library_pixels import as_library_transform
from saccade.models.contract.specs import Normalisation, PreprocessSpec

_FILES = ("preprocessor_config.json", "processor_config.json")
_RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # Pillow's numbers
_STRIDE = 32  # canvases of detectors are rounded up to it
Resample = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
Size = tuple[int, int]  # width, height
# Classes whose own `resize` is understood below; any other that has one is left to the recipe.
_OWN_RESIZE = frozenset(
    {
        "ConditionalDetrImageProcessor",
        "ConvNextImageProcessor",
        "DPTImageProcessor",
        "DeformableDetrImageProcessor",
        "DetrImageProcessor",
        "LevitImageProcessor",
        "Mask2FormerImageProcessor",
        "MaskFormerImageProcessor",
        "PoolFormerImageProcessor",
        "RTDetrImageProcessor",
        "RfDetrImageProcessor",
        "YolosImageProcessor",
    }
)
_YOLOS_MULTIPLE = 16
# Those that resize as cv2.resize does, without looking at more pixels where they make a picture smaller.
_NOT_ANTIALIASED = frozenset(
    {
        "PPDocLayoutV2ImageProcessor",
        "PPDocLayoutV3ImageProcessor",
        "PPDocLayoutV4ImageProcessor",
        "RfDetrImageProcessor",
    }
)
_PP_LCNET = "PPLCNetImageProcessor"  # turns RGB to BGR behind the normalisation, whatever its settings are


def processor_of(model_type: str, weights: Path | None) -> Any | None:
    """The image processor of a directory, else the model type's default one; None when there is none.

    Raises SourceError when the directory's file cannot be used.
    """
    import transformers
    from transformers.models.auto import image_processing_auto

    if weights is not None and any((weights / name).is_file() for name in _FILES):
        try:
            auto: Any = transformers.AutoImageProcessor  # untyped in the library
            return auto.from_pretrained(weights, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, ImportError, KeyError) as error:
            raise SourceError(f"the image processor in {weights} cannot be used: {_first_line(error)}") from error
    if weights is not None and weights.is_dir():
        return None  # a checkpoint that does not say: guessing would be a silent mistake
    known = vars(image_processing_auto)["IMAGE_PROCESSOR_MAPPING_NAMES"]
    names = known.get(model_type) or known.get(model_type.removesuffix("_vision_model"))
    if not names or not names.get("torchvision"):
        return None
    return getattr(transformers, names["torchvision"])()


def pixels_of(processor: Any, fixed_size: Size | None = None) -> PreprocessSpec | None:
    """The processor's resize rule; `fixed_size` replaces an exact size. None: the recipe must say."""
    name = type(processor).__name__.removesuffix("Fast").removesuffix("Pil")
    if not processor.do_resize or (_resizes_its_own_way(processor) and name not in _OWN_RESIZE):
        return None
    rule: dict[str, Any] = {"resample": _resample(processor), "antialias": name not in _NOT_ANTIALIASED}
    if getattr(processor, "do_flip_channel_order", False) or name == _PP_LCNET:
        rule["channel_order"] = "bgr"
    placed = _placement(processor, name, fixed_size)
    return None if placed is None else PreprocessSpec.model_validate(rule | placed)


def is_exact(processor: Any) -> bool:
    """False for MaskFormer and its like, which also stretch both sides to a multiple; a letterbox keeps the shape."""
    size = getattr(processor, "size", None)
    return not (size is not None and size.longest_edge and getattr(processor, "size_divisor", None))


def normalisation_of(processor: Any) -> Normalisation:
    """Rescaling, mean and deviation as one `(pixel / 255 - mean) / std`."""
    factor = 255.0 * (processor.rescale_factor if processor.do_rescale else 1.0)
    offset = 1.0 if getattr(processor, "rescale_offset", False) else 0.0
    mean, std = _triple(processor.image_mean, 0.0), _triple(processor.image_std, 1.0)
    if not processor.do_normalize:
        mean, std = (0.0,) * 3, (1.0,) * 3
    # EfficientNet divides by the deviation a second time in front of its classifier.
    again = _triple(processor.image_std, 1.0) if getattr(processor, "include_top", False) else (1.0,) * 3
    order = -1 if type(processor).__name__ == _PP_LCNET else 1
    return Normalisation(
        mean=_three([(value + offset) / factor for value in mean][::order]),
        std=_three([first * second / factor for first, second in zip(std, again, strict=True)][::order]),
    )


def transform_of(processor: Any) -> LibraryTransform:
    """The processor itself, without the bars that it adds to form batches."""
    options = {"do_pad": False} if getattr(processor, "do_pad", False) else {}
    return as_library_transform(
        lambda image: processor(images=image, return_tensors="pt", **options)["pixel_values"][0]
    )


def _placement(processor: Any, name: str, fixed_size: Size | None) -> dict[str, Any] | None:
    """How the resized image comes to lie on the canvas."""
    size = processor.size
    if size.shortest_edge and size.longest_edge:
        return _within_edges(processor, name)
    if size.max_height and size.max_width:
        return _within(size.max_width, size.max_height) | {"rounding": "floor_each"}
    if name in ("ConvNextImageProcessor", "PoolFormerImageProcessor"):
        return _by_crop_share(processor, name)
    cut = _size(processor.crop_size) if getattr(processor, "do_center_crop", False) else None
    if name == _PP_LCNET and processor.resize_short:
        if cut is None or processor.size_divisor != 1:
            return None
        return _crop(cut) | {"shortest_edge": processor.resize_short, "rounding": "round"}
    if size.shortest_edge:
        edge = int(256 / 224 * size.shortest_edge) if name == "LevitImageProcessor" else size.shortest_edge
        return None if cut is None else _crop(cut) | {"shortest_edge": edge, "rounding": "floor"}
    if not (size.height and size.width) or getattr(processor, "keep_aspect_ratio", False):
        return None
    multiple = getattr(processor, "ensure_multiple_of", 1) or 1
    exact = fixed_size or (_rounded(size.width, multiple), _rounded(size.height, multiple))
    if cut is None or cut == exact or fixed_size is not None:
        return {"width": exact[0], "height": exact[1], "fit": "stretch"}
    return _crop(cut) | {"resize_to": exact}


def _within_edges(processor: Any, name: str) -> dict[str, Any]:
    """The rule of DETR and its like: a canvas that holds every image, bars on the right and at the bottom."""
    size, pad_size = processor.size, getattr(processor, "pad_size", None)
    side = -(-size.longest_edge // _STRIDE) * _STRIDE
    width, height = _size(pad_size) if pad_size else (side, side)
    rule = {"shortest_edge": size.shortest_edge, "longest_edge": size.longest_edge, "rounding": "floor"}
    if name == "YolosImageProcessor":
        rule["multiple_of"] = _YOLOS_MULTIPLE
    return _within(width, height) | rule


def _by_crop_share(processor: Any, name: str) -> dict[str, Any] | None:
    """The shortest edge is the cut divided by `crop_pct`; ConvNeXt stretches instead from 384 pixels on."""
    edge = processor.size.shortest_edge or processor.size.height
    if not edge or not processor.crop_pct:
        return None
    if name == "ConvNextImageProcessor" and edge >= 384:
        return {"width": edge, "height": edge, "fit": "stretch"}
    cut = _size(processor.crop_size) if name == "PoolFormerImageProcessor" else (edge, edge)
    return _crop(cut) | {"shortest_edge": int(edge / processor.crop_pct), "rounding": "floor"}


def _within(width: int, height: int) -> dict[str, Any]:
    return {"width": width, "height": height, "fit": "letterbox", "anchor": "top_left"}


def _crop(cut: Size) -> dict[str, Any]:
    return {"width": cut[0], "height": cut[1], "fit": "crop", "crop_offset": "floor", "pad_value": 0}


def _rounded(side: int, multiple: int) -> int:
    return max(multiple, round(side / multiple) * multiple)


def _size(size: Any) -> Size:
    return int(size["width"]), int(size["height"])


def _resizes_its_own_way(processor: Any) -> bool:
    backend = next(base for base in type(processor).__mro__ if base.__name__ in ("TorchvisionBackend", "PilBackend"))
    methods = ("resize", "center_crop")
    return any(getattr(type(processor), method) is not getattr(backend, method) for method in methods)


def _resample(processor: Any) -> Resample:
    number = processor.resample
    name: Any = _RESAMPLE[int(number)] if number is not None else "bilinear"
    checked: Resample = name
    return checked


def _triple(values: Any, missing: float) -> tuple[float, ...]:
    if values is None:
        return (missing,) * 3
    return (float(values),) * 3 if isinstance(values, (int, float)) else tuple(float(value) for value in values)


def _three(values: list[float]) -> tuple[float, float, float]:
    if len(values) != 3 or not all(math.isfinite(value) for value in values):
        raise SourceError(f"the image processor normalises with {values}; images have three channels")
    return values[0], values[1], values[2]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
