"""Lists the networks that the libraries offer; a recipe may name each of them behind its library."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable

NAMELESS = {
    "module": "module/package.file:factory builds your own network; weights: its state_dict as safetensors",
    "pt2": "pt2 with weights: network.pt2 takes what torch.export.save wrote",
    "onnx": "onnx with weights: network.onnx takes an ONNX file of normalised float input",
}


def matching_names(pattern: str | None) -> dict[str, list[str]]:
    """Names by library; a pattern without wildcards is looked for anywhere, and may carry the library: `timm/res*`."""
    wanted = "*" if pattern is None else pattern.lower()
    if not any(character in wanted for character in "*?["):
        wanted = f"*{wanted}*"
    return {
        library: [
            name
            for name in names()
            if fnmatch.fnmatchcase(name.lower(), wanted) or fnmatch.fnmatchcase(f"{library}/{name}".lower(), wanted)
        ]
        for library, names in _LIBRARIES.items()
    }


def library_names(library: str) -> list[str]:
    return _LIBRARIES[library]()


def _torchvision() -> list[str]:
    from saccade.export.sources.torchvision_source import servable_names  # each library takes seconds to import

    return servable_names()


def _timm() -> list[str]:
    import timm

    names: list[str] = timm.list_models()
    return names


def _transformers() -> list[str]:
    from transformers.models.auto import modeling_auto

    mappings = (
        modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_IMAGE_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_IMAGE_TO_IMAGE_MAPPING_NAMES,
    )
    return sorted({str(model_type) for mapping in mappings for model_type in mapping})


_LIBRARIES: dict[str, Callable[[], list[str]]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "transformers": _transformers,
}
