"""Settles what an ONNX file is from metadata, then shapes, then values; a contradiction is refused.

Each word comes with where it is from: `said` by the file or the recipe, `found` by running it, or `assumed`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from saccade.export.errors import SourceError
from saccade.export.sources.names import generic_labels
from saccade.export.sources.onnx_classes import score_kind
from saccade.export.sources.onnx_detectors import MAX_CLASSES, Detector, detector_of
from saccade.export.sources.onnx_fits import (
    LETTERBOX,
    YOLOX_PIXELS,
    ensure_ids_are_labels,
    ensure_outputs_fit,
    ensure_rows_are_known,
    ensure_rows_are_pictures,
    origin_of_rows,
)
from saccade.export.sources.onnx_masks import is_channels_last, is_map_of_ids, mask_spec, prototypes_of
from saccade.export.sources.onnx_parts import ensure_not_tensorflow
from saccade.export.sources.onnx_pictures import picture
from saccade.export.sources.onnx_signs import FileSigns, Origin, OutputSign, task_of_shapes
from saccade.export.sources.onnx_ultralytics import (
    ULTRALYTICS_TASKS,
    ensure_metadata_fits,
    ensure_no_masks,
    ensure_servable,
)
from saccade.export.sources.onnx_unserved import Unrecognised, ensure_no_other_kind, shows_classes
from saccade.export.sources.onnx_vectors import embedder, only_output
from saccade.export.sources.onnx_words import FileWords, Layout, OutputWords
from saccade.models.contract.specs import Normalisation, PictureKind, PreprocessSpec, Task, TaskSpec

ULTRALYTICS_DETECTIONS = 300  # `max_det` of its predictor
_MAX_DETECTIONS = 100
_TOP_K = 5
_ROWS = ("yolov5", "yolov8", "yolov8-seg", "yolox")  # whose classes are the columns that are left
_LETTERBOXED = frozenset(("yolov5", "yolov8", "yolov8-seg", "end2end"))
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class SettledWord:
    """One settled word, as `init` prints it."""

    word: str
    value: str
    origin: Origin
    why: str


@dataclass(frozen=True, slots=True)
class Recognition:
    """Facts of the file, the words completed, and where each is from."""

    task: TaskSpec
    labels: tuple[str, ...] | None
    words: FileWords
    preprocess: PreprocessSpec | None
    normalisation: Normalisation
    findings: tuple[SettledWord, ...]


@dataclass(slots=True)
class _Notes:
    findings: list[SettledWord] = field(default_factory=list)

    def settle(self, word: str, given: _T | None, value: _T, origin: Origin, why: str) -> _T:
        """Settles a word: the recipe's value when it gives one, else the given value."""
        chosen, origin, why = (value, origin, why) if given is None else (given, "said", "by the recipe")
        self.add(word, chosen, origin, why)
        return chosen

    def add(self, word: str, value: object, origin: Origin, why: str) -> None:
        self.findings.append(SettledWord(word, _text(value), origin, why))


def recognised(
    signs: FileSigns,
    given: FileWords,
    task: Task | None = None,
    labels: int | None = None,
    hint: int | None = None,
    kind: PictureKind | None = None,
) -> Recognition:
    """task, labels, kind: what the recipe says; hint: how many classes the data shows, for what shapes leave open.

    Raises SourceError with the word to write.
    """
    ensure_servable(signs)
    notes = _Notes()
    if signs.quantized is not None:
        why = f"by the file: its weights are quantized already ({signs.quantized.sign}), and it is served as it is"
        notes.add("variants", "int8-cpu", "said", why)
    outputs = _chosen(signs, given.outputs)
    if (
        signs.ultralytics is not None
        and signs.ultralytics.is_yolov5
        and all(len(output.shape) != 2 for output in outputs)
    ):
        signs = replace(signs, ultralytics=None)  # a classifier, or someone else's: it says too little
    facts = signs.ultralytics
    if facts is not None:
        ensure_metadata_fits(signs, facts)
    ensure_not_tensorflow(signs, outputs, given.outputs)
    try:
        settled = _task_of(signs, outputs, given.outputs, task, notes)
    except Unrecognised as error:
        error.preprocess, error.normalisation, _ = _input(signs, given, Task.CLASSIFY, notes)
        raise
    ensure_outputs_fit(signs, outputs, settled, labels)
    known = labels if facts is None or facts.names is None else len(facts.names)
    if facts is not None and facts.names is not None and labels not in (None, known):
        raise SourceError(
            f"{signs.file} names {known} classes in its metadata and the recipe {labels}: name as many in `labels`, in "
            "the file's order, or leave them out"
        )
    match settled:
        case Task.CLASSIFY:
            spec, classes, words = _classifier(signs, outputs, given.outputs, known, notes)
        case Task.SEGMENT:
            spec, classes, words = _segmenter(signs, outputs, given, known, notes)
        case Task.DETECT | Task.INSTANCES:
            spec, classes, words = _detector(signs, outputs, given.outputs, settled, known, hint, notes)
        case Task.EMBED:
            spec, classes, words = embedder(signs, outputs, given.outputs)
        case Task.IMAGE:
            spec, classes, words = picture(signs, outputs, given.outputs, kind)
    if facts is None and labels is None and hint is None and words.layout in _ROWS:
        why = "every number behind a box is taken for a class: none shows that it is an angle or a place, or background"
        notes.add("classes", classes, "assumed", f"{why}; write `labels`")
    names = _labels(signs, classes, settled, words, notes)
    preprocess, normalisation, input_words = _input(signs, given, settled, notes, words.layout)
    return Recognition(
        spec, names, given.model_copy(update={**input_words, "outputs": words}), preprocess, normalisation,
        tuple(notes.findings),
    )  # fmt: skip


