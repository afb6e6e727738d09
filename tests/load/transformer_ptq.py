"""What equal LayerNorm scales gain a transformer's quantization: `python -m tests.load.transformer_ptq`.

Quantizes a recipe's network (the digit transformer) as it is and with export/precision/layer_norm_scales.py, lets the
recipe's calibrators compete on the tuning split, and prints top-1 of the winners, and the smallest output error of all.
`int8-cpu` and `int8-trt` are the files that an export would ship. Fewer bits are a simulation, run with 8-bit codes of
which only as many are used: the linear layers of the blocks read and hold so few, the convolutions in front and the
classifier behind stay at 8.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from saccade.export.data.datasets import DataStore
from saccade.export.data.image_split import ImageSplit, batches
from saccade.export.graph.graph_rewrites import constants_of, drop_unused_constants
from saccade.export.graph.onnx_graph import MODEL_FILE, layer_of, network_outputs
from saccade.export.pipeline import Listener, RunSettings, run_pipeline
from saccade.export.precision.layer_norm_scales import (
    ChannelChange,
    ChannelRanges,
    adjustable_norms,
    apply_change,
    observed_channels,
    with_equal_scales,
)
from saccade.export.precision.quantization.calibration import calibrators_of, observe, ranges_of
from saccade.export.precision.quantization.placement_trt import placement_for_tensorrt, weight_axis
from saccade.export.precision.quantization.qdq_trt import NumberFormat
from saccade.export.precision.quantization.schemes import INT8_CPU, INT8_TENSORRT, QuantizationPlan, QuantizationScheme
from saccade.export.precision.quantization.thresholds import Grid, Range
from saccade.export.qualification.accuracy import evaluate
from saccade.export.qualification.evidence import point_value
from saccade.export.qualification.parity import relative_l2
from saccade.export.qualification.serving import open_backend
from saccade.export.recipe import CalibrationSpec, LoadedRecipe, load_recipe

_COMPARED = 256  # test images whose raw outputs are compared
RECIPE = Path("models/recipes/extra/digits-vit.yaml")
Ranges = Mapping[str, Range]


def coarseness(ranges: ChannelRanges) -> float:
    """How many times coarser the codes of one range for all channels are than those of a range for each, on average."""
    whole = max(float(ranges.high.max()), 0.0) - min(float(ranges.low.min()), 0.0)  # a range contains zero
    return whole / max(float((ranges.high - ranges.low).mean()), 1e-30)


@dataclass(frozen=True, slots=True)
class Bits:
    """Of the blocks' linear layers."""

    weights: int
    activations: int
    only_behind_norms: bool = False  # the other layers stay at 8


# Few codes want more clipping than a recipe's calibrators offer; entropy counts 8-bit steps.
_FOR_FEW_BITS = CalibrationSpec(entropy=False, percentiles=(99.0, 99.9))


@dataclass(frozen=True, slots=True)
class Score:
    calibrator: str
    tuning: float
    test: float
    error: float  # of raw network outputs against fp32, relative L2: the smallest of all calibrators


