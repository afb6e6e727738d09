"""The contract's nouns: frozen, validated, the same tensors for export and service."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from models.specs import PreprocessSpec, Task, TaskSpec, TensorSpec, input_tensor, output_tensors

SPEC = PreprocessSpec(width=64, height=48, fit="letterbox")


def test_input_is_uint8_channels_last() -> None:
    assert input_tensor(SPEC) == TensorSpec(name="images", dtype="uint8", shape=(48, 64, 3))


@pytest.mark.parametrize(
    ("spec", "tensors"),
    [
        (TaskSpec(task=Task.CLASSIFY, top_k=3), {"scores": (3,), "class_ids": (3,)}),
        (
            TaskSpec(task=Task.DETECT, max_detections=7),
            {"boxes": (7, 4), "scores": (7,), "class_ids": (7,), "counts": ()},
        ),
        (TaskSpec(task=Task.SEGMENT), {"mask": (48, 64)}),
    ],
)
def test_each_task_has_one_fixed_answer(spec: TaskSpec, tensors: dict[str, tuple[int, ...]]) -> None:
    assert {tensor.name: tensor.shape for tensor in output_tensors(spec, SPEC)} == tensors


@pytest.mark.parametrize("task", [Task.CLASSIFY, Task.DETECT])
def test_task_without_its_size_is_refused(task: Task) -> None:
    with pytest.raises(ValidationError, match="needs"):
        TaskSpec(task=task)


@pytest.mark.parametrize(
    "changes", [{"width": 0}, {"height": 8193}, {"fit": "crop"}, {"pad_value": 256}, {"shortest_edge": 8}, {"new": 1}]
)
def test_preprocessing_outside_the_contract_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PreprocessSpec.model_validate({"width": 8, "height": 8, "fit": "stretch", **changes})


def test_specs_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        SPEC.width = 3  # type: ignore[misc]  # the point of the test
