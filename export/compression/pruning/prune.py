"""Makes the form `pruned`: chooses channels, narrows and proves the network, traces it again and recovers accuracy."""

from __future__ import annotations

import time
from dataclasses import replace

import orjson
import torch
from torch import Tensor, fx

from saccade.export.artifact import Detail
from saccade.export.compression.pruning.budget import narrow_network
from saccade.export.compression.pruning.costs import counted_multiply_adds
from saccade.export.compression.pruning.narrowing import widths_of
from saccade.export.compression.spec import PRUNING_FILE
from saccade.export.compression.threads import one_thread
from saccade.export.compression.traced_network import (
    Document,
    TracedNetwork,
    calibration_images,
    recovered,
    save_form,
    traced_network,
    tuning_metric,
    used_weights,
    with_weights,
)
from saccade.export.convert.trace import traced
from saccade.export.convert.wrap import FACTS_FILE, read_wrap_facts
from saccade.export.errors import GraphError
from saccade.export.steps import StepContext

_IMAGES = 32  # calibration images that channels are chosen by


def run_prune(context: StepContext) -> Detail:
    """Writes the narrow deploy module and `pruning.json`. Raises GraphError when the budget cannot be met."""
    spec, wrapped = context.recipe.pruning, context.inputs["wrap"]
    start = time.perf_counter()
    dense = traced_network(wrapped.directory, context)
    images = calibration_images(context, _IMAGES)
    context.note("choosing channels")
    with one_thread():
        module, error = narrow_network(dense, images, spec)
    context.note("tracing the narrow network")
    narrow = _traced_again(dense, module, images[:1], str(read_wrap_facts(wrapped.directory)["not_batchable_reason"]))
    before, after = counted_multiply_adds(dense.module, images), counted_multiply_adds(narrow.module, images)
    document: Document = {
        "spec": spec.model_dump(exclude={"recovery"}),
        "dense_multiply_adds": before,
        "multiply_adds": after,
        "dense_parameters": _parameters(dense.module),
        "parameters": _parameters(narrow.module),
        "silenced_error": error,
        "layers": _layer_table(dense.module, narrow.module),
        "pruning_s": time.perf_counter() - start,
        "dense_tuning_metric": tuning_metric(dense, context),
    }
    found, recovery = recovered(context, narrow, dense.module, {}, spec.recovery)
    document |= {
        "one_shot_tuning_metric": found.history[0].tuning_metric,
        "tuning_metric": found.tuning_metric,
        "recovery": recovery,
    }
    with_weights(narrow.program, used_weights(narrow.module))
    save_form(narrow.program, wrapped, context.out)
    facts = read_wrap_facts(wrapped.directory) | {"parameters": document["parameters"]}
    (context.out / FACTS_FILE).write_bytes(orjson.dumps(facts, option=orjson.OPT_INDENT_2))
    (context.out / PRUNING_FILE).write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    return {
        "flop_share": after / before,
        "parameter_share": document["parameters"] / document["dense_parameters"],
        "narrower_layers": sum(row["pruned"] != row["dense"] for row in document["layers"]),
        "weighted_layers": len(document["layers"]),
        "tuning_metric": document["tuning_metric"],
        "one_shot_tuning_metric": document["one_shot_tuning_metric"],
        "dense_tuning_metric": document["dense_tuning_metric"],
        "not_batchable_reason": str(wrapped.detail.get("not_batchable_reason", "")),
    }


def _traced_again(
    dense: TracedNetwork, module: fx.GraphModule, image: Tensor, not_batchable_reason: str
) -> TracedNetwork:
    """Traces the narrow network. Raises GraphError when it no longer takes batches as the dense one does."""
    with torch.no_grad():
        trace = traced(module, torch.zeros_like(image), not_batchable_reason)
    if trace.not_batchable_reason != not_batchable_reason:
        raise GraphError(f"the pruned network does not take batches any more: {trace.not_batchable_reason}")
    return replace(dense, program=trace.program, module=trace.program.module())


def _parameters(module: fx.GraphModule) -> int:
    """Counts learned values only; running statistics and constants are left out."""
    learned = dict(module.named_parameters())
    return sum(tensor.numel() for name, tensor in used_weights(module).items() if name in learned)


def _layer_table(dense: fx.GraphModule, narrow: fx.GraphModule) -> list[Document]:
    """Output and input channels of each layer before and after."""
    before, after = widths_of(dense), widths_of(narrow)
    return [
        {"layer": layer, "dense": list(shape[:2]), "pruned": list(after[layer][:2])} for layer, shape in before.items()
    ]
