"""Reads what the metadata of Ultralytics' exports say of a file; a contradiction with its shapes is refused."""

from __future__ import annotations

from saccade.export.errors import SourceError
from saccade.export.sources.onnx_fits import ANCHORS_PER_CELL, ASK, grid_counts, looks_end2end
from saccade.export.sources.onnx_signs import FileSigns, Origin, OutputSign, UltralyticsFacts
from saccade.export.sources.onnx_words import Layout
from saccade.models.contract.specs import Task

_UNSERVED = {
    "pose": "keypoints",
    "obb": "rotated boxes",
    "depth": "depth per pixel",
}
ULTRALYTICS_TASKS = {
    "detect": Task.DETECT,
    "segment": Task.INSTANCES,
    "classify": Task.CLASSIFY,
    "semantic": Task.SEGMENT,
}


def ensure_servable(signs: FileSigns) -> None:
    """Raises SourceError for weights quantized to something else than int8, and for tasks that are not served."""
    if signs.quantized is not None and not signs.quantized.is_int8:
        raise SourceError(
            f"{signs.file} cannot be exported: its weights are quantized already ({signs.quantized.sign}), and not to "
            "int8; name the float file that it was made from, and saccade quantizes and gates that itself"
        )
    facts = signs.ultralytics
    if facts is not None and facts.task in _UNSERVED:
        raise SourceError(
            f"{signs.file} is an Ultralytics network of task {facts.task}: {_UNSERVED[facts.task]} are not served. "
            "saccade serves detect, segment, classify and semantic"
        )


def ensure_metadata_fits(signs: FileSigns, facts: UltralyticsFacts) -> None:
    """Raises SourceError where the file contradicts itself."""
    if facts.task not in ULTRALYTICS_TASKS:
        raise SourceError(
            f"{signs.file} says task {facts.task!r} in its metadata, which is no task of Ultralytics that saccade knows"
        )
    if facts.names is not None and not facts.names:
        raise SourceError(f"{signs.file} names no class in its metadata: export it again with its names")
    size = signs.signature.size
    if facts.imgsz is not None and size is not None and facts.imgsz != (size[1], size[0]):
        raise SourceError(
            f"{signs.file} contradicts itself: its metadata says pictures of {facts.imgsz} (height, width), its input "
            f"takes {(size[1], size[0])}; export it again"
        )
    if facts.channels not in (None, signs.signature.channels):
        raise SourceError(
            f"{signs.file} contradicts itself: its metadata says {facts.channels} channels, its input has "
            f"{signs.signature.channels}; export it again"
        )
    stride = facts.stride
    if facts.task != "classify" and facts.imgsz is not None and stride and any(side % stride for side in facts.imgsz):
        raise SourceError(f"{signs.file} says stride {stride}, which does not divide its picture size {facts.imgsz}")


def ensure_no_masks(signs: FileSigns, facts: UltralyticsFacts, prototypes: OutputSign | None) -> None:
    """Raises SourceError for a file that says that it detects, and has masks."""
    if facts.task == "detect" and not facts.is_yolov5 and prototypes is not None:
        raise SourceError(
            f"{signs.file} contradicts itself: its metadata says task detect, and {prototypes} is a map, as of mask "
            "prototypes; export it again, or write `outputs: {layout: yolov8-seg}`"
        )


def ultralytics_layout(
    signs: FileSigns, facts: UltralyticsFacts, output: OutputSign, coefficients: int
) -> tuple[Layout, Origin, str]:
    """The layout of one tensor (rows, numbers) of known shape. Raises SourceError where the file contradicts itself."""
    rows, columns = int(output.shape[0] or 0), int(output.shape[1] or 0)
    if facts.is_yolov5:
        return _yolov5_layout(signs, output, len(facts.names or ()), coefficients)
    why = f"by the file: Ultralytics, task {facts.task}, {output}"
    wanted = None if facts.names is None else 4 + len(facts.names) + coefficients
    if facts.is_end2end:
        if columns == 6 + coefficients:
            return "end2end", "said", why
        raise SourceError(
            f"{signs.file} contradicts itself: its metadata says that boxes are suppressed already, and "
            f"{output} has no rows of {6 + coefficients} numbers; export it again, or {ASK}"
        )
    if facts.is_end2end is None and rows != wanted and looks_end2end(output, coefficients):
        return "end2end", "found", "six numbers per row, a score in 0..1 and a whole number among them"
    if wanted is not None and rows != wanted:
        raise SourceError(
            f"{signs.file} contradicts itself: its metadata names {len(facts.names or ())} classes, which "
            f"takes {wanted} rows, and {output} has {rows}; export it again, or {ASK}"
        )
    size = signs.size
    counts = grid_counts(size)
    if counts and columns not in counts:
        raise SourceError(
            f"{signs.file} contradicts itself: pictures of {size[0]}x{size[1]} have {counts[0]} anchors at "  # type: ignore[index]  # counts are empty without a size
            f"strides 8, 16 and 32, and {output} has {columns}; export it again, or {ASK}"
        )
    return "yolov8-seg" if coefficients else "yolov8", "said", why


def _yolov5_layout(signs: FileSigns, output: OutputSign, classes: int, coefficients: int) -> tuple[Layout, Origin, str]:
    columns = output.shape[1]
    if columns != 5 + classes + coefficients:
        raise SourceError(
            f"{signs.file} contradicts itself: its metadata names {classes} classes, which takes "
            f"{5 + classes + coefficients} columns in YOLOv5's layout, and {output} has {columns}; {ASK}"
        )
    counts = grid_counts(signs.size)
    if counts and output.shape[0] not in (*counts, *(ANCHORS_PER_CELL * count for count in counts)):
        raise SourceError(
            f"{signs.file} contradicts itself: YOLOv5 has {ANCHORS_PER_CELL * counts[0]} anchors over pictures of "
            f"{signs.size}, and {output} has {output.shape[0]}; export it again, or {ASK}"
        )
    return "yolov5", "said", f"by the file: YOLOv5, {classes} names, {output}"