def _chosen(signs: FileSigns, given: OutputWords) -> tuple[OutputSign, ...]:
    """The outputs that the recipe names, or all. Raises SourceError for a name that does not exist, and for NaN."""
    by_name = {output.tensor.name: output for output in signs.outputs}
    absent = [name for name in given.names or () if name not in by_name]
    if absent:
        raise SourceError(
            f"{signs.file} has no output {absent[0]!r}; write outputs.names with some of: {_listed(signs)}"
        )
    chosen = tuple(by_name[name] for name in given.names) if given.names else signs.outputs
    for output in chosen:
        if output.values is not None and output.values.dtype.kind == "f" and not _is_finite(output.values):
            raise SourceError(
                f"{signs.file}: output {output} holds NaN or infinite numbers on a plain picture; if pixels need "
                "another range than 0..1 write `value_range: [low, high]`, else export the network again, in float32"
            )
        ensure_rows_are_pictures(signs, output)
    return chosen


def _is_finite(values: Any) -> bool:
    return bool(abs(values).max(initial=0.0) < float("inf"))


def _task_of(
    signs: FileSigns, outputs: tuple[OutputSign, ...], given: OutputWords, task: Task | None, notes: _Notes
) -> Task:
    if given.layout is not None:
        found = Task.INSTANCES if prototypes_of(outputs) is not None and task is not Task.DETECT else Task.DETECT
        if task not in (None, found):
            raise SourceError(
                f"outputs.layout: {given.layout} belongs to task: {found.value}, and the recipe says {task.value}"
            )
        notes.add("task", found.value, "said", "by outputs.layout of the recipe")
        return found
    facts = signs.ultralytics
    if facts is not None:
        # YOLOv5's own export names no task.
        said = (
            Task.INSTANCES if facts.is_yolov5 and prototypes_of(outputs) is not None else ULTRALYTICS_TASKS[facts.task]
        )
        if task is None:
            ensure_no_masks(signs, facts, prototypes_of(outputs))
        if said is Task.INSTANCES and task is Task.DETECT:
            notes.add("task", "detect", "said", "by the recipe: the boxes of a network with masks")
            return task
        if task not in (None, said):
            raise SourceError(
                f"{signs.file} says task {facts.task} in its metadata, the recipe says {task}: leave it out"
            )
        notes.add("task", said.value, "said", f"by the file: Ultralytics, task {facts.task}")
        return said
    if task is not None:
        notes.add("task", task.value, "said", "by the recipe")
        return task
    shown = task_of_shapes(signs, outputs)
    if shown is None:
        raise Unrecognised(
            f"{signs.file} is not recognised by its outputs: {_listed(signs)}. Write `outputs: {{names: [...], layout: "
            "...}` for a detector (layouts: yolov5, yolov8, yolov8-seg, yolox, end2end, detr, boxes), or name the one "
            "output of a classifier or segmenter"
        )
    ensure_no_other_kind(signs, outputs, shown)
    origin: Origin = "said"
    why = f"by the shape of {'; '.join(str(output) for output in outputs)}"
    if shown is Task.DETECT and len(outputs) == 1:
        ensure_rows_are_known(signs, outputs[0])
        origin, why = origin_of_rows(signs, outputs[0])
    if shown in (Task.CLASSIFY, Task.SEGMENT) and not shows_classes(signs, outputs[0]):
        is_foreground = shown is Task.SEGMENT and 1 in outputs[0].shape
        taken = "a foreground, and may be an amount, such as depth" if is_foreground else "a score of each class"
        if shown is Task.CLASSIFY and outputs[0].shape[0] == 1:
            taken = "the score of the second of two classes, and may be an amount, such as an age"
        taken = "class numbers" if shown is Task.SEGMENT and is_map_of_ids(signs, outputs[0]) else taken
        origin, why = "assumed", f"from the shape of {outputs[0]}: taken for {taken}"
    notes.add("task", shown.value, origin, why)
    return shown