def main() -> None:
    """Prints two Markdown tables: the network as trained, and the same function with outlying channels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    arguments = parser.parse_args()
    loaded, data = load_recipe(arguments.recipe), DataStore()
    with tempfile.TemporaryDirectory() as scratch:
        model = optimised_graph(loaded, data, Path(scratch))
        test = data.split(loaded, "test")
        float_score = _top1(loaded, model, test, Path(scratch))
        print(f"{loaded.recipe.model}: fp32 top-1 {float_score:.4f} on {len(test.samples)} test images\n")
        _print_table("as trained", loaded, data, model, schemes(), Path(scratch))
        eight = {name: scheme for name, scheme in schemes().items() if name.startswith("int8")}
        _print_table("with outlying channels", loaded, data, with_outliers(model), eight, Path(scratch))


def _print_table(
    title: str,
    loaded: LoadedRecipe,
    data: DataStore,
    model: onnx.ModelProto,
    chosen: Mapping[str, QuantizationScheme],
    scratch: Path,
) -> None:
    calibration, tuning, test = (data.split(loaded, name) for name in ("calibration", "tuning", "test"))
    names = [node.output[0] for node in adjustable_norms(model)]
    found = [coarseness(ranges) for ranges in observed_channels(model, names, calibration.images).values()]
    print(f"{title}: behind its {len(names)} LayerNorms the codes of one range for all channels are")
    print(f"{np.mean(found):.2f} times coarser than those of a range for each ({max(found):.2f} at the worst)\n")
    print("| scheme | plain: calibrator, tuning, test | equal scales: the same | gain on test, points | output error |")
    print("|---|---|---|---|---|")
    for name, scheme in chosen.items():
        changed, _ = with_equal_scales(model, calibration.images, is_symmetric=scheme.grid.is_symmetric)
        scores = [best(loaded, scheme, each, calibration.images, tuning, test, scratch) for each in (model, changed)]
        cells = [f"{score.calibrator}, {score.tuning:.4f}, {score.test:.4f}" for score in scores]
        cells.append(f"{100 * (scores[1].test - scores[0].test):+.2f}")
        cells.append(f"{scores[0].error:.4f} to {scores[1].error:.4f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print()


def with_outliers(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same function with every 16th channel behind each LayerNorm 32 times as large.

    RepQ-ViT reports such channels of large transformers; a small one trained for minutes has none of its own.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = constants_of(model)
    for norm in adjustable_norms(copy):
        channels = len(constants[norm.input[1]])
        ratio = np.where(np.arange(channels) % 16 == 0, 1 / 32, 1.0)
        apply_change(copy, norm, ChannelChange(ratio, np.zeros(channels)))
    return copy


def optimised_graph(loaded: LoadedRecipe, data: DataStore, scratch: Path) -> onnx.ModelProto:
    """What the precision step starts from. Raises SystemExit with the reason when a step fails."""
    quiet = Listener(started=lambda name: None, noted=lambda text: None, finished=lambda result: None)
    settings = RunSettings(scratch / "work", scratch / "repository", until="onnx_optimization")
    result = run_pipeline(loaded, settings, data, quiet)[-1]
    if result.artifact is None:
        raise SystemExit(f"{result.step} failed: {result.detail['error']}")
    return onnx.load(result.artifact.file(MODEL_FILE))


def schemes() -> dict[str, QuantizationScheme]:
    return {
        "int8-cpu": INT8_CPU,
        "int8-trt": INT8_TENSORRT,
        "W6A6, simulated": simulation(Bits(6, 6)),
        "W4A4, simulated": simulation(Bits(4, 4)),
        "W3A3, simulated": simulation(Bits(3, 3)),
        "W8A4 behind LayerNorms only, simulated": simulation(Bits(8, 4, only_behind_norms=True)),
        "W8A3 behind LayerNorms only, simulated": simulation(Bits(8, 3, only_behind_norms=True)),
    }


def simulation(bits: Bits) -> QuantizationScheme:
    """TensorRT's choice of layers, asymmetric activations."""

    def plan(model: onnx.ModelProto, keep_float: tuple[str, ...], taken_out: Mapping[str, str]) -> QuantizationPlan:
        placement = placement_for_tensorrt(model, keep_float, taken_out)
        readers = [node for node in model.graph.node if node.name in placement.nodes]
        wide = frozenset(node.input[0] for node in readers if _bits_of(model, node, bits)[1] == 8)
        return QuantizationPlan(
            placement.nodes,
            tuple(dict.fromkeys(node.input[0] for node in readers)),
            wide,  # what few codes want would clip these too much
            placement.reasons,
            lambda ranges: simulated(model, placement.nodes, bits, ranges),
        )

    numbers = NumberFormat(f"int{bits.weights}", np.dtype(np.int8), float(2 ** (bits.weights - 1) - 1), is_integer=True)
    return QuantizationScheme("int8", _grid(bits.activations), numbers, plan)


def best(
    loaded: LoadedRecipe,
    scheme: QuantizationScheme,
    model: onnx.ModelProto,
    images: NDArray[np.uint8],
    tuning: ImageSplit,
    test: ImageSplit,
    scratch: Path,
) -> Score:
    """The calibrator with the highest top-1 on the tuning split, the first of equals, and what it reaches on test."""
    spec = loaded.recipe.calibration
    plan = scheme.plan(model, spec.keep_float, {})
    histograms = observe(model, plan.tensors, images)
    compared = test.images[:_COMPARED]
    expected = raw_outputs(model, model, compared)
    tried: list[tuple[float, str, onnx.ModelProto]] = []
    errors: list[float] = []
    for calibrator in calibrators_of(_FOR_FEW_BITS if scheme.grid.largest < 127 else spec, scheme.grid):
        made = plan.apply(ranges_of(histograms, calibrator, plan.unclipped))
        tried.append((_top1(loaded, made, tuning, scratch), calibrator.name, made))
        errors.append(relative_l2(raw_outputs(made, model, compared), expected))
    tuned, name, made = max(tried, key=lambda each: each[0])
    return Score(name, tuned, _top1(loaded, made, test, scratch), min(errors))


