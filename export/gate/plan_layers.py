"""Reads what TensorRT's inspector says of a plan; a layer that the plan does not name counts as another precision.

The inspector prints `{"Layers": [{"Name", "LayerType", "Inputs": [{"Format/Datatype"}], "Weights": {"Type"},
"TacticName", "Metadata"}]}` for plans that were built with detailed profiling. `Metadata` holds `[ONNX Layer: node]`
for every node that was fused into the layer, separated by control characters. TensorRT 11 gives `Format` and `Datatype`
of a tensor separately, and lists the plan's own tensors under `I/O Tensors` instead of `Bindings`; those are not read
here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from saccade.export.errors import DeviceError
from saccade.export.variants import Precision

if TYPE_CHECKING:
    # imported only for type checking, because it loads more than reading layers needs
    from saccade.export.qualification.qualify_report import LayerFigure

_NODES = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
# The first match counts: `BF16` contains `F16`, and `BFloat16` contains `Float`.
_TYPES: tuple[tuple[re.Pattern[str], Precision], ...] = (
    (re.compile(r"bf16|bfloat16", re.IGNORECASE), "bf16"),
    (re.compile(r"fp8|float8|e4m3", re.IGNORECASE), "fp8"),
    (re.compile(r"(?<!u)int8|(?<!u)i8", re.IGNORECASE), "int8"),
    (re.compile(r"fp16|half|float16", re.IGNORECASE), "fp16"),
    (re.compile(r"fp32|float", re.IGNORECASE), "fp32"),
)
_TENSOR_TYPES = ("Format/Datatype", "Datatype", "Format")  # keys up to TensorRT 10, since 11, and when that is missing
_COPIES = frozenset({"constant", "identity", "noop", "reformat", "shuffle"})  # layer types that multiply nothing


@dataclass(frozen=True, slots=True)
class PlanLayer:
    """One layer of a plan, with the nodes of the file that became it."""

    name: str
    kind: str
    nodes: tuple[str, ...]
    precision: Precision | None  # precision of its arithmetic; None when the inspector does not say
    tactic: str
    output: Precision | None = None  # type of its output; None when the inspector does not say, or it is no float

    @property
    def is_sparse(self) -> bool:
        """Tells whether the kernel uses 2:4 weights; its name says so, as in `sm80_xmma_fprop_sparse_conv_…`."""
        return "sparse" in self.tactic.lower()


def plan_layers(information: str) -> tuple[PlanLayer, ...]:
    """Parses the inspector's text. Raises DeviceError for other text, or for a plan that was built without details."""
    try:
        layers = orjson.loads(information)["Layers"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise DeviceError(f"the inspector's answer is no list of layers ({error})") from error
    if any(not isinstance(layer, dict) for layer in layers):
        raise DeviceError("the plan names its layers only: build it with profiling_verbosity = DETAILED")
    return tuple(_layer(layer) for layer in layers)


def share_in_plan(
    plan: Sequence[PlanLayer], file: Sequence[LayerFigure], asked: Precision
) -> tuple[float, tuple[str, ...]]:
    """Returns the share of the file's FLOPs that the plan does in `asked`, and the layers it does not name."""
    total = sum(layer.flops for layer in file)
    found: dict[str, set[Precision | None]] = {}
    for each in plan:
        if each.kind.lower() not in _COPIES:
            for node in each.nodes:
                found.setdefault(node, set()).add(each.precision)
    done = sum(layer.flops for layer in file if found.get(layer.node) == {asked})
    lost = tuple(layer.layer or layer.node for layer in file if layer.node not in found)
    return (done / total if total else 0.0), lost


def share_in_file(file: Sequence[LayerFigure], asked: Precision) -> float:
    """Returns the share of the file's FLOPs that it does in `asked`."""
    total = sum(layer.flops for layer in file)
    return sum(layer.flops for layer in file if layer.precision == asked) / total if total else 0.0


def _layer(document: dict[str, Any]) -> PlanLayer:
    weights = document.get("Weights")
    weight_type = str(weights.get("Type", "")) if isinstance(weights, dict) else ""
    return PlanLayer(
        name=str(document.get("Name", "")),
        kind=str(document.get("LayerType", "")),
        nodes=tuple(_NODES.findall(str(document.get("Metadata", "")))),
        # `N/A due to dynamic shapes` names no type; the weights' type is then that of the product.
        precision=_first_precision(*_types_of(document.get("Inputs")), weight_type),
        tactic=str(document.get("TacticName", "")),
        output=_first_precision(*_types_of(document.get("Outputs"))),
    )


def _types_of(tensors: object) -> tuple[str, ...]:
    """Returns the texts that describe the type of the first tensor."""
    first = tensors[0] if isinstance(tensors, list) and tensors else {}
    return tuple(str(first.get(key, "")) for key in _TENSOR_TYPES) if isinstance(first, dict) else ()


def _first_precision(*texts: str) -> Precision | None:
    found = (precision for text in texts for pattern, precision in _TYPES if pattern.search(text))
    return next(found, None)