def _classifier(
    signs: FileSigns, outputs: tuple[OutputSign, ...], given: OutputWords, labels: int | None, notes: _Notes
) -> tuple[TaskSpec, int | None, OutputWords]:
    fitting = [each for each in outputs if len(each.shape) == 1 and each.shape[0] == labels]
    output = fitting[0] if len(fitting) == 1 else only_output(signs, outputs, "classify")
    columns = output.shape[0] if len(output.shape) == 1 or output.shape[1:] == (1, 1) else None
    if columns is None:
        raise SourceError(f"{signs.file}: task classify needs one output (n, classes), found {output}")
    classes = 2 if columns == 1 else columns
    if labels is not None and labels != classes:
        hint = ": first the label of 0, then that of 1" if columns == 1 else ""
        raise SourceError(f"{signs.file} gives {output}, so it needs {classes} labels{hint}; there are {labels}")
    kind, origin, why = score_kind(signs.file, output, given.scores)
    notes.add("outputs.scores", kind, origin, why)
    words = given.model_copy(update={"scores": kind, "names": (output.tensor.name,)})
    if given.threshold is None:
        return TaskSpec(task=Task.CLASSIFY, top_k=min(_TOP_K, classes)), classes, words
    if kind == "logits" or columns == 1:
        why = "is one column, the second of two labels" if columns == 1 else "needs `scores: sigmoid` for that"
        raise SourceError(f"{signs.file}: outputs.threshold is for labels that do not compete, but {output} {why}")
    notes.add("task.multi_label", True, "said", "by outputs.threshold of the recipe")
    spec = TaskSpec(task=Task.CLASSIFY, top_k=classes, multi_label=True, score_threshold=given.threshold)
    return spec, classes, words


def _segmenter(
    signs: FileSigns, outputs: tuple[OutputSign, ...], given: FileWords, labels: int | None, notes: _Notes
) -> tuple[TaskSpec, int | None, OutputWords]:
    output, words = outputs[0], given.outputs
    if len(outputs) > 1:
        notes.add("outputs.names", [output.tensor.name], "assumed", f"the first of {_listed(signs)}")
    spec, words = TaskSpec(task=Task.SEGMENT), words.model_copy(update={"names": (output.tensor.name,)})
    if is_map_of_ids(signs, output, labels):
        if words.scores is not None or words.threshold is not None:
            raise SourceError(
                f"{signs.file}: {output} holds a class number per pixel, which has no scores: leave out outputs.scores "
                "and outputs.threshold"
            )
        ensure_ids_are_labels(signs, output, labels)
        is_said = "int" in output.tensor.type or output.made_by == "ArgMax"
        origin: Origin = "said" if is_said else "assumed"  # whole numbers in float may count something else
        notes.add("outputs", "class ids per pixel", origin, f"by the shape and the whole numbers of {output}")
        return spec, labels, words
    channels = output.shape[2 if is_channels_last(signs, output) else 0]
    if channels != 1:
        if words.threshold is not None:
            raise SourceError(
                f"{signs.file}: outputs.threshold cuts one channel, and of {output} the largest of {channels} wins"
            )
        if labels is not None and channels != labels:
            raise SourceError(f"{signs.file} gives {output}, {channels} classes per pixel; there are {labels} labels")
        return spec, channels, words
    if labels not in (None, 2):
        raise SourceError(
            f"{signs.file} gives {output}, one channel, so it needs two labels: background and what it finds; there "
            f"are {labels}"
        )
    kind, origin, why = score_kind(signs.file, output, words.scores)
    notes.add("outputs.scores", kind, origin, why)
    threshold = notes.settle("outputs.threshold", words.threshold, 0.5, "assumed", "the middle")
    return spec, 2, words.model_copy(update={"scores": kind, "threshold": threshold})


