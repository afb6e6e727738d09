"""Step `onnx_from_torch`: writes the deploy module as ONNX with a dynamic batch and marked raw outputs, and proves
it.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from saccade.export.artifact import Detail
from saccade.export.convert.conversion_proof import Arrays, ConversionProof, prove_conversion, raw_outputs, write_proof
from saccade.export.convert.layer_names import name_nodes_after_layers
from saccade.export.convert.own_rounding import OwnRounding
from saccade.export.convert.proof_images import proof_images
from saccade.export.convert.splice import splice_onnx_networks
from saccade.export.convert.splice import translation_table as spliced_networks
from saccade.export.convert.suppression import translation_table as suppression
from saccade.export.convert.wrap import load_deploy_program, read_wrap_facts
from saccade.export.graph.graph_rewrites import keep_zeros_around_max_pool
from saccade.export.graph.large_files import load_graph, save_graph, saved_program
from saccade.export.graph.onnx_graph import MODEL_FILE, op_counts, rename_batch_dimension
from saccade.export.steps import StepContext


def run_onnx_from_torch(context: StepContext) -> Detail:
    """Writes the proof and `model.onnx`, whose outputs are answers, extras and raw outputs."""
    recipe = context.recipe
    wrapped = context.inputs["wrap"].directory
    facts = read_wrap_facts(wrapped)
    names = str(facts["output_names"]).split(",")
    gc.collect()  # traced programs are reference cycles that hold all weights until they are collected
    program = load_deploy_program(wrapped)
    model = converted(program, names, recipe.onnx.opset, context.out / MODEL_FILE)
    context.note("comparing with eager")
    scores = str(facts["scores_output"])
    outputs = raw_outputs(names, recipe, scores)
    is_batchable = bool(facts.get("batchable", True))
    proof = prove_conversion(
        eager_outputs(program, len(names) - len(outputs.names)),
        context.out / MODEL_FILE,
        outputs,
        proof_images(context.data, context.loaded),
        is_batchable,
        OwnRounding(program, len(names) - len(outputs.names)),
    )
    write_proof(proof, context.out)
    _release(program)
    return {
        "opset": model.opset_import[0].version,
        "nodes": len(model.graph.node),
        "scores_output": scores,
        "ops": ", ".join(f"{op} {count}" for op, count in sorted(op_counts(model.graph.node).items())),
        **_proof_facts(proof, recipe.gate.max_batch_error, str(facts.get("not_batchable_reason", ""))),
    }


def converted(program: Any, output_names: list[str], opset: int, file: Path) -> onnx.ModelProto:
    """Writes the program's ONNX file, with large weights beside it, and returns the graph without such weights."""
    with _quiet_exporter():
        onnx_program = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=opset,
            input_names=["images"],
            output_names=output_names,
            custom_translation_table={**suppression(), **spliced_networks()},
            verbose=False,
        )
    assert onnx_program is not None  # it is None only with dynamo=False
    _free_names(onnx_program.model.graph, output_names)
    saved_program(onnx_program, file)
    del onnx_program
    model = load_graph(file)
    splice_onnx_networks(model)
    name_nodes_after_layers(model)
    keep_zeros_around_max_pool(model)
    rename_batch_dimension(model)
    _drop_provenance(model)
    save_graph(model, file)
    onnx.checker.check_model(os.fspath(file))  # checked by its path, so that weights beside it are found
    return model


def eager_outputs(program: Any, first: int) -> Callable[[NDArray[np.uint8]], Arrays]:
    """Returns what the traced program answers, from output number `first` on."""
    module = program.module()

    def run(images: NDArray[np.uint8]) -> Arrays:
        with torch.inference_mode():
            return [tensor.numpy() for tensor in module(torch.from_numpy(images))[first:]]

    return run


def _free_names(graph: Any, names: list[str]) -> None:
    """Renames values inside that are called as an output is: operators, such as `embedding`, name theirs."""
    outputs = {id(value) for value in graph.outputs}
    computed = (value for node in graph for value in node.outputs)
    for value in (*graph.initializers.values(), *computed):
        if value.name in names and id(value) not in outputs:
            value.name = f"{value.name}_inside"


def _release(program: Any) -> None:
    """Empties the program's weights; otherwise the converter's caches hold them until the process ends."""
    for tensor in program.state_dict.values():
        tensor.data = tensor.data.new_empty(0)
    gc.collect()


def _proof_facts(proof: ConversionProof, max_batch_error: float, untraceable: str) -> dict[str, str | float | bool]:
    coupling = proof.coupling
    reason = untraceable if coupling is None else coupling.reason(max_batch_error)
    return {
        "relative_error": proof.worst.relative_l2,
        "worst_output": proof.worst.output,
        "batch_coupling": 0.0 if coupling is None else coupling.relative_l2,
        "undetermined_pictures": proof.left_out,
        "undetermined_rows": proof.loose_rows,
        "batchable": not reason,
        "not_batchable_reason": reason,
    }


def _drop_provenance(model: onnx.ModelProto) -> None:
    """Removes stack traces and paths: they would leak, and make equal networks differ in bytes."""
    for owner in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        del owner.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
    del model.graph.value_info[:]
    del model.functions[:]


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silences the exporter's warnings about torchvision operators that nothing here uses."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
