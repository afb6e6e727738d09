"""Step `onnx_from_torch`: the deploy module as ONNX. Promises: dynamic batch, one file, the network's end marked."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import torch

from export.artifact import Detail
from export.onnx_graph import MODEL_FILE, ensure_unique_names, op_counts, rename_batch_dimension
from export.steps import StepContext
from export.wrap import load_deploy_program, read_wrap_facts


def run_onnx_from_torch(context: StepContext) -> Detail:
    """Writes `model.onnx`, whose outputs are the answers followed by the network's raw outputs."""
    wrapped = context.inputs["wrap"].directory
    names = str(read_wrap_facts(wrapped)["output_names"]).split(",")
    with _quiet_exporter():
        program = torch.onnx.export(
            load_deploy_program(wrapped),
            dynamo=True,
            opset_version=context.recipe.onnx.opset,
            input_names=["images"],
            output_names=names,
            verbose=False,
        )
    assert program is not None  # it is None only with dynamo=False
    model = program.model_proto
    ensure_unique_names(model)
    rename_batch_dimension(model)
    _drop_provenance(model)
    onnx.checker.check_model(model)
    onnx.save(model, context.out / MODEL_FILE)
    return {
        "opset": model.opset_import[0].version,
        "nodes": len(model.graph.node),
        "ops": ", ".join(f"{op} {count}" for op, count in sorted(op_counts(model.graph.node).items())),
    }


def _drop_provenance(model: onnx.ModelProto) -> None:
    """Stack traces and paths of this machine: they would leak, and make equal networks differ in bytes."""
    for owner in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        del owner.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
    del model.graph.value_info[:]
    del model.functions[:]


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter logs a warning per torchvision operator it does not find; nothing here uses those."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