def _detector(
    signs: FileSigns,
    outputs: tuple[OutputSign, ...],
    given: OutputWords,
    task: Task,
    labels: int | None,
    hint: int | None,
    notes: _Notes,
) -> tuple[TaskSpec, int | None, OutputWords]:
    """Of detectors, with masks or without; those of a network with masks may be left out."""
    if given.threshold is not None:
        raise SourceError(
            f"{signs.file}: outputs.threshold belongs to segmenters of one channel and classifiers of several labels; "
            "for a detector write `task: {score_threshold: ...}`"
        )
    prototypes = prototypes_of(outputs)
    rows = tuple(output for output in outputs if output is not prototypes)
    channels = 0 if prototypes is None else int(prototypes.shape[0] or 0)
    if signs.ultralytics is None and given.layout is None and len(rows) == 1:
        ensure_rows_are_known(signs, rows[0], channels)
    found: Detector = detector_of(signs, rows, given, labels, hint, channels)
    for word, value, origin, why in found.findings:
        notes.add(word, value, origin, why)
    if found.classes is not None and not 1 <= found.classes <= MAX_CLASSES:
        raise SourceError(
            f"{signs.file}: {outputs[0]} would have {found.classes} classes as layout {found.words.layout}; detectors "
            f"of 1 to {MAX_CLASSES} classes are served. Write outputs.layout if it is another one"
        )
    most = ULTRALYTICS_DETECTIONS if signs.ultralytics is not None else _MAX_DETECTIONS
    if task is Task.DETECT:
        return TaskSpec(task=task, max_detections=most), found.classes, found.words
    masks = mask_spec(signs.file, outputs, prototypes)
    words = found.words.model_copy(update={"names": tuple(each.tensor.name for each in (*rows, prototypes) if each)})
    return TaskSpec(task=task, max_detections=most, masks=masks), found.classes, words


def _labels(
    signs: FileSigns, classes: int | None, task: Task, words: OutputWords, notes: _Notes
) -> tuple[str, ...] | None:
    facts = signs.ultralytics
    said = (signs.labels if task is Task.CLASSIFY else None) if facts is None else facts.names
    if facts is None and said is not None and len(said) != classes:
        raise SourceError(
            f"{signs.file} contradicts itself: its metadata names {len(said)} classes ({', '.join(said[:3])}), and its "
            f"output has {classes}; export it again"
        )
    if said is not None:
        notes.add("labels", f"{len(said)}: {', '.join(said[:3])}", "said", "by the file's metadata")
        return said
    if classes is None:
        return None
    if task is Task.SEGMENT and words.threshold is not None:
        return ("background", "foreground")
    return generic_labels(classes)


def range_normalisation(low: float, high: float) -> Normalisation:
    """Of pixels from `low` (black) to `high` (white)."""
    mean, std = (0.0 - low) / (high - low), 1.0 / (high - low)
    return Normalisation(mean=(mean,) * 3, std=(std,) * 3)


def _input(
    signs: FileSigns, given: FileWords, task: Task, notes: _Notes, layout: Layout | None = None
) -> tuple[PreprocessSpec | None, Normalisation, dict[str, Any]]:
    signature, facts = signs.signature, signs.ultralytics
    shape = f"by the shape of input {signature.images}"
    if signs.exporter is not None and facts is None:
        name, is_said, sign = signs.exporter
        notes.add("exporter", name, "said" if is_said else "assumed", sign)
    notes.add("input_layout", signature.layout, "said", shape)
    notes.add("channels", signature.channels, "said", shape)
    origin: Origin = "assumed" if facts is None else "said"
    why = "the file does not say how its pixels are made" if facts is None else "by the file: Ultralytics' own rule"
    if signs.pixels.value_range is not None:
        from_file: Origin = "said" if signs.pixels.is_range_said else "found"
        found = signs.pixels.value_range
        low, high = notes.settle("value_range", given.value_range, found, from_file, signs.pixels.range_why)
    else:
        usual = (0.0, 255.0) if layout == "yolox" and facts is None else (0.0, 1.0)
        why = "as YOLOX's own programs do; the file does not say it" if usual[1] > 1.0 else why
        low, high = notes.settle("value_range", given.value_range, usual, origin, why)
    normalisation = range_normalisation(low, high)
    words = {"input_layout": signature.layout, "channels": signature.channels}
    if signs.size is None:
        return None, normalisation, words
    width, height = signs.size
    if facts is None and layout == "yolox":
        preprocess = YOLOX_PIXELS.model_copy(update={"width": width, "height": height})
    elif facts is None:
        order = signs.pixels.channel_order or "rgb"
        preprocess = PreprocessSpec(width=width, height=height, fit="stretch", channel_order=order)
        if layout in _LETTERBOXED:
            preprocess = preprocess.model_copy(update=LETTERBOX)
    elif task is Task.CLASSIFY:
        is_square = width == height
        cut: dict[str, Any] = {"shortest_edge": width} if is_square else {"resize_to": (width, height)}
        preprocess = PreprocessSpec(width=width, height=height, fit="crop", rounding="floor", **cut)
    else:
        preprocess = PreprocessSpec(width=width, height=height, **LETTERBOX)
    if facts is None and layout in _LETTERBOXED:
        why = "as the YOLO family is run; the file does not say it"
    notes.add("preprocess", f"{width}x{height} {preprocess.fit}, {preprocess.channel_order}", origin, why)
    return preprocess, normalisation, words


def _listed(signs: FileSigns) -> str:
    return "; ".join(str(output) for output in signs.outputs)


def _text(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)
