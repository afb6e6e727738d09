"""Decides whether a graph may run with some nodes on the CPU: a pure function that refuses any heavy node there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from saccade.service.errors import BackendError

CPU_PROVIDER = "CPUExecutionProvider"
# ONNX Runtime puts these on the CPU on purpose: they compute shapes, a few numbers that are not worth a copy.
_SHAPE_OPERATORS = frozenset(
    {
        "Add",
        "Cast",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "Div",
        "Equal",
        "Gather",
        "Identity",
        "Max",
        "Min",
        "Mul",
        "Range",
        "ReduceProd",
        "Reshape",
        "Shape",
        "Size",
        "Slice",
        "Squeeze",
        "Sub",
        "Unsqueeze",
        "Where",
    }
)


@dataclass(frozen=True, slots=True)
class AssignedNode:
    """One node and the provider that runs it; fused nodes count as one."""

    provider: str
    operator: str
    name: str


def ensure_assigned(nodes: Iterable[AssignedNode], provider: str) -> tuple[AssignedNode, ...]:
    """The nodes that another provider runs and is allowed to. Raises BackendError naming those that it is not."""
    elsewhere = tuple(node for node in nodes if node.provider != provider)
    heavy = [node for node in elsewhere if node.provider != CPU_PROVIDER or node.operator not in _SHAPE_OPERATORS]
    if heavy:
        counts = Counter(f"{node.operator} on {node.provider}" for node in heavy)
        listed = ", ".join(f"{count} x {what}" for what, count in counts.most_common(8))
        example = next((node.name for node in heavy if node.name), "")
        where = f" (such as {example!r})" if example else ""
        raise BackendError(
            f"{provider} does not run the whole graph: {listed}{where}. Refusing the silent fallback: serve another "
            "variant on this device, or export without these operators"
        )
    return elsewhere
