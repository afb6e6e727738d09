"""`--prepare DIR`: the ONNX files of every variant. Promises: made by the exporter's own functions, without a GPU.

Left out of the exporter's way are its proofs and measurements (`saccade-export run` makes those); calibration is on two
generated images by extremes, and 2:4 masks are by magnitude. All of that changes answers, none of it changes speed.

    DIR/<network>/<variant>.onnx, DIR/<network>/network.json
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import orjson

from tests.load.gpu_networks import SEED, BenchNetwork, generated_images, ready_network

VARIANTS = ("fp32", "fp16", "int8-trt", "fp8-trt", "fp16-sparse24", "int8-trt-sparse24")
FACTS_FILE = "network.json"
_CALIBRATION_IMAGES = 2
_OPSET = 20

Say = Callable[[str], None]


def prepared_facts(directory: Path, network: BenchNetwork) -> dict[str, Any] | None:
    """What `prepare` said of a network; None where it did not run."""
    file = directory / network.name / FACTS_FILE
    if not file.exists():
        return None
    facts: dict[str, Any] = orjson.loads(file.read_bytes())
    return facts


def prepare(network: BenchNetwork, variants: Sequence[str], directory: Path, say: Say) -> dict[str, Any]:
    """Writes the files of one network. A variant that cannot be made is named with its reason."""
    from saccade.export.convert.trace import traced
    from saccade.export.convert.wrap import output_names

    out = directory / network.name
    out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    recipe = bench_recipe(network)
    found, source = bench_deployable(network, recipe)
    images = generated_images(_CALIBRATION_IMAGES, network.preprocess.height, network.preprocess.width)
    trace = traced(found.module, _one_image(network))
    names = list(output_names(recipe, trace.outputs))
    made: dict[str, Any] = {}
    for form in ("dense", "sparse24"):
        wanted = [name for name in variants if name.endswith("-sparse24") == (form == "sparse24")]
        if not wanted:
            continue
        claimed = _make_sparse(trace.program, names) if form == "sparse24" else 0
        graph = out / f".{form}.onnx"
        _convert(trace.program, names, recipe, graph)
        say(f"{network.name} {form}: graph after {time.perf_counter() - start:.0f} s")
        for variant in wanted:
            made[variant] = _variant(graph, out / f"{variant}.onnx", variant, recipe, images) | {"claimed": claimed}
            say(f"{network.name} {variant}: {made[variant]}")
        graph.unlink()
    facts = {
        "network": network.name,
        "source": source,
        "weights": f"random, seed {SEED}",
        "calibration": f"{_CALIBRATION_IMAGES} generated images, extremes",
        "batchable": not trace.not_batchable_reason,
        "not_batchable_reason": trace.not_batchable_reason,
        "parameters": found.parameters,
        "prepare_seconds": round(time.perf_counter() - start, 1),
        "variants": made,
    }
    (out / FACTS_FILE).write_bytes(orjson.dumps(facts, option=orjson.OPT_INDENT_2))
    return facts


def bench_recipe(network: BenchNetwork) -> Any:
    """A recipe for the exporter's functions; its source is never loaded, the module comes seeded from here."""
    from saccade.export.recipe import Recipe

    return Recipe.model_validate(
        {
            "model": network.name,
            "source": {"kind": "module", "factory": "tests.load.gpu_networks:ready_network"},
            "task": network.task.model_dump(),
            "labels": network.labels,
            "preprocess": network.preprocess.model_dump(),
            "data": {"dataset": "digit_scenes", "images": {"calibration": 1, "tuning": 1, "test": 1}},
            "onnx": {"opset": _OPSET},
        }
    )


def bench_deployable(network: BenchNetwork, recipe: Any) -> tuple[Any, str]:
    """The deploy module (uint8 in, answers out) before tracing, and where its network comes from."""
    import torch

    from saccade.export.convert.wrap import deployable_network
    from saccade.export.network import FORMS_BY_TASK, Network
    from saccade.export.sources.module_source import MethodModule

    module, source = ready_network(network)
    if network.method != "forward":
        module = MethodModule(module, network.method)
    with torch.no_grad():
        return deployable_network(Network(module, FORMS_BY_TASK[network.task.task][0]), recipe), source


def _one_image(network: BenchNetwork) -> Any:
    import torch

    return torch.zeros(1, network.preprocess.height, network.preprocess.width, 3, dtype=torch.uint8)


