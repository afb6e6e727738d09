"""One file of weights in several precisions, and weights of 1 bit: a simulation of accuracy, never of speed.

    python -m tests.load.weight_bits digits-classifier digits-segmenter

Weights are int8 codes per output channel, of which the upper bits are kept (one file, several precisions: AdaBits, Jin
et al., arXiv 1912.09666), or a sign times the channel's mean magnitude (XNOR-Net, Rastegari et al., arXiv 1603.05279;
its first and last layers stay float here, too). Everything else is computed in float32; nothing is trained.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from saccade.export.data.datasets import DataStore
from saccade.export.graph.graph_rewrites import constants_of
from saccade.export.graph.large_files import load_graph, save_graph
from saccade.export.graph.onnx_graph import MODEL_FILE, WEIGHTED_OPS, weighted_part
from saccade.export.pipeline import Listener, RunSettings, run_pipeline
from saccade.export.precision.quantization.accuracy_control import head_layers
from saccade.export.precision.quantization.placement_trt import weight_axis
from saccade.export.precision.quantization.qdq_trt import INT8_FORMAT, weight_scale
from saccade.export.qualification.accuracy import evaluate
from saccade.export.qualification.evidence import point_value
from saccade.export.qualification.serving import open_backend
from saccade.export.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / "models" / "recipes"
_STEP = "onnx_optimization"
_BITS = (8, 6, 5, 4, 3, 2)

FloatArray = NDArray[np.float32]
Rounding = Callable[[FloatArray, int | None], FloatArray]  # weights and the axis of their output channels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="names of recipes in models/recipes")
    parser.add_argument("--work", type=Path, default=Path(".saccade/export"))
    options = parser.parse_args()
    print(f"| test metric | float | {' | '.join(f'{bits} bits' for bits in _BITS)} | 1 bit, ends float |")
    print("|---" * (len(_BITS) + 3) + "|")
    for name in options.models:
        print(f"| {name} | {' | '.join(f'{value:.4f}' for value in measured(name, options.work))} |", flush=True)


def measured(name: str, work: Path) -> list[float]:
    """The test metric of the float network, of its upper bits and of its signs."""
    loaded, data = load_recipe(RECIPES / f"{name}.yaml").with_variants(("fp32",)), DataStore()
    quiet = Listener(started=lambda step: None, noted=lambda text: None, finished=lambda result: None)
    made = run_pipeline(loaded, RunSettings(work, work / "none", until=_STEP), data, quiet)[-1].artifact
    if made is None:
        raise SystemExit(f"{name}: step {_STEP} failed")
    recipe, split = loaded.recipe, data.split(loaded, "test")
    model = load_graph(made.file(MODEL_FILE))
    names = [node.name for node in weighted_part(model) if node.op_type in WEIGHTED_OPS]
    inner = set(names[1:]) - set(head_layers(model))
    variants = [model, *(rounded(model, set(names), upper_bits(bits)) for bits in _BITS), rounded(model, inner, signs)]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for variant in variants:
            file = Path(folder) / MODEL_FILE
            save_graph(variant, file)
            with closing(open_backend(file, recipe)) as backend:
                batch = recipe.qualify.evaluate_batch_size
                found.append(point_value(evaluate(backend.infer, split, recipe.task, len(recipe.labels), batch)))
    return found


def rounded(model: onnx.ModelProto, names: set[str], rounding: Rounding) -> onnx.ModelProto:
    """A copy whose named layers have rounded weights."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = constants_of(copy)
    stored = {tensor.name: tensor for tensor in copy.graph.initializer}
    for node in copy.graph.node:
        if node.name in names and node.input[1] in stored:
            values = rounding(constants[node.input[1]], weight_axis(node))
            stored[node.input[1]].CopyFrom(numpy_helper.from_array(values, node.input[1]))
    return copy


def upper_bits(bits: int) -> Rounding:
    """Keeps so many bits of each int8 code, rounded to the nearest."""
    step = 2.0 ** (8 - bits)

    def rounding(values: FloatArray, axis: int | None) -> FloatArray:
        scale = weight_scale(values, axis, INT8_FORMAT)
        codes = np.round(values / scale)
        largest = 2.0 ** (bits - 1) - 1.0
        kept: FloatArray = np.clip(np.round(codes / step), -largest, largest) * step * scale
        return kept.astype(np.float32)

    return rounding


def signs(values: FloatArray, axis: int | None) -> FloatArray:
    others = tuple(index for index in range(values.ndim) if index != axis)
    return np.sign(values) * np.abs(values).mean(axis=others, keepdims=True)


if __name__ == "__main__":
    main()
