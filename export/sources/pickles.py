"""Refuses checkpoints that run code when they are read; names are read from the file, and nothing of it is run."""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path

from saccade.export.errors import SourceError

_STRINGS = frozenset(("GLOBAL", "SHORT_BINUNICODE", "BINUNICODE", "UNICODE"))
_LARGEST_PICKLE = 64 << 20  # bytes; tensors lie in other members of the archive
_MODULES = {  # what a pickled network's classes are named after, and who wrote it
    "ultralytics": "Ultralytics",
    "models.yolo": "YOLOv5 or v7",
    "models.common": "YOLOv5 or v7",
    "yolox": "YOLOX",
}


def refuse_pickle(path: Path) -> None:
    """Raises SourceError with the command that works, for TorchScript and for pickled networks of known libraries."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.namelist()
        if any(member.endswith("/constants.pkl") for member in members):
            raise SourceError(
                f"{path.name} is TorchScript, which is not taken: torch itself is leaving it. Export the network that "
                "it was made from, with torch.onnx.export(..., dynamo=True) or torch.export.save, and give that file"
            )
        pickle = next((member for member in members if member.endswith("data.pkl")), None)
        if pickle is None or archive.getinfo(pickle).file_size > _LARGEST_PICKLE:
            return
        library = _library(archive.read(pickle))
    match library:
        case "Ultralytics":
            command = f"yolo export model={path.name} format=onnx"
        case "YOLOv5 or v7":
            command = f"python export.py --weights {path.name} --include onnx"
        case "YOLOX":
            command = f"python tools/export_onnx.py -c {path.name} --output-name {path.stem}.onnx"
        case _:
            return
    raise SourceError(
        f"{path.name} is a checkpoint of {library}, a pickle that runs code when it is read. Export it where you trust "
        f"it, `{command}`, and give the .onnx file to `saccade-export init`: names, size and layout are read from it"
    )


def _library(pickle: bytes) -> str | None:
    """Whose classes the pickle names; read as text."""
    try:
        for operation, argument, _ in pickletools.genops(pickle):
            if operation.name in _STRINGS and isinstance(argument, str):
                found = next((name for start, name in _MODULES.items() if argument.startswith(start)), None)
                if found:
                    return found
    except Exception:  # a pickle that even its own disassembler cannot follow names nobody
        return None
    return None
