"""Tiny ONNX files like those that users' tools write. Promises: each output is a given table, for every picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

FloatArray = NDArray[np.float32]


def table_file(
    path: Path,
    tables: Mapping[str, NDArray[Any]],
    *,
    size: tuple[int, int] = (32, 32),
    batch: str | int = "n",
    image: Sequence[str | int] | None = None,
    ends: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Each output is its table once per picture: a zero that is made of the picture is added to it.

    ends: an operator behind an output, such as Sigmoid. size: (width, height).
    """
    width, height = size
    shape = list(image or (batch, 3, height, width))
    nodes = [helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=1)]  # (n, 1, 1, 1)
    tensors = [numpy_helper.from_array(np.float32(0.0), "small")]
    nodes.append(helper.make_node("Mul", ["mean", "small"], ["trace"]))
    outputs = []
    for name, table in tables.items():
        kind = TensorProto.FLOAT if table.dtype.kind == "f" else helper.np_dtype_to_tensor_dtype(table.dtype)
        rank = [1] * (table.ndim)
        tensors += [
            numpy_helper.from_array(table[np.newaxis], f"{name}/table"),
            numpy_helper.from_array(np.array([-1, *rank], np.int64), f"{name}/rank"),
        ]
        nodes.append(helper.make_node("Reshape", ["trace", f"{name}/rank"], [f"{name}/trace"]))
        end = (ends or {}).get(name, "Identity")
        if kind == TensorProto.FLOAT:
            nodes.append(helper.make_node("Add", [f"{name}/trace", f"{name}/table"], [f"{name}/sum"]))
            nodes.append(helper.make_node(end, [f"{name}/sum"], [name]))
        else:
            nodes += [
                helper.make_node("Cast", [f"{name}/trace"], [f"{name}/whole"], to=kind),
                helper.make_node("Add", [f"{name}/whole", f"{name}/table"], [name]),
            ]
        outputs.append(helper.make_tensor_value_info(name, kind, [shape[0], *table.shape]))
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, dict(metadata or {}))
    onnx.save(model, path)
    return path


def ultralytics(classes: int, size: tuple[int, int] = (32, 32), **changes: str) -> dict[str, str]:
    """`metadata_props` as its exporter writes them; size: (width, height)."""
    names = {index: f"thing {index}" for index in range(classes)}
    said = {"task": "detect", "names": str(names), "stride": "32", "imgsz": str([size[1], size[0]]), "batch": "1"}
    return {**said, "end2end": "False", "args": "{'nms': False}", **changes}


def centred_boxes(rows: int, size: tuple[int, int], seed: int = 0) -> FloatArray:
    """(rows, 4) cx cy w h inside of (width, height), some of them overlapping."""
    rng = np.random.default_rng(seed)
    side = np.array(size, np.float32)
    centres = rng.uniform(0.3, 0.7, (rows, 2)) * side
    return np.concatenate([centres, rng.uniform(0.1, 0.4, (rows, 2)) * side], 1).astype(np.float32)


def corners_of(boxes: FloatArray) -> FloatArray:
    """cx cy w h to x1 y1 x2 y2, the textbook way."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], 1)


def suppressed(boxes: FloatArray, scores: FloatArray, ids: NDArray[np.int64], iou: float) -> list[int]:
    """Rows that greedy suppression within each class keeps, best first. Independent of torchvision."""
    kept: list[int] = []
    for row in np.argsort(-scores, kind="stable"):
        rivals = [other for other in kept if ids[other] == ids[row]]
        if all(overlap(boxes[row], boxes[other]) <= iou for other in rivals):
            kept.append(int(row))
    return kept


def overlap(a: FloatArray, b: FloatArray) -> float:
    """Overlap of two boxes, x1 y1 x2 y2."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return float(shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared))


def masks_file(
    path: Path, classes: int = 3, size: tuple[int, int] = (64, 64), channels: int = 6, seed: int = 0
) -> Path:
    """A small network with random weights in the form of Ultralytics' -seg: rows (n, 4 + classes + channels, anchors)
    with centres, and prototypes (n, channels, height / 4, width / 4). size: (width, height)."""
    rng = np.random.default_rng(seed)
    width, height = size
    rows = 4 + classes + channels
    cells = (height // 8) * (width // 8)
    spread = np.array([3.0] * 4 + [4.0] * classes + [3.0] * channels, np.float32).reshape(-1, 1, 1, 1)
    tensors = {
        "w/features": rng.normal(0, 0.4, (8, 3, 4, 4)),
        "w/rows": rng.normal(0, 0.3, (rows, 8, 2, 2)) * spread,
        "b/rows": np.array([0.0, 0.0, -0.5, -0.5] + [-1.0] * classes + [0.0] * channels),
        "w/prototypes": rng.normal(0, 1.5, (channels, 8, 3, 3)),
        "scale": np.array([width, height, width, height]).reshape(1, 4, 1),
    }
    whole = {"flat": [0, rows, cells], "split": [4, classes, channels]}
    node = helper.make_node
    nodes = [
        node("Conv", ["images", "w/features"], ["features/raw"], strides=[4, 4]),
        node("Relu", ["features/raw"], ["features"]),
        node("Conv", ["features", "w/prototypes"], ["prototypes/raw"], pads=[1, 1, 1, 1]),
        node("Identity", ["prototypes/raw"], ["output1"]),
        node("Conv", ["features", "w/rows", "b/rows"], ["rows/map"], strides=[2, 2]),
        node("Reshape", ["rows/map", "flat"], ["rows/flat"]),
        node("Split", ["rows/flat", "split"], ["boxes/raw", "scores/raw", "coefficients"], axis=1),
        node("Sigmoid", ["boxes/raw"], ["boxes/share"]),
        node("Mul", ["boxes/share", "scale"], ["boxes"]),
        node("Sigmoid", ["scores/raw"], ["scores"]),
        node("Concat", ["boxes", "scores", "coefficients"], ["output0"], axis=1),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("images", TensorProto.FLOAT, ["n", 3, height, width])],
        [
            value("output0", TensorProto.FLOAT, ["n", rows, cells]),
            value("output1", TensorProto.FLOAT, ["n", channels, height // 4, width // 4]),
        ],
        [numpy_helper.from_array(each.astype(np.float32), name) for name, each in tensors.items()]
        + [numpy_helper.from_array(np.array(each, np.int64), name) for name, each in whole.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def image_file(path: Path, side: int = 64) -> None:
    """A network that makes a picture: each pixel from 0 to 1, a bit darker."""
    shape = ["n", 3, side, side]
    given, made = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("images", "made"))
    node = helper.make_node("Mul", ["images", "factor"], ["made"])
    graph = helper.make_graph([node], "g", [given], [made], [numpy_helper.from_array(np.float32(0.75), "factor")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)
