"""`saccade-export init` on files that lie, are damaged, or are of a kind that is not served.

Promises: one sentence each, and no recipe is left behind.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from PIL import Image

from saccade.export.cli.init import write_recipe
from saccade.export.errors import ExportError
from tests.support.onnx_files import centred_boxes, corners_of, table_file, ultralytics

Write = Callable[[Path], object]
SIZE = (64, 64)
ANCHORS = 84  # of 64x64 at strides 8, 16 and 32


def numbers(*shape: int, low: float = 0.0, high: float = 1.0) -> NDArray[np.float32]:
    return np.random.default_rng(0).uniform(low, high, shape).astype(np.float32)


def rows(classes: int, *, behind: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """(4 + classes + ..., anchors), as YOLOv8 gives them."""
    parts = [centred_boxes(ANCHORS, SIZE).T, numbers(classes, ANCHORS)]
    return np.concatenate([*parts, *([] if behind is None else [behind])])


def class_first() -> NDArray[np.float32]:
    corners = corners_of(centred_boxes(10, SIZE))
    return np.concatenate([np.zeros((10, 1), np.float32), numbers(10, 1), corners], 1)


def tables(table: NDArray[Any], **settings: Any) -> Write:
    return lambda path: table_file(path, {"output0": table}, **{"size": SIZE, **settings})


def several(**outputs: NDArray[Any]) -> Write:
    return lambda path: table_file(path, outputs, size=SIZE)


def changed(**fields: int) -> Write:
    def write(path: Path) -> None:
        model = onnx.load(table_file(path, {"logits": numbers(5, low=-2.0)}))
        if "opset" in fields:
            model.opset_import[0].version = fields["opset"]
        model.ir_version = fields.get("ir", model.ir_version)
        onnx.save(model, path)

    return write


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"")


def sparse_zeros(path: Path) -> None:
    path.write_bytes(b"\0")
    os.truncate(path, 1 << 32)


def truncated(path: Path) -> None:
    table_file(path, {"logits": numbers(500)})
    os.truncate(path, path.stat().st_size - 200)


def tensors_in_a_circle(path: Path) -> None:
    model = onnx.load(table_file(path, {"logits": numbers(500)}))
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=1000)
    (path.parent / "weights.bin").unlink()
    (path.parent / "weights.bin").symlink_to("weights.bin")


FILES: dict[str, tuple[Write, str]] = {
    "80 names, 20 channels": (
        tables(rows(20), metadata=ultralytics(80, SIZE)),
        "names 80 classes, which takes 84 rows",
    ),
    "scores that are said to be boxes": (tables(numbers(5), metadata=ultralytics(5, SIZE)), "task: detect needs boxes"),
    "rows that are said to be raw": (tables(numbers(300, 6), metadata=ultralytics(3, SIZE)), "takes 7 rows"),
    "names of two kinds": (
        tables(rows(3), metadata=ultralytics(3, SIZE, names="{'a': 1, 2: 'b'}")),
        r"number the classes \['a', 2\]",
    ),
    "keypoints, said": (tables(rows(1), metadata=ultralytics(1, SIZE, task="pose")), "keypoints are not served"),
    "keypoints, not said": (tables(rows(1, behind=numbers(51, ANCHORS, high=64.0))), "keypoints are not served"),
    "rotated boxes": (tables(rows(15), metadata=ultralytics(15, SIZE, task="obb")), "rotated boxes are not served"),
    "PaddleDetection": (tables(class_first()), "rows of class, score and corners, as PaddleDetection writes them"),
    "10,000 classes": (
        tables(numbers(10_004, ANCHORS), metadata=ultralytics(10_000, SIZE)),
        "would have 10000 classes as layout yolov8; detectors of 1 to 4096",
    ),
    "no class": (tables(numbers(0)), "'output0' .n, 0. holds no numbers"),
    "300 classes per pixel": (tables(numbers(300, 64, 64, low=-2.0)), "a mask tells at most 256 classes apart"),
    "class ids per pixel behind the labels": (
        tables(np.full((64, 64), 7, np.int64), metadata=ultralytics(3, SIZE, task="semantic")),
        "'output0' .n, 64, 64. answers class 7, and labels are 3",
    ),
    "anchors of YOLOv5 that are missing": (
        tables(rows(4)[:, :50].T, metadata={"names": "['a', 'b', 'c']", "stride": "32"}),
        "YOLOv5 has 252 anchors over pictures of .64, 64., and 'output0' .n, 50, 8. has 50",
    ),
    "channels, said": (
        tables(rows(3), metadata=ultralytics(3, SIZE, channels="1")),
        "its metadata says 1 channels, its input has 3",
    ),
    "pictures of no pixel, said": (
        tables(rows(3), metadata=ultralytics(3, SIZE, imgsz="[0, 0]"), image=("n", 3, "h", "w")),
        r"its metadata says pictures of \(0, 0\); 1 to 8192 pixels a side",
    ),
    "scores without their boxes": (
        several(boxes=corners_of(centred_boxes(84, SIZE)), scores=numbers(83, 3)),
        r"'boxes' .n, 84, 4.; 'scores' .n, 83, 3. have different numbers of rows",
    ),
    "class ids below none": (
        several(boxes=corners_of(centred_boxes(9, SIZE)), scores=numbers(9), labels=np.arange(9) - 4),
        r"'labels' .n, 9. answers class -4",
    ),
    "a row of no YOLO grid": (tables(rows(3)[:, :40]), "'output0' .n, 7, 40. has no row for each cell"),
    "pictures of 9000 pixels": (
        tables(numbers(5, low=-2.0), image=("n", 3, 9000, 9000)),
        "at most 8192 pixels a side are served",
    ),
    "opset 99": (changed(opset=99), "opset 99 and IR version 8, newer than what is known here"),
    "IR version 99": (changed(ir=99), "IR version 99, newer"),
    "an archive of torch.save": (archive, "no ONNX file but an archive, as torch.save writes them"),
    "nothing": (lambda path: path.write_bytes(b""), "is not an ONNX file: it holds no graph"),
    "four gigabytes of zeros": (sparse_zeros, "is no ONNX file: one holds at most 2 GiB"),
    "a truncated file": (truncated, "is not an ONNX file, or a damaged one"),
    "a link to itself": (lambda path: path.symlink_to(path.name), "there is no such file"),
    "tensors behind a link to itself": (tensors_in_a_circle, "a link that leads nowhere"),
}


@pytest.mark.parametrize("name", FILES)
def test_odd_file_is_refused_in_one_sentence_and_leaves_no_recipe(tmp_path: Path, name: str) -> None:
    write, text = FILES[name]
    (tmp_path / "pictures").mkdir()
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(tmp_path / "pictures" / "1.png")
    write(tmp_path / "network.onnx")

    with pytest.raises(ExportError, match=text) as refused:
        write_recipe(tmp_path / "network.onnx", None, tmp_path / "pictures", tmp_path / "recipe.yaml")

    assert "\n" not in str(refused.value)
    assert not (tmp_path / "recipe.yaml").exists()
