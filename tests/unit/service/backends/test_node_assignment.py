"""Which nodes may run on the CPU of a GPU session; assignments as ONNX Runtime 1.31 tells them."""

from __future__ import annotations

import pytest

from saccade.service.backends.node_assignment import AssignedNode, ensure_assigned
from saccade.service.errors import BackendError

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def nodes(**operators: str) -> list[AssignedNode]:
    return [AssignedNode(provider, operator, f"/{operator.lower()}") for operator, provider in operators.items()]


def test_graph_that_is_all_on_the_gpu_passes() -> None:
    assert ensure_assigned(nodes(Conv=CUDA, Relu=CUDA), CUDA) == ()


def test_arithmetic_on_shapes_may_stay_on_the_cpu_and_is_named() -> None:
    beside = ensure_assigned(nodes(Conv=CUDA, Shape=CPU, Gather=CPU, Concat=CPU), CUDA)

    assert [node.operator for node in beside] == ["Shape", "Gather", "Concat"]


def test_heavy_node_on_the_cpu_is_refused_by_name() -> None:
    found = [*nodes(Conv=CUDA, Shape=CPU, NonMaxSuppression=CPU), *nodes(NonMaxSuppression=CPU)]

    with pytest.raises(
        BackendError, match=r"not run the whole graph: 2 x NonMaxSuppression on CPUExecutionProvider \(such as '/nonmax"
    ):
        ensure_assigned(found, CUDA)


def test_any_node_on_a_third_provider_is_refused() -> None:
    with pytest.raises(BackendError, match="1 x Shape on TensorrtExecutionProvider"):
        ensure_assigned(nodes(Shape="TensorrtExecutionProvider"), CUDA)