def raw_outputs(model: onnx.ModelProto, marked: onnx.ModelProto, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What `model` computes for the network outputs that `marked` names; finer than which class is first."""
    names = network_outputs(marked)
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(list(names), {"images": batch})[0] for batch in batches(images, 16)])


def simulated(model: onnx.ModelProto, chosen: Collection[str], bits: Bits, ranges: Ranges) -> onnx.ModelProto:
    """A copy whose weighted layers read and hold only so many codes: asymmetric activations, symmetric weights."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = constants_of(copy)
    nodes: list[onnx.NodeProto] = []
    made: dict[tuple[str, int], str] = {}
    for node in copy.graph.node:
        if node.name in chosen:
            weight_bits, activation_bits = _bits_of(model, node, bits)
            weight = rounded_weight(constants[node.input[1]], weight_axis(node), weight_bits)
            copy.graph.initializer.append(numpy_helper.from_array(weight, f"{node.name}_rounded"))
            node.input[1] = f"{node.name}_rounded"
            key = (node.input[0], activation_bits)
            if key not in made:
                added, constant = _rounding(node.input[0], ranges[node.input[0]], activation_bits)
                nodes += added
                copy.graph.initializer.extend(constant)
                made[key] = added[-1].output[0]
            node.input[0] = made[key]
        nodes.append(node)
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    drop_unused_constants(copy)
    return copy


def rounded_weight(weight: NDArray[np.float32], axis: int | None, bits: int) -> NDArray[np.float32]:
    """To symmetric codes with one scale per output channel."""
    largest_code = 2 ** (bits - 1) - 1
    others = tuple(index for index in range(weight.ndim) if index != axis)
    scale = np.maximum(np.abs(weight).max(axis=others, keepdims=True), 1e-12) / largest_code
    rounded: NDArray[np.float32] = (np.round(weight / scale) * scale).astype(np.float32)
    return rounded


def _bits_of(model: onnx.ModelProto, node: onnx.NodeProto, bits: Bits) -> tuple[int, int]:
    """Weight and activation bits of a layer."""
    is_in_block = ".blocks." in layer_of(node.name)
    behind = {norm.output[0] for norm in adjustable_norms(model)} if bits.only_behind_norms else {node.input[0]}
    return (bits.weights, bits.activations) if is_in_block and node.input[0] in behind else (8, 8)


def _rounding(tensor: str, chosen: Range, bits: int) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Quantize, clip to the codes there are, dequantize."""
    largest, prefix = 2**bits - 1, f"{tensor}_{bits}bit"
    scale = (chosen.high - chosen.low) / largest
    constants = {
        f"{prefix}_scale": np.array(scale, np.float32),
        f"{prefix}_zero": np.array(round(-chosen.low / scale), np.uint8),
        f"{prefix}_least": np.array(0, np.uint8),
        f"{prefix}_most": np.array(largest, np.uint8),
    }
    given = [f"{prefix}_scale", f"{prefix}_zero"]
    nodes = [
        helper.make_node("QuantizeLinear", [tensor, *given], [f"{prefix}_codes"], name=f"{prefix}_Quantize"),
        helper.make_node(
            "Clip",
            [f"{prefix}_codes", f"{prefix}_least", f"{prefix}_most"],
            [f"{prefix}_clipped"],
            name=f"{prefix}_Clip",
        ),
        helper.make_node("DequantizeLinear", [f"{prefix}_clipped", *given], [f"{prefix}_rounded"], name=prefix),
    ]
    return nodes, [numpy_helper.from_array(value, name) for name, value in constants.items()]


def _grid(bits: int) -> Grid:
    largest = 2**bits - 1

    def rounded(values: NDArray[np.float64], chosen: Range) -> NDArray[np.float64]:
        scale = (chosen.high - chosen.low) / largest
        zero = np.round(-chosen.low / scale)
        return (np.clip(np.round(values / scale) + zero, 0.0, largest) - zero) * scale

    return Grid(f"uint{bits}", False, True, np.dtype(np.uint8), float(largest), rounded)


def _top1(loaded: LoadedRecipe, model: onnx.ModelProto, split: ImageSplit, scratch: Path) -> float:
    # Spinning gains time only where nothing else runs, and answers are all that counts here.
    calm = loaded.recipe.qualify.model_copy(update={"allow_spinning": False})
    recipe = loaded.recipe.model_copy(update={"qualify": calm})
    file = scratch / "candidate.onnx"
    onnx.save(model, file)
    backend = open_backend(file, recipe)
    evidence = evaluate(backend.infer, split, recipe.task, len(recipe.labels), recipe.qualify.evaluate_batch_size)
    backend.close()
    return point_value(evidence)


if __name__ == "__main__":
    main()
