"""Evidence that travels: what comes back measures the same as what went in, and damage is named."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from saccade.export.data.image_split import ImageSplit, prepare_split
from saccade.export.data.labelled_images import (
    ClassSample,
    DetectSample,
    ImageSample,
    LabelsSample,
    Sample,
    SegmentSample,
)
from saccade.export.errors import DataRefused
from saccade.export.publish.evidence_pack import images_within, read_evidence, write_evidence
from saccade.export.qualification.accuracy import Answer, evidence_of
from saccade.export.qualification.evidence import accuracy_of
from saccade.models.contract.run_lengths import MaskWindow, RunLengths
from saccade.models.contract.specs import MaskSpec, PreprocessSpec, Task, TaskSpec

SPEC = PreprocessSpec(width=16, height=16, fit="stretch")
CLASSES = 3


def image(index: int, width: int = 20, height: int = 14) -> bytes:
    pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def boxes(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    corner = rng.uniform(0, 6, (count, 2))
    return np.concatenate([corner, corner + 5], axis=1).astype(np.float32)


def mask(rng: np.random.Generator) -> RunLengths:
    return MaskWindow(0, 0, rng.random((14, 20)) < 0.6).run_lengths(14, 20)


def case(task: Task) -> tuple[TaskSpec, list[Sample], Answer]:
    rng, count = np.random.default_rng(5), 6
    if task is Task.CLASSIFY:
        ids = rng.integers(0, CLASSES, (count, CLASSES)).astype(np.int32)
        scores = rng.random((count, CLASSES)).astype(np.float32)
        return (
            TaskSpec(task=task, top_k=CLASSES),
            [ClassSample(image(index), index % CLASSES) for index in range(count)],
            [scores, ids],
        )
    if task is Task.EMBED:
        vectors = rng.normal(size=(count, 4)).astype(np.float32)
        return (
            TaskSpec(task=task, dim=4),
            [ClassSample(image(index), index % 2) for index in range(count)],
            [vectors / np.linalg.norm(vectors, axis=1, keepdims=True)],
        )
    if task is Task.IMAGE:
        restored: list[Sample] = [ImageSample(image(index), image(index + 1)) for index in range(count)]
        return TaskSpec(task=task, picture="rgb"), restored, [rng.random((count, 16, 16, 3)).astype(np.float32)]
    if task is Task.DETECT:
        scenes: list[Sample] = [
            DetectSample(image(index), boxes(rng, index % 3), np.arange(index % 3) % CLASSES, np.arange(index % 3) == 1)
            for index in range(count)
        ]
        found = [
            np.stack([boxes(rng, 4) for _ in range(count)]),
            rng.random((count, 4)).astype(np.float32),
            rng.integers(0, CLASSES, (count, 4)).astype(np.int32),
            np.full(count, 2, np.int32),
        ]
        return TaskSpec(task=task, max_detections=4), scenes, found
    if task is Task.INSTANCES:
        objects: list[Sample] = [
            DetectSample(
                image(index),
                boxes(rng, index % 3),
                np.arange(index % 3),
                masks=tuple(mask(rng) for _ in range(index % 3)),
            )
            for index in range(count)
        ]
        texts = [[mask(rng).text for _ in range(4)] for _ in range(count)]
        kept = [
            np.stack([boxes(rng, 4) for _ in range(count)]),
            rng.random((count, 4)).astype(np.float32),
            rng.integers(0, CLASSES, (count, 4)).astype(np.int32),
            np.full(count, 2, np.int32),
            np.array(texts, np.bytes_),
        ]
        spec = MaskSpec(form="prototypes", channels=2, width=4, height=4)
        return TaskSpec(task=task, max_detections=4, masks=spec), objects, kept
    masks: list[Sample] = [
        SegmentSample(image(index, 20 + index), rng.integers(0, CLASSES, (14, 20 + index)).astype(np.uint8))
        for index in range(count)
    ]
    return TaskSpec(task=task, background_id=0), masks, [rng.integers(0, CLASSES, (count, 16, 16)).astype(np.uint8)]


def metric(split: ImageSplit, answer: Answer, task: TaskSpec) -> float:
    evidence = evidence_of(answer, split, task, CLASSES)
    return accuracy_of(evidence, evidence, 20).value.value


@pytest.mark.parametrize("task", list(Task))
def test_metric_of_the_evidence_is_that_of_the_split(task: Task, tmp_path: Path) -> None:
    spec, samples, answer = case(task)
    split = prepare_split("test", samples, SPEC)
    write_evidence(tmp_path / "evidence.npz", split, answer, len(samples))

    data = read_evidence(tmp_path / "evidence.npz", task, SPEC)

    assert np.array_equal(data.split.images, split.images)
    assert data.split.sha256 == split.sha256
    assert list(data.split.geometries) == list(split.geometries)
    assert metric(data.split, data.expected, spec) == metric(split, answer, spec)


def test_only_the_images_that_fit_travel(tmp_path: Path) -> None:
    _, samples, answer = case(Task.DETECT)
    two = (len(samples[0].encoded) + len(samples[1].encoded)) / (1024 * 1024)

    count = images_within(samples, two)
    write_evidence(tmp_path / "evidence.npz", prepare_split("test", samples, SPEC), answer, count)

    assert count == 2
    assert [sample.encoded for sample in read_evidence(tmp_path / "evidence.npz", Task.DETECT, SPEC).split.samples] == [
        samples[0].encoded,
        samples[1].encoded,
    ]


def test_damaged_evidence_is_named(tmp_path: Path) -> None:
    _, samples, answer = case(Task.CLASSIFY)
    file = tmp_path / "evidence.npz"
    write_evidence(file, prepare_split("test", samples, SPEC), answer, len(samples))
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])

    with pytest.raises(DataRefused, match=r"evidence\.npz is damaged"):
        read_evidence(file, Task.CLASSIFY, SPEC)


def test_evidence_of_another_task_is_refused(tmp_path: Path) -> None:
    _, samples, answer = case(Task.SEGMENT)
    write_evidence(tmp_path / "evidence.npz", prepare_split("test", samples, SPEC), answer, len(samples))

    with pytest.raises(DataRefused, match="damaged"):
        read_evidence(tmp_path / "evidence.npz", Task.DETECT, SPEC)


def test_every_label_of_an_image_travels(tmp_path: Path) -> None:
    shown = ((0, 2), (), (1,), (0, 1, 2))
    samples: list[Sample] = [LabelsSample(image(index), class_ids) for index, class_ids in enumerate(shown)]
    scores = np.random.default_rng(0).random((4, CLASSES)).astype(np.float32)
    answer = [-np.sort(-scores, axis=1), np.argsort(-scores, axis=1).astype(np.int32)]
    split = prepare_split("test", samples, SPEC)
    write_evidence(tmp_path / "evidence.npz", split, answer, 3)

    data = read_evidence(tmp_path / "evidence.npz", Task.CLASSIFY, SPEC)

    assert [each.class_ids for each in data.split.samples if isinstance(each, LabelsSample)] == list(shown[:3])
    task = TaskSpec(task=Task.CLASSIFY, top_k=CLASSES, multi_label=True)
    few = prepare_split("test", samples[:3], SPEC)
    assert metric(data.split, data.expected, task) == metric(few, [array[:3] for array in answer], task)