def _convert(program: Any, names: list[str], recipe: Any, file: Path) -> None:
    """The optimised graph with its network's end marked, as `onnx_optimization` leaves it."""
    from saccade.export.convert.onnx_from_torch import converted
    from saccade.export.convert.onnx_optimization import slim
    from saccade.export.graph.large_files import load_graph, save_graph
    from saccade.export.graph.onnx_graph import ensure_contract, mark_network_outputs

    converted(program, names, recipe.onnx.opset, file)
    model = slim(load_graph(file))
    mark_network_outputs(model, [name for name in names if name.startswith("network_")])
    ensure_contract(model, recipe.task, recipe.preprocess)
    save_graph(model, file)


def _make_sparse(program: Any, names: list[str]) -> int:
    """How many layers became 2:4. Side effect: the program's weights."""
    from saccade.export.compression.sparsity.eligibility import weighted_layers
    from saccade.export.compression.sparsity.masks import magnitude_mask
    from saccade.export.compression.spec import SparsitySpec
    from saccade.export.compression.traced_network import with_weights

    module = program.module()
    output = next(node for node in module.graph.nodes if node.op == "output")
    ends = [str(node) for node, name in zip(output.args[0], names, strict=True) if name.startswith("network_")]
    layers = [each for each in weighted_layers(module, ends, SparsitySpec()) if each.is_eligible]
    state = module.state_dict()
    with_weights(program, {each.weight: state[each.weight] * magnitude_mask(state[each.weight]) for each in layers})
    return len(layers)


def _variant(graph: Path, file: Path, variant: str, recipe: Any, images: Any) -> dict[str, Any]:
    """Writes one variant. A refusal of the exporter is a fact, not the end of the others."""
    from saccade.export.errors import ExportError
    from saccade.export.graph.large_files import save_graph
    from saccade.export.precision.effective_precision import layer_precisions, layers_of_network, share_in
    from saccade.export.variants import TRAITS

    start = time.perf_counter()
    traits = TRAITS[variant]  # type: ignore[index]  # names come from the table above
    try:
        model = _MAKERS[traits.precision](onnx.load(graph), variant, images)
    except ExportError as error:
        return {"not_made": str(error)}
    save_graph(model, file)
    onnx.checker.check_model(str(file))
    content = file.read_bytes()
    layers = layers_of_network(model, layer_precisions(model))
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "seconds": round(time.perf_counter() - start, 1),
        "share_of_flops": round(share_in(layers, traits.precision), 4),
    }


def _fp32(model: Any, variant: str, images: Any) -> Any:
    from saccade.export.graph.graph_rewrites import read_interleaved_pixels

    read_interleaved_pixels(model)
    return model


def _fp16(model: Any, variant: str, images: Any) -> Any:
    from saccade.export.precision.casting import narrowed
    from saccade.export.precision.float_formats import float_format
    from saccade.export.precision.mixed_precision import prepared
    from saccade.export.precision.quantization.calibration import observe
    from saccade.export.precision.regions import ranged_tensors, regions_by_operator, regions_within_range

    target = float_format("fp16")
    allowed = regions_by_operator(prepared(model, target), target)
    histograms = observe(model, ranged_tensors(model, allowed), images, 1)
    extremes = {name: max(abs(each.low), abs(each.high)) for name, each in histograms.items()}
    return narrowed(model, regions_within_range(model, allowed, extremes, target).narrow, target)


def _quantized(model: Any, variant: str, images: Any) -> Any:
    from saccade.export.graph.graph_rewrites import use_depthwise_for_batch_norm
    from saccade.export.precision.quantization.calibrate import activations
    from saccade.export.precision.quantization.calibration import calibrators_of, observe, ranges_of
    from saccade.export.precision.quantization.candidates import observed
    from saccade.export.precision.quantization.schemes import SCHEMES
    from saccade.export.recipe import CalibrationSpec

    use_depthwise_for_batch_norm(model)
    scheme = SCHEMES[variant]  # type: ignore[index]  # names come from the table above
    plan = scheme.plan(model, (), {})
    calibrator = calibrators_of(CalibrationSpec(entropy=False, percentiles=(), mse=False), scheme.grid)[0]
    histograms = observe(model, [name for name in activations(model) if name in set(plan.tensors)], images, 1)
    return plan.apply(ranges_of(observed(histograms, plan.tensors), calibrator, plan.unclipped))


_MAKERS: dict[str, Callable[[Any, str, Any], Any]] = {
    "fp32": _fp32,
    "fp16": _fp16,
    "int8": _quantized,
    "fp8": _quantized,
}
