"""Reads how pictures are made from the preprocessor_config.json that optimum writes beside its ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

CONFIG = "preprocessor_config.json"


def optimum_folder(file: Path) -> Path:
    """Returns the folder of config.json and preprocessor_config.json: the file's, or the one above its `onnx`."""
    return file.parent.parent if file.parent.name == "onnx" else file.parent


def pixel_sections(file: Path) -> dict[str, dict[str, Any]]:
    """Returns sections `preprocess` and `normalisation` of the recipe; empty where nothing beside the file says them.

    Raises SourceError when the processor cannot be used.
    """
    folder = optimum_folder(file)
    if not (folder / CONFIG).is_file():
        return {}
    # imported here because transformers takes seconds, and few files have such a neighbour
    from saccade.export.sources.transformers_pixels import normalisation_of, pixels_of, processor_of

    try:
        kind = str(orjson.loads((folder / "config.json").read_bytes())["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        kind = ""
    processor = processor_of(kind, folder)
    pixels = None if processor is None else pixels_of(processor)
    if processor is None or pixels is None:
        return {}
    normalisation = normalisation_of(processor)
    return {
        "preprocess": pixels.model_dump(mode="json", exclude_defaults=True),
        "normalisation": {"mean": list(normalisation.mean), "std": list(normalisation.std)},
    }
