"""Answers to whole pictures, with which a server's tiles are compared. Promises: the file's own, of any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from saccade.models.contract.specs import PreprocessSpec
from tests.load.tiled_pictures import digit_picture, untiled
from tests.support.graphs import SIDE, image_graph

TILES = PreprocessSpec(width=SIDE, height=SIDE, fit="tile", margin=1)


def test_a_file_answers_a_picture_of_another_size(tmp_path: Path) -> None:
    """Its graph names the sides of its input once more, as those of networks that repeat pixels do."""
    model = onnx.load_from_string(image_graph(scale=2))
    blur = next(node for node in model.graph.node if node.op_type == "Conv")
    model.graph.node.insert(2, helper.make_node("Reshape", [blur.input[0], "sides"], ["same"]))
    blur.input[0] = "same"
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 3, SIDE, SIDE]), "sides"))
    (tmp_path / "fp32.onnx").write_bytes(model.SerializeToString())
    pixels = np.full((20, SIDE + 11, 3), 90, np.uint8)

    answer = untiled(tmp_path / "fp32.onnx", TILES, pixels)

    assert answer.shape == (40, 2 * (SIDE + 11), 3)
    assert (answer[2:-2, 2:-2] == 90).all()
    assert answer[0, 0].tolist() == [40, 40, 40]  # the blur sees black beyond the border


def test_the_same_size_gives_the_same_picture() -> None:
    first, second = (digit_picture(300, 70) for _ in range(2))

    assert first.shape == (70, 300, 3)
    assert (first == second).all()
    assert np.ptp(first) > 0
