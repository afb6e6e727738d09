"""Files that have the shape of a served kind and are another. Promises: refused in words, and believed if told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from saccade.export.errors import SourceError
from saccade.export.sources import source_facts
from saccade.export.sources.onnx_fits import YOLOX_PIXELS, yolox_grid
from saccade.export.sources.onnx_recognition import Recognition, recognised
from saccade.export.sources.onnx_signs import signs_of
from saccade.export.sources.onnx_words import FileWords
from saccade.models.contract.specs import Normalisation, Task
from tests.support.network_requests import source_spec
from tests.support.onnx_files import table_file

SIDE = 64  # pixels
Tables = dict[str, NDArray[Any]]


def numbers(*shape: int, low: float = -3.0, high: float = 3.0) -> NDArray[np.float32]:
    return np.random.default_rng(shape).uniform(low, high, shape).astype(np.float32)


def choices(*shape: int) -> NDArray[np.float32]:
    """Probabilities along the last axis."""
    raised = np.exp(numbers(*shape))
    return (raised / raised.sum(-1, keepdims=True)).astype(np.float32)


def of_length_one(*shape: int) -> NDArray[np.float32]:
    """Vectors along the first axis."""
    found = numbers(*shape)
    return (found / np.linalg.norm(found, axis=0)).astype(np.float32)


def heat_maps() -> NDArray[np.float32]:
    found = np.zeros((17, 16, 16), np.float32)
    found[np.arange(17), np.arange(17) % 16, 5] = 0.9
    return found


def corners(rows: int) -> NDArray[np.float32]:
    first = numbers(rows, 2, low=0.0, high=0.5)
    return np.concatenate([first, first + numbers(rows, 2, low=0.1, high=0.5)], 1)


KINDS: dict[str, tuple[Tables, str]] = {
    "text, softmax per step": ({"out": choices(25, 95)}, "gives a sequence: every row of 'out' "),
    "text, as wide as long": ({"out": choices(40, 37)}, "gives a sequence"),
    "text, raw": ({"out": numbers(25, 95, low=0.0)}, "has no row for each cell"),
    "tokens": ({"last_hidden_state": numbers(50, 96)}, "gives an embedding, as the name of 'last_hidden_state'"),
    "embedding, normed": ({"out": of_length_one(100)}, "gives an embedding: the vectors of 'out' .* have the length 1"),
    "embedding, raw": ({"fc1": numbers(512)}, "gives an embedding, or 512 classes: 'fc1' .* is raw"),
    "embedding, named": ({"image_embeds": numbers(100)}, "gives an embedding, as the name"),
    "landmarks in a row": ({"out": numbers(196, low=0.0, high=1.0)}, "positions or amounts"),
    "landmarks in pairs": (
        {"out": numbers(68, 2, low=0.0, high=1.0)},
        "keypoints or bare boxes: 'out' .* has 2 numbers",
    ),
    "mesh": ({"out": numbers(468, 3, low=0.0, high=192.0)}, "keypoints or bare boxes: 'out' .* has 3 numbers"),
    "heat maps": ({"out": heat_maps()}, "gives keypoints, or masks that do not compete"),
    "head pose": ({"yaw_pitch_roll": numbers(3)}, "gives angles, as the name"),
    "depth, named": ({"predicted_depth": numbers(SIDE, SIDE)}, "gives depth per pixel, as the name"),
    "depth, channel": ({"disp": numbers(1, SIDE, SIDE)}, "gives depth per pixel, as the name of 'disp'"),
    "depth, nameless": ({"812": numbers(SIDE, SIDE, low=3, high=90)}, "an amount per pixel, such as depth"),
    "depth, nameless channel": ({"812": numbers(1, SIDE, SIDE, low=3, high=90)}, "Depth and other amounts per pixel"),
    "importance": ({"output_importance": numbers(1, SIDE, SIDE, low=0, high=1)}, "an amount per pixel, as the name"),
    "features": ({"out": numbers(96, 2, 2)}, "gives features: a cell of 'out' .* stands for 32x32 pixels"),
    "normals": ({"out": of_length_one(3, SIDE, SIDE)}, "directions or an embedding per pixel"),
    "enlarged picture": ({"out": numbers(3, 2 * SIDE, 2 * SIDE)}, "gives a picture: 'out' .* is larger"),
    "other proportions": ({"out": numbers(32, 8, 2)}, "gives no mask of the picture: 'out' .* has other proportions"),
    "amounts": ({"out": numbers(64, 32, 32, low=0.0)}, "gives features or amounts: none of the numbers of 'out' "),
    "SSD": ({"scores": choices(84, 3), "boxes": corners(84)}, "one of its columns is the background"),
    "face keypoints": ({"out": numbers(20, 84, low=0.1, high=60.0)}, "never negative, so it is neither probabilities"),
}


def found(path: Path) -> Recognition:
    return recognised(signs_of(path, FileWords()), FileWords())


@pytest.mark.parametrize("kind", KINDS)
def test_what_only_has_the_shape_of_a_served_kind_is_refused_in_words(tmp_path: Path, kind: str) -> None:
    tables, text = KINDS[kind]

    with pytest.raises(SourceError, match=text) as refused:
        found(table_file(tmp_path / "net.onnx", tables, size=(SIDE, SIDE)))

    assert "\n" not in str(refused.value)


def test_a_picture_that_is_made_of_the_picture_is_no_mask(tmp_path: Path) -> None:
    path = tmp_path / "denoiser.onnx"
    shape = ["n", 3, SIDE, SIDE]
    node = helper.make_node("Mul", ["images", "gain"], ["out"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("images", "out")]
    graph = helper.make_graph([node], "g", values[:1], values[1:], [numpy_helper.from_array(np.float32(0.9), "gain")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)

    with pytest.raises(SourceError, match=r"the three channels of 'out' .* follow those of the input"):
        found(path)


def test_rows_of_all_pictures_together_are_no_answer_per_picture(tmp_path: Path) -> None:
    path = table_file(tmp_path / "net.onnx", {"rows": numbers(7)}, size=(SIDE, SIDE))
    model = onnx.load(path)
    copies = numpy_helper.from_array(np.array([5, 1], np.int64), "copies")  # of YOLOv7's --end2end: a row per box
    model.graph.initializer.append(copies)
    model.graph.node[-1].output[0] = "row"
    model.graph.node.append(helper.make_node("Tile", ["row", "copies"], ["rows"]))
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "rows"
    onnx.save(model, path)

    with pytest.raises(SourceError, match="has 10 rows for 2 pictures, whatever the pictures are"):
        found(path)


@pytest.mark.parametrize(("name", "table"), [("fc1", numbers(512)), ("features", numbers(5))])
def test_a_recipe_that_says_the_task_is_believed(tmp_path: Path, name: str, table: NDArray[np.float32]) -> None:
    path = table_file(tmp_path / "net.onnx", {name: table}, size=(SIDE, SIDE))

    told = recognised(signs_of(path, FileWords()), FileWords(), Task.CLASSIFY, len(table))

    assert told.task.task is Task.CLASSIFY
    assert source_facts(source_spec("onnx"), path).task is None  # so that the recipe's own is read


@pytest.mark.parametrize("has_small_boxes", [False, True])
def test_yolox_is_known_without_negative_sizes_and_gets_yolox_s_pixels(tmp_path: Path, has_small_boxes: bool) -> None:
    cells, _ = yolox_grid((SIDE, SIDE))
    sizes = numbers(len(cells), 2, low=-0.01 if has_small_boxes else 0.05, high=2.4)  # few boxes are below a cell
    table = np.concatenate(
        [numbers(len(cells), 2, low=-0.9, high=2.0), sizes, numbers(len(cells), 4, low=0, high=1)], 1
    )

    told = found(table_file(tmp_path / "net.onnx", {"out": table}, size=(SIDE, SIDE)))

    assert told.words.outputs.layout == "yolox"
    assert told.preprocess == YOLOX_PIXELS.model_copy(update={"width": SIDE, "height": SIDE})
    assert told.normalisation == Normalisation(mean=(0.0,) * 3, std=(1 / 255,) * 3)


def test_shares_of_the_picture_are_not_taken_for_offsets_from_cells(tmp_path: Path) -> None:
    cells, strides = yolox_grid((SIDE, SIDE))
    centres = (cells + 0.5) * strides / SIDE
    rows = np.concatenate([centres, numbers(len(cells), 6, low=0.1, high=0.9)], 1).astype(np.float32)

    told = found(table_file(tmp_path / "net.onnx", {"out": rows}, size=(SIDE, SIDE)))

    assert (told.words.outputs.layout, told.words.outputs.units) == ("yolov5", "relative")
