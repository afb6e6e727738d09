"""A file gets an extra output only where it was proved with it; otherwise it stays as it was and says why."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from saccade.export.extras import make
from saccade.export.extras.make import add_extras
from saccade.export.extras.marks import ExtraBranch, NoExtra, extras_in
from saccade.export.graph.onnx_graph import MODEL_FILE
from saccade.models.contract.extras import ExtraKind
from tests.support.graphs import classifier_graph
from tests.support.versions import EXPLANATION, SIDE, manifest_for


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A step that has just written a variant's file."""
    (tmp_path / MODEL_FILE).write_bytes(classifier_graph())
    images = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)
    monkeypatch.setattr(make, "proof_images", lambda data, loaded: images)
    manifest = manifest_for("digits", 1)
    qualify = SimpleNamespace(threads=1, allow_spinning=False)
    recipe = SimpleNamespace(preprocess=manifest.preprocess, task=manifest.task, qualify=qualify)
    return SimpleNamespace(variant="fp32", out=tmp_path, recipe=recipe, data=None, loaded=None)


def branch(*nodes: onnx.NodeProto, **constants: np.ndarray) -> ExtraBranch:
    return ExtraBranch(EXPLANATION, nodes, nodes[-1].output[0], constants)


def reds(model: onnx.ModelProto, context: Any) -> ExtraBranch:
    """Every eighth pixel's red."""
    constants = {
        "explain_first": np.array([0, 0, 0], np.int64),
        "explain_last": np.array([SIDE, SIDE, 1], np.int64),
        "explain_axes": np.array([1, 2, 3], np.int64),
        "explain_steps": np.array([8, 8, 1], np.int64),
        "explain_grid": np.array([0, 4, 4], np.int64),
    }
    return branch(
        helper.make_node("Slice", ["float", *list(constants)[:4]], ["explain_red"]),
        helper.make_node("Reshape", ["explain_red", "explain_grid"], ["explain_map"]),
        **constants,
    )


def infinite(model: onnx.ModelProto, context: Any) -> ExtraBranch:
    plain = reds(model, context)
    divided = helper.make_node("Div", ["explain_map", "explain_nought"], ["explain_out"])
    return branch(*plain.nodes, divided, **plain.constants, explain_nought=np.array(0, np.float32))


def meddling(model: onnx.ModelProto, context: Any) -> ExtraBranch:
    """Changes the answer on the way, as a broken fusion would."""
    (unit,) = (tensor for tensor in model.graph.initializer if tensor.name == "unit")
    unit.CopyFrom(onnx.numpy_helper.from_array(np.array(0.5, np.float32), "unit"))
    return reds(model, context)


def wrong_size(model: onnx.ModelProto, context: Any) -> ExtraBranch:
    plain = reds(model, context)
    return branch(*plain.nodes, **{**plain.constants, "explain_grid": np.array([0, 2, 8], np.int64)})


def absent(model: onnx.ModelProto, context: Any) -> ExtraBranch:
    raise NoExtra("it has no map")


def surprised(model: onnx.ModelProto, context: Any) -> ExtraBranch:
    raise IndexError("a graph that nobody thought of")


def test_a_proved_output_is_in_the_file_and_named(context: Any) -> None:
    assert add_extras(context, {ExtraKind.EXPLAIN: reds}) == {"explain": "class activation"}
    assert extras_in(onnx.load(context.out / MODEL_FILE)) == (EXPLANATION,)


@pytest.mark.parametrize(
    ("maker", "told"),
    [
        (infinite, "not finite"),
        (meddling, "answers changed"),
        (wrong_size, "(2, 8)"),
        (absent, "it has no map"),
        (surprised, "unexpectedly (IndexError)"),
    ],
)
def test_an_output_that_fails_its_proof_leaves_the_file_as_it_was(context: Any, maker: Any, told: str) -> None:
    facts = add_extras(context, {ExtraKind.EXPLAIN: maker})
    assert told in str(facts["no_explain"])
    assert (context.out / MODEL_FILE).read_bytes() == classifier_graph()


def test_variants_for_gpus_keep_their_files(context: Any) -> None:
    context.variant = "fp16"
    assert "GPUs" in str(add_extras(context, {ExtraKind.EXPLAIN: reds})["no_explain"])
