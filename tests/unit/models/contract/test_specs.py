"""The contract's nouns: frozen, validated, the same tensors for export and service."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from saccade.models.contract.specs import PreprocessSpec, Task, TaskSpec, TensorSpec, input_tensor, output_tensors

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


@pytest.mark.parametrize("task", [Task.DETECT, Task.SEGMENT])
def test_only_classifiers_have_several_labels(task: Task) -> None:
    with pytest.raises(ValidationError, match="multi_label belongs to task: classify"):
        TaskSpec(task=task, max_detections=1, multi_label=True)


@pytest.mark.parametrize("task", [Task.CLASSIFY, Task.DETECT])
def test_task_without_its_size_is_refused(task: Task) -> None:
    with pytest.raises(ValidationError, match="needs"):
        TaskSpec(task=task)


@pytest.mark.parametrize("changes", [{"width": 0}, {"height": 8193}, {"pad_value": 256}, {"new": 1}, {"fit": "fill"}])
def test_preprocessing_outside_the_contract_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PreprocessSpec.model_validate({"width": 8, "height": 8, "fit": "stretch", **changes})


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ({"fit": "crop"}, "exactly one of shortest_edge, resize_to, cover"),
        ({"fit": "crop", "shortest_edge": 9, "resize_to": (9, 9)}, "exactly one of"),
        ({"fit": "letterbox", "resize_to": (9, 9)}, "belong to fit: crop"),
        ({"fit": "stretch", "shortest_edge": 9}, "shortest_edge does not apply"),
        ({"fit": "crop", "shortest_edge": 9, "longest_edge": 9}, "belong to fit: letterbox"),
        ({"fit": "stretch", "anchor": "top_left"}, "belong to fit: letterbox"),
        ({"fit": "letterbox", "rounding": "floor"}, "say floor_each"),
        ({"fit": "crop", "cover": (9, 9), "rounding": "floor"}, "say rounding: round"),
        ({"fit": "stretch", "resample": "lanczos", "antialias": False}, "not for lanczos"),
    ],
)
def test_preprocessing_that_contradicts_itself_says_what_to_change(section: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        PreprocessSpec.model_validate({"width": 8, "height": 8, **section})


def test_specs_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        SPEC.width = 3  # type: ignore[misc]  # the point of the test
